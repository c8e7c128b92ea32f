"""Average cumulative gain."""

from torch import Tensor

from pml_macl.checks import check_ranks


def acg(gains: Tensor) -> Tensor:
    r"""Compute the average cumulative gain of each query: its mean gain (Järvelin and Kekäläinen, 2000).

    .. math:: \frac{1}{k} \sum_{j \le k} g_j

    Args:
        gains: (queries, k) gain at each rank, at least 0; k >= 1.

    Returns:
        (queries,) float64.

    Raises:
        ValueError: ``gains`` is not 2-dimensional.

    Example:
        >>> import torch
        >>> acg(torch.tensor([[2, 0, 1]]))
        tensor([1.], dtype=torch.float64)
    """
    check_ranks("gains", gains)
    return gains.double().mean(dim=1)
