"""PML's accuracy calculator for multi-hot labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import Tensor

from pml_macl.checks import (
    check_bool,
    check_callable,
    check_choice,
    check_instance,
    check_integer,
    check_k,
    check_range,
)
from pml_macl.evaluation.distinct_rows import distinct_label_sets
from pml_macl.evaluation.full_precision import full_precision
from pml_macl.evaluation.functional.acg import acg
from pml_macl.evaluation.functional.anmrr import anmrr
from pml_macl.evaluation.functional.average_precision import AP_DENOMINATORS, average_precision
from pml_macl.evaluation.functional.average_precision_at_r import average_precision_at_r
from pml_macl.evaluation.functional.label_mean_average_precision_by_frequency import frequency_thirds
from pml_macl.evaluation.functional.label_retrieval import hamming_loss, label_f1, label_precision, label_recall
from pml_macl.evaluation.functional.ndcg import ndcg
from pml_macl.evaluation.functional.precision_at_k import precision_at_k
from pml_macl.evaluation.functional.r_precision import r_precision
from pml_macl.evaluation.functional.reciprocal_rank import reciprocal_rank
from pml_macl.evaluation.functional.weighted_average_precision import weighted_average_precision
from pml_macl.evaluation.map_in_threads import map_in_threads, num_torch_threads
from pml_macl.evaluation.metric_sums import MetricSums
from pml_macl.evaluation.metrics_at_k import check_at_k, functions_at_k, lacks_k, names_at_k
from pml_macl.evaluation.query_chunks import label_set_chunks, queries_per_chunk, references_at_once
from pml_macl.evaluation.query_share import QueryShare
from pml_macl.evaluation.ranked_queries import RankedQueries
from pml_macl.evaluation.ranker import make_rank_function
from pml_macl.evaluation.reference_labels import ReferenceLabels
from pml_macl.evaluation.retrieval_sets import Array, RetrievalSets
from pml_macl.labels import label_dtype
from pml_macl.statistics import LabelStatistics
from pml_macl.tuning import EVALUATION_BYTES_PER_RANK, EVALUATION_CPU_BUDGET, EVALUATION_GPU_BUDGET

MetricFunction = Callable[[RankedQueries], Tensor]

GAINS = ("shared", "jaccard")
_CLUSTERING_METRICS = ("NMI", "AMI")
FULL_RANKING_METRICS = ("anmrr",)
BY_FREQUENCY = "label_mean_average_precision_by_frequency"
_BY_FREQUENCY_METRICS = tuple(f"label_mean_average_precision_{part}" for part in ("tail", "middle", "head"))


class MultiLabelAccuracyCalculator(AccuracyCalculator):
    r"""Compute retrieval metrics for multi-hot labels, in place of PML's ``AccuracyCalculator``.

    The calculator ranks the references by their distance to each query, computes one value per query, and returns the
    mean over queries. A reference is relevant to a query if the two share a label and their Jaccard similarity is at
    least ``relevance_threshold``. As in PML, queries without a relevant reference do not count. On one-hot labels,
    metrics that PML has too get PML's values. The page of the metric functions gives the formulas.

    | Metric | Value of a query |
    |---|---|
    | ``precision_at_1`` | 1 if the nearest reference is relevant, otherwise 0 |
    | ``recall_at_k`` | for each K in ``at_k``: 1 if one of the first K references is relevant, otherwise 0 |
    | ``precision_at_k`` | for each K in ``at_k``: share of relevant references among the first K |
    | ``coverage_at_k`` | for each K in ``at_k``: share of the relevant references that are among the first K |
    | ``r_precision`` | precision among the first R, where R is the number of relevant references |
    | ``mean_average_precision`` | mean of the precisions at the ranks of the relevant references |
    | ``mean_average_precision_at_r`` | average precision over the first R ranks |
    | ``mean_reciprocal_rank`` | 1 / rank of the first relevant reference |
    | ``ndcg`` | gains discounted by rank, divided by those of the best possible ranking |
    | ``acg`` | mean gain of the first k references |
    | ``weighted_average_precision`` | average precision with gains in place of relevance |
    | ``label_precision``, ``label_recall``, ``label_f1`` | agreement between the labels of query and first k |
    | ``hamming_loss`` | share of classes in which query and first k differ; smaller is better |
    | ``anmrr`` | normalised mean rank of the relevant references; smaller is better |

    Label mAP, ``label_mean_average_precision``, has one value per query and label that the query carries: the average
    precision if the references that carry the label are relevant. It is averaged over the queries of each label, then
    over labels. ``label_mean_average_precision_tail``, ``_middle`` and ``_head`` average over the rarest, the middle
    and the most frequent third of the labels.

    ``acg``, the three agreements and ``hamming_loss`` are means over the ranked references. Give ``k`` with them: over
    all references they do not depend on the embeddings.

    Do not use ``hamming_loss`` or ``anmrr`` as ``primary_metric`` of PML's ``HookContainer``, which keeps the model
    with the largest value.

    The distance is Euclidean on the embeddings as given; references at equal distances are ranked by index. Queries are
    evaluated in chunks on the device of the embeddings. The ranking uses full float32 precision, also under autocast or
    TF32: each call sets torch's float32 matmul precision to the highest, for all threads, and restores it afterwards.

    Args:
        include: names of the metrics to compute; empty computes all. Some names stand for several metrics:
            ``"recall_at_k"`` stands for ``recall_at_1``, ``recall_at_5``, ... with all K in ``at_k``,
            ``"precision_at_k"`` and ``"coverage_at_k"`` likewise, and ``"label_mean_average_precision_by_frequency"``
            for tail, middle and head.
        exclude: names of the metrics to leave out.
        avg_of_avgs: average over the queries that carry each label first, then over labels.
        return_per_class: return these label means as a list in class order, with NaN for a label without queries.
        k: number of nearest references to rank: None for all, an integer, or ``"max_bin_count"`` for the largest
            number of references that are relevant to one query. Metrics ignore the ranks beyond k, but R still counts
            all relevant references. ``anmrr`` needs the full ranking: if ``k`` is given, it is computed only if
            ``include`` names it.
        device: where to compute; None uses the device of the embeddings.
        knn_func: replaces the exact ranking: PML's ``FaissKNN`` or ``CustomKNN``, or a function with their arguments.
        at_k: values of K for ``recall_at_k``, ``precision_at_k`` and ``coverage_at_k``, such as ``(1, 5, 10)``, at most
            ``k``. One ranking serves all K. None computes none of these metrics. If there are fewer than K references,
            the missing ones count as not relevant.
        relevance_threshold: smallest Jaccard similarity of a relevant reference, in [0, 1]; with 0, one shared label
            is enough.
        gain: gain of a reference: ``"shared"``, the number of shared labels, or ``"jaccard"``.
        exponential_gain: use :math:`2^g - 1` instead of the gain g in ``ndcg``.
        ap_denominator: what average precision divides by: ``"relevant"``, the number R of relevant references, as in
            PML; ``"hits"``, the number among the first k, as in torchmetrics; or ``"min"``, min(R, k). If you set
            ``k``, use ``"min"``: a perfect ranking then gets 1. With ``"relevant"``, no ranking gets more than k / R,
            which is 0.02 for ``k=20`` and R = 1000.
        label_statistics: label counts that decide which labels are rare; None counts in the reference set.
        query_batch_size: number of queries in one chunk; None takes as many as ``memory_budget`` allows.
        memory_budget: approximate number of bytes for temporary tensors; None is 64 MiB on a CPU, 1 GiB on a GPU. A
            single query may need more. Another budget changes the results by rounding only: sums are added up in
            another order, and references at nearly equal distances may change places.
        distributed: whether the processes of torch.distributed share the queries. All must call :meth:`get_accuracy`
            with the same arguments, and all get the values of one process. ``knn_func`` still searches all queries in
            each process. Without an initialised process group, the setting has no effect.

    Raises:
        TypeError: ``include``, ``exclude`` or ``at_k`` is not a tuple or list, or a setting has the wrong type.
        ValueError: a metric is unknown, a setting is outside its range, or ``at_k`` exceeds ``k``.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]])
        >>> calculator = MultiLabelAccuracyCalculator(include=("mean_reciprocal_rank", "recall_at_k"), at_k=(1, 2))
        >>> calculator.get_accuracy(embeddings, labels)
        {'mean_reciprocal_rank': 0.8333333333333334, 'recall_at_1': 0.6666666666666666, 'recall_at_2': 1.0}
    """

    original_function_dict: dict[str, Any]

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        avg_of_avgs: bool = False,
        return_per_class: bool = False,
        k: int | str | None = None,
        device: torch.device | str | None = None,
        knn_func: Callable[..., tuple[Tensor, Tensor]] | None = None,
        *,
        at_k: Sequence[int] | None = None,
        relevance_threshold: float = 0.0,
        gain: str = "shared",
        exponential_gain: bool = False,
        ap_denominator: str = "relevant",
        label_statistics: LabelStatistics | None = None,
        query_batch_size: int | None = None,
        memory_budget: int | None = None,
        distributed: bool = False,
    ) -> None:
        check_k(k)
        check_bool("avg_of_avgs", avg_of_avgs)
        check_bool("return_per_class", return_per_class)
        self.at_k = check_at_k(at_k, k)
        self._names_at_k = names_at_k(self.at_k)
        super().__init__(
            exclude=_CLUSTERING_METRICS,
            avg_of_avgs=avg_of_avgs,
            return_per_class=return_per_class,
            k=k,
            device=torch.device("cpu"),
            knn_func=_not_used,  # PML's defaults would ask for faiss
            kmeans_func=_not_used,
        )
        for name, function in functions_at_k(self.at_k).items():
            self.original_function_dict.setdefault(name, function)
        self.check_primary_metrics(include, exclude)
        if not include and k is not None:
            exclude = (*exclude, *FULL_RANKING_METRICS)
        self.original_function_dict = self.get_function_dict(include, exclude)
        self.curr_function_dict = self.get_function_dict()
        self.device = None if device is None else _as_device(device)
        self.knn_func = knn_func
        self.relevance_threshold = relevance_threshold
        self.gain = gain
        self.exponential_gain = exponential_gain
        self.ap_denominator = ap_denominator
        self.label_statistics = label_statistics
        self.query_batch_size = query_batch_size
        self.memory_budget = memory_budget
        self.distributed = distributed
        self._check_settings()

    @torch.no_grad()
    def get_accuracy(
        self,
        query: Array,
        query_labels: Array,
        reference: Array | None = None,
        reference_labels: Array | None = None,
        ref_includes_query: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> dict[str, float | list[float]]:
        """Rank the references for each query and compute the metrics.

        Args:
            query: (Q, D) embeddings, finite.
            query_labels: (Q, C) multi-hot label sets.
            reference: (M, D) embeddings; None ranks the queries among themselves.
            reference_labels: (M, C) multi-hot label sets.
            ref_includes_query: whether the first Q references are the queries. If so, each query is left out of its
                own ranking.
            include: names of the metrics to compute in this call, out of those that the constructor selected.
            exclude: names of the metrics to leave out in this call.

        Returns:
            One value per metric, or with ``return_per_class`` a list with one value per class; NaN if no query has a
            relevant reference.

        Raises:
            TypeError: an argument is neither a tensor nor an array.
            ValueError: shapes do not fit each other, labels are not 0 or 1, embeddings are not finite, a metric is
                unknown, a metric needs more references than ``k`` ranks, or with ``ref_includes_query`` the references
                do not begin with the queries. With ``distributed``, all processes raise: ``ValueError`` if their shapes
                or labels differ; their embeddings are not compared.
            RuntimeError: with ``distributed``, the input of another process is wrong.
        """
        num_torch_threads()  # must come before any other torch call of this thread: see its docstring
        self.check_primary_metrics(include, exclude)
        share = QueryShare.of_this_process(self.distributed)
        sets = share.same_sets(
            lambda: RetrievalSets.from_arrays(
                query, query_labels, reference, reference_labels, ref_includes_query, self.device
            )
        )
        if self.label_statistics is not None and self.label_statistics.num_classes != sets.num_classes:
            raise ValueError(
                f"label_statistics must count the {sets.num_classes} classes of the labels, "
                f"got counts of {self.label_statistics.num_classes} classes"
            )
        previous = self.curr_function_dict
        functions = self.curr_function_dict = self.get_function_dict(include, exclude)
        try:
            with full_precision(sets.query.device.type):
                return self._rank_and_measure(sets, functions, share)
        except Exception:  # a failed call must not change the calculator
            self.curr_function_dict = previous
            raise

    def calculate_precision_at_1(self, ranking: RankedQueries) -> Tensor:
        return precision_at_k(ranking.relevance, 1)

    def calculate_r_precision(self, ranking: RankedQueries) -> Tensor:
        return r_precision(ranking.relevance, ranking.num_relevant)

    def calculate_mean_average_precision(self, ranking: RankedQueries) -> Tensor:
        return average_precision(ranking.relevance, ranking.num_relevant, self.ap_denominator)

    def calculate_mean_average_precision_at_r(self, ranking: RankedQueries) -> Tensor:
        return average_precision_at_r(ranking.relevance, ranking.num_relevant)

    def calculate_mean_reciprocal_rank(self, ranking: RankedQueries) -> Tensor:
        return reciprocal_rank(ranking.relevance)

    def calculate_ndcg(self, ranking: RankedQueries) -> Tensor:
        return ndcg(ranking.gains, ranking.ideal_gains, self.exponential_gain)

    def calculate_acg(self, ranking: RankedQueries) -> Tensor:
        return acg(ranking.gains)

    def calculate_weighted_average_precision(self, ranking: RankedQueries) -> Tensor:
        return weighted_average_precision(ranking.gains, ranking.relevance)

    def calculate_label_precision(self, ranking: RankedQueries) -> Tensor:
        return label_precision(ranking.shared, ranking.reference_sizes)

    def calculate_label_recall(self, ranking: RankedQueries) -> Tensor:
        return label_recall(ranking.shared, ranking.query_sizes)

    def calculate_label_f1(self, ranking: RankedQueries) -> Tensor:
        return label_f1(ranking.shared, ranking.query_sizes, ranking.reference_sizes)

    def calculate_hamming_loss(self, ranking: RankedQueries) -> Tensor:
        return hamming_loss(ranking.shared, ranking.query_sizes, ranking.reference_sizes, ranking.labels.shape[1])

    def calculate_anmrr(self, ranking: RankedQueries) -> Tensor:
        return anmrr(ranking.relevance, ranking.num_relevant, ranking.max_relevant)

    def calculate_label_mean_average_precision(self, ranking: RankedQueries) -> Tensor:
        return ranking.label_average_precision

    def calculate_label_mean_average_precision_tail(self, ranking: RankedQueries) -> Tensor:
        return ranking.label_average_precision.masked_fill(ranking.thirds != 0, torch.nan)

    def calculate_label_mean_average_precision_middle(self, ranking: RankedQueries) -> Tensor:
        return ranking.label_average_precision.masked_fill(ranking.thirds != 1, torch.nan)

    def calculate_label_mean_average_precision_head(self, ranking: RankedQueries) -> Tensor:
        return ranking.label_average_precision.masked_fill(ranking.thirds != 2, torch.nan)

    def get_function_dict(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict[str, Any]:
        functions: dict[str, Any] = super().get_function_dict(self._expand(include), self._expand(exclude))
        return functions

    def check_primary_metrics(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Raise unless both are tuples or lists of metrics that this calculator computes."""
        for name, metrics in (("include", include), ("exclude", exclude)):
            if not isinstance(metrics, tuple | list):
                raise TypeError(f"{name} must be a tuple or list of metric names, got {metrics!r}")
            known = {*self.original_function_dict, *(_CLUSTERING_METRICS if name == "exclude" else ())}
            unknown = [metric for metric in self._expand(metrics) if metric not in known]
            if unknown:
                raise ValueError(
                    f"{name} has {unknown}, which this calculator does not compute; "
                    f"it has: {', '.join(self.original_function_dict)}{self._hint(unknown)}"
                )

    def requires_knn(self) -> list[str]:
        return list(self.original_function_dict)

    def requires_clustering(self) -> list[str]:
        return []

    def _check_settings(self) -> None:
        check_bool("exponential_gain", self.exponential_gain)
        check_bool("distributed", self.distributed)
        check_callable("knn_func", self.knn_func, "a FaissKNN, a CustomKNN, a function with their arguments")
        check_range("relevance_threshold", self.relevance_threshold, 0, 1)
        check_choice("gain", self.gain, GAINS)
        check_choice("ap_denominator", self.ap_denominator, AP_DENOMINATORS)
        check_instance("label_statistics", self.label_statistics, LabelStatistics, "LabelStatistics")
        for name, number in (("query_batch_size", self.query_batch_size), ("memory_budget", self.memory_budget)):
            if number is not None:
                check_integer(name, number)

    def _expand(self, metrics: Sequence[str]) -> list[str]:
        """Replace each name that stands for several metrics by their names."""
        groups = {BY_FREQUENCY: _BY_FREQUENCY_METRICS} | {m: names for m, names in self._names_at_k.items() if names}
        return [name for metric in metrics for name in groups.get(metric, (metric,))]

    def _hint(self, unknown: Sequence[str]) -> str:
        """Return how to get some of the metrics that this calculator does not compute; empty if there is no advice."""
        if "anmrr" in unknown and self.k is not None:
            return "; anmrr is left out because k is given: name it in the constructor's include"
        if any(lacks_k(metric, self.at_k) for metric in unknown):
            return "; give the constructor the values of K that you need, for example at_k=(1, 5, 10)"
        return ""

    def _rank_and_measure(
        self, sets: RetrievalSets, functions: Mapping[str, MetricFunction], share: QueryShare
    ) -> dict[str, float | list[float]]:
        """Return what :meth:`get_accuracy` returns."""
        budget = self.memory_budget or (EVALUATION_GPU_BUDGET if sets.query.is_cuda else EVALUATION_CPU_BUDGET)
        references = ReferenceLabels(sets.reference_labels, label_dtype(sets.query), self.relevance_threshold)
        distinct, set_of_query, _ = distinct_label_sets(sets.query_labels)
        counts = [references.count_relevant(chunk) for chunk in label_set_chunks(distinct, references.num_sets, budget)]
        num_relevant = torch.cat(counts)[set_of_query] - sets.num_own * sets.query_labels.any(dim=1).long()
        k = self._num_ranks(sets, num_relevant, functions)
        sums = MetricSums(list(functions), sets.num_classes, sets.query.device)
        if k:
            on_cpu = sets.query.device.type == "cpu"
            budget //= num_torch_threads() if on_cpu else 1  # on a CPU each thread has a chunk at a time
            measure = self._measurement(sets, references, functions, num_relevant, k, budget)
            num_columns = max(references_at_once(len(sets.reference), k), references.num_sets)
            size = int(self.query_batch_size or 0) or queries_per_chunk(num_columns, k, sets.num_classes, budget)
            # Queries with equal label sets follow each other, so that a chunk compares each set only once.
            chunks = share.chunks(set_of_query.argsort(stable=True), size)
            results = map_in_threads(measure, chunks) if on_cpu else map(measure, chunks)
            for rows, values in zip(chunks, results, strict=True):
                sums.add(sets.query_labels[rows], values)
            share.add_up(sums.totals)
        return {name: self._report(sums, name) for name in functions}

    def _num_ranks(self, sets: RetrievalSets, num_relevant: Tensor, functions: Mapping[str, MetricFunction]) -> int:
        """Return how many references to rank for each query; raise if a metric needs more."""
        k: int = self.determine_k(num_relevant + sets.num_own, len(sets.reference), sets.ref_includes_query)
        k = min(max(k, 1), sets.num_others)
        needed = {"anmrr": 2 * int(num_relevant.max())}
        for names in self._names_at_k.values():
            needed |= dict(zip(names, self.at_k, strict=True))
        for name in functions:
            depth = min(needed.get(name, 0), sets.num_others)
            if k < depth:
                raise ValueError(
                    f"{name} needs at least the first {depth} references, but k={self.k!r} ranks only the first {k}; "
                    f"set k=None or exclude=({name!r},)"
                )
        return k

    def _measurement(
        self,
        sets: RetrievalSets,
        references: ReferenceLabels,
        functions: Mapping[str, MetricFunction],
        num_relevant: Tensor,
        k: int,
        budget: int,
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """Return a function that ranks the references for the (N,) queries with the given indices.

        It returns the (N,) or (N, C) values of each metric. Where a metric has one value per query, queries without a
        relevant reference get NaN.
        """
        frequency = references.label_counts if self.label_statistics is None else self.label_statistics.counts
        has_value = sets.query_labels.any(dim=0) & (references.label_counts > sets.num_own)
        thirds = frequency_thirds(frequency.to(sets.query.device), has_value)
        rank = make_rank_function(sets, k, self.knn_func)
        max_relevant = num_relevant.max()

        def measure(rows: Tensor) -> dict[str, Tensor]:
            ranking = RankedQueries(
                rank(rows),
                sets.query_labels[rows],
                references,
                num_relevant[rows],
                max_relevant,
                thirds,
                max_elements=budget // EVALUATION_BYTES_PER_RANK,
                own_index=rows if sets.ref_includes_query else None,
                gain=self.gain,
                ap_denominator=self.ap_denominator,
            )
            is_lone = ranking.num_relevant == 0
            values = {name: function(ranking) for name, function in functions.items()}
            return {
                name: v.double().masked_fill(is_lone, torch.nan) if v.ndim == 1 else v for name, v in values.items()
            }

        return measure

    def _report(self, sums: MetricSums, name: str) -> float | list[float]:
        """Return the value of a metric, or its values per class."""
        if self.return_per_class:
            means: list[float] = sums.label_means(name).tolist()
            return means
        return sums.mean_over_labels(name) if self.avg_of_avgs else sums.mean(name)


def _as_device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be a torch device such as 'cpu' or 'cuda:0', got {device!r}") from error


def _not_used(*_: object) -> NoReturn:
    raise RuntimeError("PML's own ranking or clustering was called, which get_accuracy replaces")
