"""Reciprocal rank."""

import torch
from torch import Tensor

from pml_macl.checks import check_ranks


def reciprocal_rank(relevance: Tensor) -> Tensor:
    """Compute 1 / rank of the first relevant reference.

    Args:
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.

    Returns:
        (queries,) float64 in [0, 1]; 0 if no reference is relevant, as in PML.

    Raises:
        ValueError: ``relevance`` is not 2-dimensional.

    Example:
        >>> reciprocal_rank(torch.tensor([[0, 1, 1], [0, 0, 0]]))
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    check_ranks("relevance", relevance)
    inverse_ranks = 1 / torch.arange(1, 1 + relevance.shape[1], device=relevance.device).double()
    return (relevance * inverse_ranks).amax(dim=1)
