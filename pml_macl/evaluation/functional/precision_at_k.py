"""Precision at k."""

from torch import Tensor

from pml_macl.evaluation.functional.first_ranks import first_ranks


def precision_at_k(relevance: Tensor, k: int) -> Tensor:
    r"""Compute the share of relevant references among the first k.

    .. math:: \frac{1}{k} \sum_{j \le k} rel_j

    Args:
        relevance: (queries, ranks) 1 or True where the reference at that rank is relevant.
        k: number of ranks that count, from 1 to the number of ranks.

    Returns:
        (queries,) float64 in [0, 1].

    Raises:
        ValueError: ``relevance`` is not 2-dimensional, or ``k`` is out of range.

    Example:
        >>> import torch
        >>> precision_at_k(torch.tensor([[1, 0, 1, 1]]), k=3)
        tensor([0.6667], dtype=torch.float64)
    """
    return first_ranks(relevance, k).sum(dim=1).double() / k
