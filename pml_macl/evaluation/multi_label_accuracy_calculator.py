"""PML's accuracy calculator for multi-hot labels."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
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
from pml_macl.evaluation.acg import acg
from pml_macl.evaluation.anmrr import anmrr
from pml_macl.evaluation.average_precision import AP_DENOMINATORS, average_precision
from pml_macl.evaluation.average_precision_at_r import average_precision_at_r
from pml_macl.evaluation.distinct_rows import distinct_label_sets
from pml_macl.evaluation.map_in_threads import map_in_threads
from pml_macl.evaluation.label_mean_average_precision_by_frequency import frequency_thirds
from pml_macl.evaluation.label_retrieval import hamming_loss, label_f1, label_precision, label_recall
from pml_macl.evaluation.metric_accumulator import MetricAccumulator
from pml_macl.evaluation.ndcg import ndcg
from pml_macl.evaluation.precision_at_k import precision_at_k
from pml_macl.evaluation.r_precision import r_precision
from pml_macl.evaluation.ranked_queries import RankedQueries
from pml_macl.evaluation.ranker import Ranker
from pml_macl.evaluation.reciprocal_rank import reciprocal_rank
from pml_macl.evaluation.reference_labels import ReferenceLabels
from pml_macl.evaluation.weighted_average_precision import weighted_average_precision
from pml_macl.labels import check_labels, label_dtype
from pml_macl.statistics import LabelStatistics

Array = Tensor | NDArray[Any]
GAINS = ("shared", "jaccard")
_CLUSTERING_METRICS = ("NMI", "AMI")
FULL_RANKING_METRICS = ("anmrr",)
BY_FREQUENCY = "label_mean_average_precision_by_frequency"
_BY_FREQUENCY_METRICS = tuple(f"label_mean_average_precision_{part}" for part in ("tail", "middle", "head"))
# What the temporaries of one query take at the peak: for each reference, each rank and each class.
_BYTES_PER_REFERENCE, _BYTES_PER_RANK, _BYTES_PER_CLASS = 12, 64, 16
_CPU_BUDGET, _GPU_BUDGET = 2**26, 2**30  # a CPU is fastest while a chunk fits into its cache, a GPU when it is busy


class MultiLabelAccuracyCalculator(AccuracyCalculator):
    r"""Retrieval metrics for multi-hot labels, computed in query chunks on the device of the embeddings.

    A reference r is relevant to a query q if they share a label and their Jaccard similarity reaches
    ``relevance_threshold``. Queries without a relevant reference are left out, as in PML. On one-hot labels the
    metrics that PML has are PML's. References are ranked by Euclidean distance on the embeddings as given, ties by
    reference index.

    The metrics, each documented with the function of its name: ``precision_at_1``, ``r_precision``,
    ``mean_average_precision``, ``mean_average_precision_at_r``, ``mean_reciprocal_rank``, ``ndcg``, ``acg``,
    ``weighted_average_precision``, ``label_precision``, ``label_recall``, ``label_f1``, ``hamming_loss``, ``anmrr``
    (of the last two smaller is better, so they are no ``primary_metric`` for PML's ``HookContainer``), and
    ``label_mean_average_precision``: the mean over labels of the average precision of the queries that carry the
    label, where the references that carry it are relevant. The same over the rarest third of the labels, the middle
    and the most frequent third is ``label_mean_average_precision_tail``, ``_middle`` and ``_head``.

    Args:
        include: names of the metrics to compute; empty for all.
        exclude: names of metrics to leave out. ``"label_mean_average_precision_by_frequency"`` stands for the three of
            tail, middle and head, here and in ``include``.
        avg_of_avgs: average over labels the mean over the queries that carry the label.
        return_per_class: return those means as a list in class order, NaN for a label without queries.
        k: how many nearest references are ranked: None for all, an int, or ``"max_bin_count"`` for the largest number
            of references that are relevant to one query. Where k is given, ``anmrr``, which needs all, is computed
            only if it is included by name.
        device: where to compute; None is the device of the embeddings.
        knn_func: PML's ``FaissKNN``, ``CustomKNN`` or a function of their form, in place of the exact ranking.
        relevance_threshold: in [0, 1]; 0 takes any shared label.
        gain: what a reference is worth: ``"shared"``, the number of shared labels, or ``"jaccard"``.
        exponential_gain: use :math:`2^g - 1` for the gain g in ``ndcg``.
        ap_denominator: what average precision divides by: ``"relevant"`` (PML), ``"hits"`` or ``"min"``, see
            :func:`~pml_macl.evaluation.average_precision`.
        label_statistics: which labels are rare, for the metrics by frequency; None goes by the reference set.
        query_batch_size: queries in one chunk; None takes as many as the memory budget allows.
        memory_budget: bytes that the temporaries of one chunk may take, about; None is 64 MiB on a CPU, 1 GiB on a GPU.
            A single query may need more. The results do not depend on it.

    Raises:
        TypeError: ``include`` or ``exclude`` is not a tuple or list.
        ValueError: an unknown metric, or a setting outside what is said here.

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
            include: as in the constructor, of the metrics chosen there, for this call.
            exclude: likewise.

        Returns:
            A value a metric, NaN where no query has a relevant reference, or with ``return_per_class`` a list of them.

        Raises:
            TypeError: an argument is neither a tensor nor an array.
            ValueError: shapes that do not belong together, labels other than 0 and 1, embeddings that are not finite,
                an unknown metric, or references that do not begin with the queries though ``ref_includes_query``.
        """
        self.check_primary_metrics(include, exclude)
        if reference is None:
            if reference_labels is not None:
                raise ValueError("reference_labels were given without reference; give both or neither")
            reference, reference_labels, ref_includes_query = query, query_labels, True
        if reference_labels is None:
            raise ValueError("reference_labels are missing: reference and reference_labels are given together")
        query, reference = self._check_embeddings(query, reference)
        query_labels = check_labels(
            _as_tensor(query_labels, query.device, "query_labels"), len(query), name="query_labels"
        )
        reference_labels = check_labels(
            _as_tensor(reference_labels, query.device, "reference_labels"),
            len(reference),
            query_labels.shape[1],
            name="reference_labels",
        )
        num_classes = query_labels.shape[1]
        if self.label_statistics is not None and self.label_statistics.num_classes != num_classes:
            raise ValueError(
                f"label_statistics must be of the {num_classes} classes of the labels, "
                f"got {self.label_statistics.num_classes}"
            )
        if ref_includes_query:
            _check_reference_begins_with_query(query, query_labels, reference, reference_labels)

        previous = self.curr_function_dict
        self.curr_function_dict = self.get_function_dict(include, exclude)
        try:
            return self._rank_and_measure(query, query_labels, reference, reference_labels, ref_includes_query)
        except Exception:  # whatever it was, a failed call leaves the calculator as it was
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
        self, query: Tensor, query_labels: Tensor, reference: Tensor, reference_labels: Tensor, ref_includes_query: bool
    ) -> dict[str, float | list[float]]:
        num_queries, num_classes = query_labels.shape
        own = int(ref_includes_query)
        num_others = len(reference) - own
        references = ReferenceLabels(reference_labels, label_dtype(query), self.relevance_threshold)
        budget = self.memory_budget or (_GPU_BUDGET if query.is_cuda else _CPU_BUDGET)

        # Queries of one label set stand side by side, so that a chunk compares each set once.
        sets, set_of_query, _ = distinct_label_sets(query_labels)
        sets_at_once = max(1, budget // (_BYTES_PER_REFERENCE * len(reference)))
        counts = torch.cat([references.count_relevant(part) for part in torch.split(sets, sets_at_once)])
        num_relevant = counts[set_of_query] - own * query_labels.any(dim=1).long()
        max_relevant = num_relevant.max()
        k = self.determine_k(num_relevant + own, len(reference), ref_includes_query)
        k = min(max(k, 1), num_others)
        if "anmrr" in self.get_curr_metrics():
            _check_depth(k, min(2 * int(max_relevant), num_others))
        frequency = references.label_counts if self.label_statistics is None else self.label_statistics.counts
        has_value = query_labels.any(dim=0) & (references.label_counts > own)
        thirds = frequency_thirds(frequency.to(query.device), has_value)

        by_label = self.avg_of_avgs or self.return_per_class
        metrics = {
            name: MetricAccumulator(num_queries, num_classes, by_label, query.device)
            for name in self.get_curr_metrics()
        }
        if num_others:
            rank = self._ranker(query, reference, k, ref_includes_query)
            bytes_per_query = (
                _BYTES_PER_REFERENCE * len(reference) + _BYTES_PER_RANK * k + _BYTES_PER_CLASS * num_classes
            )
            on_cpu = query.device.type == "cpu"
            budget //= torch.get_num_threads() if on_cpu else 1  # a chunk for each thread at a time
            rows_at_once = self.query_batch_size or max(1, budget // bytes_per_query)

            def measure(rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
                ranking = RankedQueries(
                    rank(rows),
                    query_labels[rows],
                    references,
                    num_relevant[rows],
                    max_relevant,
                    thirds,
                    own_index=rows if ref_includes_query else None,
                    gain=self.gain,
                    ap_denominator=self.ap_denominator,
                    max_elements=budget // _BYTES_PER_RANK,
                )
                return rows, {name: self._values(name, ranking) for name in metrics}

            chunks = torch.split(set_of_query.argsort(stable=True), rows_at_once)
            for rows, values in map_in_threads(measure, chunks) if on_cpu else map(measure, chunks):
                for name, metric in metrics.items():
                    metric.add(rows, values[name], query_labels[rows])
        if self.return_per_class:
            return {name: metric.label_means().tolist() for name, metric in metrics.items()}
        return {name: metric.mean() for name, metric in metrics.items()}

    def _values(self, name: str, ranking: RankedQueries) -> Tensor:
        """A metric's values; where it has one a query, those without a relevant reference are left out."""
        values: Tensor = self.curr_function_dict[name](ranking)
        return values.masked_fill(ranking.num_relevant == 0, torch.nan) if values.ndim == 1 else values

    def _ranker(self, query: Tensor, reference: Tensor, k: int, ref_includes_query: bool) -> Callable[[Tensor], Tensor]:
        """A function that ranks the references for some of the queries, given by index."""
        if self.knn_func is None:
            ranker = Ranker(reference)
            return lambda rows: ranker(query[rows], k, rows if ref_includes_query else None)
        # An index is built in each call, so it is asked once for all queries.
        order = self.knn_func(query, k, reference, ref_includes_query)[1]
        if order.shape != (len(query), k):
            raise ValueError(
                f"knn_func must return the {k} nearest references of each query, shape {(len(query), k)}, got indices "
                f"of shape {tuple(order.shape)}; ask for fewer with k"
            )
        order = torch.where(order < 0, len(reference), order)
        return lambda rows: order[rows]

    def _check_embeddings(self, query: Array, reference: Array) -> tuple[Tensor, Tensor]:
        """Both as finite float32 or float64 tensors on one device."""
        is_query = reference is query
        query = _as_embeddings(query, "query", self.device)
        reference = query if is_query else _as_embeddings(reference, "reference", query.device)
        if query.shape[1] != reference.shape[1]:
            raise ValueError(
                f"query and reference must have embeddings of one size, got {query.shape[1]} and {reference.shape[1]}"
            )
        dtype = torch.promote_types(query.dtype, reference.dtype)
        return query.to(dtype), reference.to(dtype)


def _expand(metrics: Sequence[str]) -> tuple[str, ...]:
    """The three metrics by frequency in place of the name that they have together."""
    return tuple(
        name for metric in metrics for name in (_BY_FREQUENCY_METRICS if metric == BY_FREQUENCY else (metric,))
    )


def _check_depth(k: int, needed: int) -> None:
    if k < needed:
        raise ValueError(
            f"anmrr needs the full ranking, here at least the first {needed} references, but only the first {k} are "
            "ranked; set k=None or exclude=('anmrr',)"
        )


def _as_device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be one of torch's, as 'cpu' or 'cuda:0', got {device!r}") from error


def _as_tensor(array: Array, device: torch.device | None, name: str) -> Tensor:
    """An array as a tensor, on the device; what is neither stays, for the checks to name."""
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, got an array of {array.dtype}; convert it with astype")
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor.to(device) if isinstance(tensor, Tensor) else tensor


def _as_embeddings(embeddings: Array, name: str, device: torch.device | None) -> Tensor:
    tensor = _as_tensor(embeddings, device, name)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or numpy array, got {type(tensor).__name__}")
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ValueError(f"{name} must hold embeddings, shape (rows, size), got {tuple(tensor.shape)}")
    if tensor.is_complex():
        raise ValueError(f"{name} must be real, got {tensor.dtype}")
    if tensor.dtype is not torch.float64:
        tensor = tensor.float()
    not_finite = (~tensor.isfinite()).any(dim=1)
    if not_finite.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {int(not_finite.sum())} of {len(tensor)} rows; "
            "was the training diverging?"
        )
    return tensor


def _check_reference_begins_with_query(
    query: Tensor, query_labels: Tensor, reference: Tensor, reference_labels: Tensor
) -> None:
    head, head_labels = reference[: len(query)], reference_labels[: len(query)]
    if query is reference and torch.equal(query_labels, reference_labels):
        return
    if not (query.shape == head.shape and torch.allclose(query, head) and torch.equal(query_labels, head_labels)):
        raise ValueError(
            f"with ref_includes_query the first {len(query)} references and their labels must be the queries and "
            "theirs, but they differ; put the queries first, or set ref_includes_query=False"
        )


def _not_used(*_: object) -> NoReturn:
    raise RuntimeError("PML's own ranking or clustering was called, which get_accuracy replaces")
