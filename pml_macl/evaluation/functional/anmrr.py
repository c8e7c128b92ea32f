"""Average normalised modified retrieval rank."""

import torch
from torch import Tensor

from pml_macl.checks import check_per_query, check_ranks


def anmrr(relevance: Tensor, num_relevant: Tensor, max_relevant: Tensor | int) -> Tensor:
    r"""Compute the normalised modified retrieval rank of each query. Smaller is better.

    The mean over queries is the ANMRR of MPEG-7. Each relevant reference beyond rank K gets the rank 1.25 K:

    .. math::
        \frac{\frac{1}{R} \sum_i rank_i - \frac{1 + R}{2}}{1.25 K - \frac{1 + R}{2}}, \qquad
        K = \min(4 R, 2 R_{max})

    Args:
        relevance: (queries, k) 1 or True where the reference at that rank is relevant; k is at least K, or the size
            of the reference set.
        num_relevant: (queries,) R, the number of relevant references in the whole reference set.
        max_relevant: :math:`R_{max}`, the largest R of all queries, also of those that are not in ``relevance``.

    Returns:
        (queries,) float64 in [0, 1], 0 if all relevant references come first; NaN without a relevant reference.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> anmrr(torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]]), torch.tensor([2, 1]), max_relevant=2)
        tensor([0.0000, 0.2500], dtype=torch.float64)
    """
    check_ranks("relevance", relevance)
    check_per_query("num_relevant", num_relevant, len(relevance))
    ranks = torch.arange(1, 1 + relevance.shape[1], dtype=torch.float64, device=relevance.device)
    deepest = torch.minimum(4 * num_relevant, 2 * torch.as_tensor(max_relevant, device=relevance.device))
    found = (relevance * (ranks <= deepest[:, None])).double()
    missed = num_relevant - found.sum(dim=1)
    mean_rank = (found @ ranks + missed * 1.25 * deepest) / num_relevant
    best = (1 + num_relevant) / 2
    return (mean_rank - best) / (1.25 * deepest - best)
