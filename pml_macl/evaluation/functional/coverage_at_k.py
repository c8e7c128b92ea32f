"""Coverage at k."""

from torch import Tensor

from pml_macl.checks import check_per_query
from pml_macl.evaluation.functional.first_ranks import first_ranks


def coverage_at_k(relevance: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    r"""Compute the share of the relevant references that are among the first k.

    .. math:: \frac{1}{R} \sum_{j \le k} rel_j

    Information retrieval calls this recall. If R is larger than k, the largest possible value is k / R.

    Args:
        relevance: (queries, ranks) 1 or True where the reference at that rank is relevant.
        num_relevant: (queries,) R, the number of relevant references in the whole reference set.
        k: number of ranks that count, from 1 to the number of ranks.

    Returns:
        (queries,) float64 in [0, 1]; NaN without a relevant reference.

    Raises:
        ValueError: the shapes do not fit each other, or ``k`` is out of range.

    Example:
        >>> import torch
        >>> coverage_at_k(torch.tensor([[1, 0, 1, 1]]), torch.tensor([4]), k=3)
        tensor([0.5000], dtype=torch.float64)
    """
    found = first_ranks(relevance, k).sum(dim=1).double()
    check_per_query("num_relevant", num_relevant, len(relevance))
    return found / num_relevant
