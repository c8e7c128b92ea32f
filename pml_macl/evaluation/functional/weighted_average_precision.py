"""Weighted average precision."""

import torch
from torch import Tensor

from pml_macl.checks import check_same_shape


def weighted_average_precision(gains: Tensor, relevance: Tensor) -> Tensor:
    r"""Compute the mean ACG at the ranks of the relevant references (Zhao et al., 1501.06272).

    .. math:: \sum_{j \le k} rel_j \cdot ACG@j \;\Big/\; \sum_{j \le k} rel_j

    ACG@j is the average cumulative gain of the first j ranks. The metric is average precision with graded gains. If the
    gains equal the relevance, it is average precision with ``denominator="hits"``.

    Args:
        gains: (queries, k) gain at each rank, at least 0.
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.

    Returns:
        (queries,) float64; 0 if no reference is relevant.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> weighted_average_precision(torch.tensor([[2, 0, 1]]), torch.tensor([[1, 0, 1]]))
        tensor([1.5000], dtype=torch.float64)
    """
    check_same_shape("gains", gains, "relevance", relevance)
    ranks = torch.arange(1, 1 + gains.shape[1], dtype=torch.float64, device=gains.device)
    return _sum_over_ordered_pairs(gains.double(), relevance / ranks) / relevance.sum(dim=1).clamp(min=1)


def _sum_over_ordered_pairs(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the (N,) sums :math:`\sum_{i \le j} first_i \cdot second_j` of two (N, k) float tensors."""
    # A cumulative sum of floats is not deterministic on a GPU. Here, each step adds the products of every column with
    # an even index and its right neighbour, then merges the two columns: about 2 k operations in all.
    total = (first * second).sum(dim=1)
    while first.shape[1] > 1:
        left, right = second[:, ::2], second[:, 1::2]
        width = right.shape[1]
        total += (first[:, : 2 * width : 2] * right).sum(dim=1)
        merged_first, merged_second = first[:, ::2].clone(), left.clone()
        merged_first[:, :width] += first[:, 1::2]
        merged_second[:, :width] += right
        first, second = merged_first, merged_second
    return total
