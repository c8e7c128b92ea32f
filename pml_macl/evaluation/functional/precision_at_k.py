"""Precision at k."""

from torch import Tensor

from pml_macl.checks import check_ranks


def precision_at_k(relevance: Tensor, k: int) -> Tensor:
    r"""Share of relevant references among the first k.

    .. math:: \frac{1}{k} \sum_{j \le k} rel_j

    Args:
        relevance: (queries, ranks) 1 or True where the reference at that rank is relevant.
        k: how many ranks count, 1 to ranks.

    Returns:
        (queries,) float64 in [0, 1].

    Raises:
        ValueError: ``relevance`` is not 2-dimensional, or ``k`` is less than 1 or more than the ranks given.

    Example:
        >>> import torch
        >>> precision_at_k(torch.tensor([[1, 0, 1, 1]]), k=3)
        tensor([0.6667], dtype=torch.float64)
    """
    check_ranks("relevance", relevance)
    if not 1 <= k <= relevance.shape[1]:
        raise ValueError(f"k must be 1 to {relevance.shape[1]}, the ranks given, got {k}")
    return relevance[:, :k].sum(dim=1).double() / k
