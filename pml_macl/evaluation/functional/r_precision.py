"""R-precision."""

import torch
from torch import Tensor

from pml_macl.checks import check_per_query, check_ranks


def r_precision(relevance: Tensor, num_relevant: Tensor) -> Tensor:
    r"""Compute the precision among the first R ranks, where R is the number of relevant references.

    .. math:: \frac{1}{\min(R, k)} \sum_{j \le \min(R, k)} rel_j

    If there are fewer than R ranks, all of them count, as in PML.

    Args:
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.
        num_relevant: (queries,) R, the number of relevant references in the whole reference set.

    Returns:
        (queries,) float64 in [0, 1]; NaN without a relevant reference.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> r_precision(torch.tensor([[1, 0, 1, 1]]), torch.tensor([3]))
        tensor([0.6667], dtype=torch.float64)
    """
    check_ranks("relevance", relevance)
    check_per_query("num_relevant", num_relevant, len(relevance))
    ranks = num_relevant.long().clamp(max=relevance.shape[1])
    if relevance.shape[1] == 0:
        return torch.zeros(len(relevance), dtype=torch.float64, device=relevance.device) / ranks
    hits = relevance.bool().cumsum(dim=1, dtype=torch.int32).gather(1, (ranks - 1).clamp(min=0)[:, None])[:, 0]
    return hits * (ranks > 0) / ranks.double()
