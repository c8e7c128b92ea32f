"""Average precision at R."""

import torch
from torch import Tensor

from pml_macl.checks import check_per_query, check_ranks
from pml_macl.evaluation.functional.average_precision import average_precision


def average_precision_at_r(relevance: Tensor, num_relevant: Tensor) -> Tensor:
    r"""Compute the average precision over the first R ranks (Musgrave et al., 2003.08505).

    R is the number of relevant references:

    .. math:: \frac{1}{R} \sum_{j \le \min(R, k)} rel_j \cdot P@j

    Args:
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.
        num_relevant: (queries,) R, the number of relevant references in the whole reference set.

    Returns:
        (queries,) float64 in [0, 1]; NaN without a relevant reference.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> average_precision_at_r(torch.tensor([[1, 0, 1]]), torch.tensor([2]))
        tensor([0.5000], dtype=torch.float64)
    """
    check_ranks("relevance", relevance)
    check_per_query("num_relevant", num_relevant, len(relevance))
    positions = torch.arange(relevance.shape[1], device=relevance.device)
    return average_precision(relevance * (positions < num_relevant[:, None]), num_relevant)
