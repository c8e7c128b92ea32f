"""The metrics that the calculator computes at several K in one ranking."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from pml_macl.checks import check_integer
from pml_macl.evaluation.functional.coverage_at_k import coverage_at_k
from pml_macl.evaluation.functional.precision_at_k import precision_at_k
from pml_macl.evaluation.functional.recall_at_k import recall_at_k
from pml_macl.evaluation.ranked_queries import RankedQueries


def _precision(ranking: RankedQueries, k: int) -> Tensor:
    return precision_at_k(ranking.relevance_at(k), k)


def _recall(ranking: RankedQueries, k: int) -> Tensor:
    return recall_at_k(ranking.relevance_at(k), k)


def _coverage(ranking: RankedQueries, k: int) -> Tensor:
    return coverage_at_k(ranking.relevance_at(k), ranking.num_relevant, k)


_METRICS = {"precision_at_k": _precision, "recall_at_k": _recall, "coverage_at_k": _coverage}


def names_at_k(at_k: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """Return the names of each metric at each K: ``{"recall_at_k": ("recall_at_1", "recall_at_5"), ...}``."""
    return {metric: tuple(_name(metric, k) for k in at_k) for metric in _METRICS}


def functions_at_k(at_k: Sequence[int]) -> dict[str, Callable[[RankedQueries], Tensor]]:
    """Return the function of each metric at each K, under its name."""
    return {_name(metric, k): partial(function, k=k) for metric, function in _METRICS.items() for k in at_k}


def lacks_k(metric: str, at_k: Sequence[int]) -> bool:
    """Return whether the name is that of a metric at K, such as ``"recall_at_5"``, which needs another ``at_k``."""
    prefix, _, k = metric.rpartition("_")
    if f"{prefix}_k" not in _METRICS or metric == "precision_at_1":  # PML's precision_at_1 needs no at_k
        return False
    return not at_k if k == "k" else k.isdecimal() and int(k) not in at_k


def check_at_k(at_k: Sequence[int] | None, k: int | str | None) -> tuple[int, ...]:
    """Return the values of K, none for None. Raise unless they are positive integers, at most ``k`` if that is one."""
    if at_k is None:
        return ()
    if not isinstance(at_k, (tuple, list)):
        raise TypeError(f"at_k must be a tuple or list of positive integers such as (1, 5, 10), got {at_k!r}")
    if not at_k:
        raise ValueError(f"at_k must have at least one positive integer, got {at_k!r}; use None for no metrics at K")
    for number in at_k:
        check_integer("each number in at_k", number)
    if isinstance(k, int) and max(at_k) > k:
        raise ValueError(f"at_k must not exceed k ({k}), the number of ranked references, got {max(at_k)}; raise k")
    return tuple(sorted({int(number) for number in at_k}))


def _name(metric: str, k: int) -> str:
    return f"{metric.removesuffix('k')}{k}"
