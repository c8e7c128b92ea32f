"""Weighted average precision."""

import torch
from torch import Tensor

from pml_macl.checks import check_same_shape


def weighted_average_precision(gains: Tensor, relevance: Tensor) -> Tensor:
    r"""Mean, over the ranks of the relevant references, of the average cumulative gain (Zhao et al., 1501.06272).

    .. math:: \sum_{j \le k} rel_j \cdot ACG@j \;\Big/\; \sum_{j \le k} rel_j

    It is average precision with graded gains: where the gain is the relevance, it divides by the relevant references
    among the k.

    Args:
        gains: (queries, k) gain at each rank, >= 0.
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.

    Returns:
        (queries,) float64; 0 where none of the ranks is relevant.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> weighted_average_precision(torch.tensor([[2, 0, 1]]), torch.tensor([[1, 0, 1]]))
        tensor([1.5000], dtype=torch.float64)
    """
    check_same_shape("gains", gains, "relevance", relevance)
    ranks = torch.arange(1, 1 + gains.shape[1], dtype=torch.float64, device=gains.device)
    gain_sum = gains.cumsum(dim=1, dtype=torch.float64).mul_(relevance) @ (1 / ranks)
    return gain_sum / relevance.sum(dim=1).clamp(min=1)
