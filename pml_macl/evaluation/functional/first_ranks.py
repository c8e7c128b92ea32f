"""The part of a ranking that the metrics at k look at."""

from torch import Tensor

from pml_macl.checks import check_ranks


def first_ranks(relevance: Tensor, k: int) -> Tensor:
    """Return the first k columns of (queries, ranks) relevance, or raise ValueError if there are fewer."""
    check_ranks("relevance", relevance)
    if not 1 <= k <= relevance.shape[1]:
        raise ValueError(f"k must be 1 to {relevance.shape[1]}, the number of ranks in relevance, got {k}")
    return relevance[:, :k]
