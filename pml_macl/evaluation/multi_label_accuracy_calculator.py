"""PML's accuracy calculator for multi-hot labels."""

from collections.abc import Callable, Sequence
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
from pml_macl.evaluation.metric_accumulator import MetricAccumulator
from pml_macl.evaluation.query_chunks import label_set_chunks, query_chunks
from pml_macl.evaluation.ranked_queries import RankedQueries
from pml_macl.evaluation.ranker import Ranker
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
    r"""Retrieval metrics for multi-hot labels, computed in query chunks on the device of the embeddings.

    A reference r is relevant to a query q if they share a label and their Jaccard similarity is at least
    ``relevance_threshold``. Queries without a relevant reference are left out, as in PML. On one-hot labels, metrics
    that PML has too get PML's values. References are ranked by Euclidean distance on the embeddings as given, equal
    distances by reference index. Ranking uses full float32 also under autocast or TF32: during a call torch's float32
    matmul precision is at its highest, for other threads too, and afterwards it is what it was.

    The metrics, each documented with the function of its name: ``precision_at_1``, ``r_precision``,
    ``mean_average_precision``, ``mean_average_precision_at_r``, ``mean_reciprocal_rank``, ``ndcg``, ``acg``,
    ``weighted_average_precision``, ``label_precision``, ``label_recall``, ``label_f1``, ``hamming_loss``, ``anmrr``
    (smaller is better for the last two, so do not use them as ``primary_metric`` of PML's ``HookContainer``), and
    ``label_mean_average_precision``: the mean over labels of the average precision of the queries that carry the
    label, where the references that carry it are relevant. ``label_mean_average_precision_tail``, ``_middle`` and
    ``_head`` are the same mean over the rarest third of the labels, the middle third and the most frequent third.

    Args:
        include: names of the metrics to compute; empty for all.
        exclude: names of metrics to leave out. ``"label_mean_average_precision_by_frequency"`` stands for the three of
            tail, middle and head, here and in ``include``.
        avg_of_avgs: take the mean over the queries that carry each label, then the mean over labels.
        return_per_class: return those means as a list in class order, NaN for a label without queries.
        k: how many nearest references are ranked: None for all, an int, or ``"max_bin_count"`` for the largest number
            of references that are relevant to one query. If k is given, ``anmrr``, which needs all, is computed only
            if ``include`` names it.
        device: where to compute; None is the device of the embeddings.
        knn_func: replaces the exact ranking: PML's ``FaissKNN``, ``CustomKNN`` or a function with their arguments.
        relevance_threshold: in [0, 1]; 0 makes a reference relevant if it shares any label.
        gain: gain of a reference: ``"shared"``, the number of shared labels, or ``"jaccard"``.
        exponential_gain: use :math:`2^g - 1` for the gain g in ``ndcg``.
        ap_denominator: what average precision divides by: ``"relevant"`` (PML), ``"hits"`` or ``"min"``, see
            :func:`~pml_macl.evaluation.average_precision`.
        label_statistics: label counts that decide which labels are rare; None counts in the reference set.
        query_batch_size: queries in one chunk; None takes as many as the memory budget allows.
        memory_budget: bytes that the temporaries may take, about; None is 64 MiB on a CPU, 1 GiB on a GPU.
            A single query may need more. Another budget
            changes the results by rounding only: sums are added up in another order, and references whose distances to
            the query agree to rounding may change places.

    Raises:
        TypeError: ``include`` or ``exclude`` is not a tuple or list, or a setting has the wrong type.
        ValueError: an unknown metric, or a setting outside its range.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0]])
        >>> labels = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0]])
        >>> calculator = MultiLabelAccuracyCalculator(include=("precision_at_1", "mean_reciprocal_rank"))
        >>> calculator.get_accuracy(embeddings, labels)
        {'mean_reciprocal_rank': 0.8333333333333334, 'precision_at_1': 0.6666666666666666}
    """

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
        relevance_threshold: float = 0.0,
        gain: str = "shared",
        exponential_gain: bool = False,
        ap_denominator: str = "relevant",
        label_statistics: LabelStatistics | None = None,
        query_batch_size: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        check_k(k)
        check_bool("avg_of_avgs", avg_of_avgs)
        check_bool("return_per_class", return_per_class)
        check_bool("exponential_gain", exponential_gain)
        check_callable("knn_func", knn_func, "a FaissKNN, a CustomKNN, a function of their form")
        check_range("relevance_threshold", relevance_threshold, 0, 1)
        check_choice("gain", gain, GAINS)
        check_choice("ap_denominator", ap_denominator, AP_DENOMINATORS)
        check_instance("label_statistics", label_statistics, LabelStatistics, "LabelStatistics")
        for name, number in (("query_batch_size", query_batch_size), ("memory_budget", memory_budget)):
            if number is not None:
                check_integer(name, number)
        super().__init__(
            exclude=_CLUSTERING_METRICS,
            avg_of_avgs=avg_of_avgs,
            return_per_class=return_per_class,
            k=k,
            device=torch.device("cpu"),
            knn_func=_not_used,  # PML's defaults would ask for faiss
            kmeans_func=_not_used,
        )
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
            ref_includes_query: the first Q references are the queries; each is left out of its own ranking.
            include: names of the metrics to compute in this call, out of those that the constructor chose.
            exclude: names of the metrics to leave out in this call.

        Returns:
            One value per metric, or with ``return_per_class`` a list with one value per class; NaN if no query counts.

        Raises:
            TypeError: an argument is neither a tensor nor an array.
            ValueError: shapes that do not fit each other, labels other than 0 and 1, embeddings that are not finite,
                an unknown metric, or with ``ref_includes_query`` references that do not begin with the queries.
        """
        num_torch_threads()  # before anything else in this thread, see there
        self.check_primary_metrics(include, exclude)
        sets = RetrievalSets.from_arrays(
            query, query_labels, reference, reference_labels, ref_includes_query, self.device
        )
        if self.label_statistics is not None and self.label_statistics.num_classes != sets.num_classes:
            raise ValueError(
                f"label_statistics must be of the {sets.num_classes} classes of the labels, "
                f"got {self.label_statistics.num_classes}"
            )
        previous = self.curr_function_dict
        functions = self.curr_function_dict = self.get_function_dict(include, exclude)
        try:
            with full_precision(sets.query.device.type):
                return self._rank_and_measure(sets, functions)
        except Exception:  # a failed call leaves the calculator as it was
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
        functions: dict[str, Any] = super().get_function_dict(_expand(include), _expand(exclude))
        return functions

    def check_primary_metrics(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Raise unless both are tuples or lists of metrics that this calculator has."""
        for name, metrics in (("include", include), ("exclude", exclude)):
            if not isinstance(metrics, tuple | list):
                raise TypeError(f"{name} must be a tuple or list of metric names, got {metrics!r}")
            unknown = [metric for metric in _expand(metrics) if metric not in self.original_function_dict]
            if unknown:
                known = ", ".join(self.original_function_dict)
                hint = "; anmrr is left out because k is given" if "anmrr" in unknown else ""
                raise ValueError(f"{name} has {unknown}, which this calculator does not compute; it has: {known}{hint}")

    def requires_knn(self) -> list[str]:
        return list(self.original_function_dict)

    def requires_clustering(self) -> list[str]:
        return []

    def _rank_and_measure(
        self, sets: RetrievalSets, functions: dict[str, MetricFunction]
    ) -> dict[str, float | list[float]]:
        """What the user gets for each metric."""
        references = ReferenceLabels(sets.reference_labels, label_dtype(sets.query), self.relevance_threshold)
        default_budget = EVALUATION_GPU_BUDGET if sets.query.is_cuda else EVALUATION_CPU_BUDGET
        budget = self.memory_budget or default_budget
        distinct, set_of_query, _ = distinct_label_sets(sets.query_labels)
        chunks = label_set_chunks(distinct, len(sets.reference), budget)
        counts = torch.cat([references.count_relevant(chunk) for chunk in chunks])
        num_relevant = counts[set_of_query] - sets.num_own * sets.query_labels.any(dim=1).long()
        k = self._num_ranks(sets, num_relevant, needs_all="anmrr" in functions)
        metrics: dict[str, MetricAccumulator] = {}
        if k:
            on_cpu = sets.query.device.type == "cpu"
            budget //= num_torch_threads() if on_cpu else 1  # on a CPU each thread has a chunk at a time
            max_elements = budget // EVALUATION_BYTES_PER_RANK
            measure = self._measurement(sets, functions, references, num_relevant, k, max_elements)
            chunks = query_chunks(set_of_query, len(sets.reference), k, sets.num_classes, budget, self.query_batch_size)
            results = map_in_threads(measure, chunks) if on_cpu else map(measure, chunks)
            for rows, values in zip(chunks, results, strict=True):
                for name, value in values.items():
                    if name not in metrics:
                        metrics[name] = MetricAccumulator(sets.query_labels, has_label_values=value.ndim == 2)
                    metrics[name].add(rows, value)
        without_value = MetricAccumulator(sets.query_labels, has_label_values=False)
        return {name: self._report(metrics.get(name, without_value)) for name in functions}

    def _num_ranks(self, sets: RetrievalSets, num_relevant: Tensor, needs_all: bool) -> int:
        """How many references are ranked for each query."""
        k: int = self.determine_k(num_relevant + sets.num_own, len(sets.reference), sets.ref_includes_query)
        k = min(max(k, 1), sets.num_others)
        if needs_all:
            needed = min(2 * int(num_relevant.max()), sets.num_others)
            if k < needed:
                raise ValueError(
                    f"anmrr needs the full ranking, here at least the first {needed} references, but only the first "
                    f"{k} are ranked; set k=None or exclude=('anmrr',)"
                )
        return k

    def _measurement(
        self,
        sets: RetrievalSets,
        functions: dict[str, MetricFunction],
        references: ReferenceLabels,
        num_relevant: Tensor,
        k: int,
        max_elements: int,
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """A function that gives the values of each metric for some of the queries, given by index."""
        rank = self._ranker(sets, k)
        max_relevant = num_relevant.max()
        frequency = references.label_counts if self.label_statistics is None else self.label_statistics.counts
        has_value = sets.query_labels.any(dim=0) & (references.label_counts > sets.num_own)
        thirds = frequency_thirds(frequency.to(sets.query.device), has_value)

        def measure(rows: Tensor) -> dict[str, Tensor]:
            ranking = RankedQueries(
                rank(rows),
                sets.query_labels[rows],
                references,
                num_relevant[rows],
                max_relevant,
                thirds,
                max_elements,
                own_index=rows if sets.ref_includes_query else None,
                gain=self.gain,
                ap_denominator=self.ap_denominator,
            )
            return {name: _values(function, ranking) for name, function in functions.items()}

        return measure

    def _ranker(self, sets: RetrievalSets, k: int) -> Callable[[Tensor], Tensor]:
        """A function that ranks the references for some of the queries, given by index."""
        query, reference = sets.query, sets.reference
        if self.knn_func is None:
            ranker = Ranker(reference)
            return lambda rows: ranker(query[rows], k, rows if sets.ref_includes_query else None)
        # Each call of knn_func builds an index, so there is one call for all queries.
        order = self.knn_func(query, k, reference, sets.ref_includes_query)[1]
        if order.shape != (len(query), k):
            raise ValueError(
                f"knn_func must return the {k} nearest references of each query, shape {(len(query), k)}, got indices "
                f"of shape {tuple(order.shape)}; ask for fewer with k"
            )
        order = torch.where(order < 0, len(reference), order)
        return lambda rows: order[rows]

    def _report(self, metric: MetricAccumulator) -> float | list[float]:
        """What the user gets for a metric."""
        if self.return_per_class:
            means: list[float] = metric.label_means().tolist()
            return means
        return metric.mean_over_labels() if self.avg_of_avgs else metric.mean()


def _values(function: MetricFunction, ranking: RankedQueries) -> Tensor:
    """A metric's values. If it has one value per query, queries without a relevant reference get NaN."""
    values = function(ranking)
    return values.masked_fill(ranking.num_relevant == 0, torch.nan) if values.ndim == 1 else values


def _expand(metrics: Sequence[str]) -> tuple[str, ...]:
    """The names, with the three metrics by frequency in place of their common name."""
    return tuple(
        name for metric in metrics for name in (_BY_FREQUENCY_METRICS if metric == BY_FREQUENCY else (metric,))
    )


def _as_device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be a torch device such as 'cpu' or 'cuda:0', got {device!r}") from error


def _not_used(*_: object) -> NoReturn:
    raise RuntimeError("PML's own ranking or clustering was called, which get_accuracy replaces")
