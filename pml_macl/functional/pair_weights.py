"""Pairwise label reweighting (PLR): the weights of positive pairs and of anchors."""

import torch
from torch import Tensor


def pairwise_label_weights(
    rarity: Tensor | float, jaccard: Tensor | float, power: float = 1.0, overlap_power: float = 0.0
) -> Tensor | float:
    r"""Compute the weight of each pair from the rarity of its shared labels, before normalisation per anchor.

    .. math::
        w_{ij} = J_{ij}^{\text{overlap_power}} \Bigl(\sum_{l \le m \in S_{ij}} n_{max} / n_{lm}\Bigr)^{\text{power}}

    :math:`S_{ij}` are the labels that the pair shares, and :math:`n_{lm}` the number of images with both labels l and
    m. The paper (arXiv 2512.16294) states that rare co-occurrences weigh more.

    Args:
        rarity: (N, M) the sum above, or the sum of :math:`n_{max} / n_l` over single labels; unused if ``power`` is 0.
            :func:`sum_over_shared_labels` computes either sum.
        jaccard: (N, M) Jaccard similarity; unused if ``overlap_power`` is 0.
        power: power of the rarity, >= 0; 0 ignores the frequencies.
        overlap_power: power of the Jaccard similarity, >= 0; 0 ignores it.

    Returns:
        (N, M) weights, >= 0; the number 1 if both powers are 0.

    Example:
        >>> pairwise_label_weights(torch.tensor([[4.0]]), torch.tensor([[0.5]]), power=0.5, overlap_power=1.0)
        tensor([[1.]])
    """
    weights = 1.0 if power == 0 else rarity if power == 1 else rarity**power
    if overlap_power == 0:
        return weights
    return weights * (jaccard if overlap_power == 1 else jaccard**overlap_power)


def anchor_weights(labels: Tensor, inverse_frequency: Tensor, anchor_power: float, dtype: torch.dtype) -> Tensor:
    r"""Compute the weight of each anchor from the frequencies of its labels.

    .. math:: a_i = \Bigl(\frac{1}{|Y_i|} \sum_{l \in Y_i} n_{max} / n_l\Bigr)^{\text{anchor_power}}

    Args:
        labels: (N, C) boolean label sets.
        inverse_frequency: (C,) :math:`n_{max} / n_l`.
        anchor_power: power of the mean, >= 0; 0 gives all anchors the weight 1.
        dtype: floating-point type of the result.

    Returns:
        (N,) weights, >= 0.

    Example:
        >>> anchor_weights(torch.tensor([[True, True], [True, False]]), torch.tensor([1.0, 3.0]), 1.0, torch.float32)
        tensor([2., 1.])
    """
    return mean_over_labels(labels, inverse_frequency.to(labels.device, dtype)) ** anchor_power


def mean_over_labels(labels: Tensor, values: Tensor) -> Tensor:
    """Compute the mean value of the labels of each row; 0 for an empty label set.

    Args:
        labels: (N, C) boolean label sets.
        values: (C,) value of each label.

    Returns:
        (N,) means in the dtype of ``values``.
    """
    return (labels * values).sum(dim=1) / labels.sum(dim=1, dtype=values.dtype).clamp(min=1)
