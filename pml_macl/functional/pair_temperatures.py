"""Dynamic temperature scaling (DTS): the temperature of each pair."""

from torch import Tensor


def pairwise_temperatures(
    jaccard: Tensor,
    anchor_rarity: Tensor,
    temperature: Tensor | float,
    overlap_scale: float,
    rarity_scale: float,
    min_temperature: float,
) -> Tensor:
    r"""Compute the temperature of each pair from its Jaccard similarity and the rarity of the anchor's labels.

    .. math::
        \tau_{ij} = \max\bigl(\tau (1 + \text{overlap_scale} J_{ij}) (1 - \text{rarity_scale} r_i), \tau_{min}\bigr)

    The paper (arXiv 2512.16294) names the two dependencies.

    Args:
        jaccard: (N, M) Jaccard similarity :math:`J_{ij}`.
        anchor_rarity: (N,) mean rarity :math:`r_i` of the anchor's labels, in [0, 1].
        temperature: base temperature :math:`\tau`, a number or a () tensor.
        overlap_scale: relative increase of the temperature from J = 0 to J = 1.
        rarity_scale: relative decrease of the temperature from r = 0 (most frequent labels) to r = 1 (rarest labels).
        min_temperature: smallest temperature of a pair, :math:`\tau_{min}`.

    Returns:
        (N, M) temperatures in the dtype of ``jaccard``.

    Example:
        >>> import torch
        >>> pairwise_temperatures(torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([1.0]), 0.1, 1.0, 0.3, 0.01)
        tensor([[0.0700, 0.1050, 0.1400]])
    """
    base = (temperature * (1 - rarity_scale * anchor_rarity)).to(jaccard.dtype)[:, None]
    return (jaccard * (base * overlap_scale)).add_(base).clamp_(min=min_temperature)
