"""Normalised discounted cumulative gain."""

import torch
from torch import Tensor

from pml_macl.checks import check_same_shape


def ndcg(gains: Tensor, ideal_gains: Tensor, exponential: bool = False) -> Tensor:
    r"""Compute the normalised discounted cumulative gain of each query (Järvelin and Kekäläinen, 2002).

    .. math:: \sum_{j \le k} \frac{g_j}{\log_2(1+j)} \;\Big/\; \sum_{j \le k} \frac{g^*_j}{\log_2(1+j)}

    Args:
        gains: (queries, k) gain at each rank, at least 0.
        ideal_gains: (queries, k) largest gains in the whole reference set, descending.
        exponential: use :math:`2^g - 1` instead of each gain g, which gives large gains more weight.

    Returns:
        (queries,) float64 in [0, 1]; NaN if all ideal gains are 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> ndcg(torch.tensor([[0, 1, 2]]), torch.tensor([[2, 1, 0]]))
        tensor([0.6199], dtype=torch.float64)
    """
    check_same_shape("gains", gains, "ideal_gains", ideal_gains)
    gains, ideal_gains = gains.double(), ideal_gains.double()
    if exponential:
        gains, ideal_gains = gains.exp2() - 1, ideal_gains.exp2() - 1
    ranks = torch.arange(1, 1 + gains.shape[1], dtype=torch.float64, device=gains.device)
    discounts = 1 / torch.log2(1 + ranks)
    return (gains @ discounts) / (ideal_gains @ discounts)
