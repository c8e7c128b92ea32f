"""Pairwise label reweighting (PLR): what a positive pair and an anchor weigh."""

import torch
from torch import Tensor

from pml_macl.functional.shared_sums import SharedSums


def pairwise_label_weights(
    labels: Tensor,
    ref_labels: Tensor,
    jaccard: Tensor,
    inverse_counts: Tensor,
    power: float = 1.0,
    overlap_power: float = 0.0,
) -> Tensor:
    r"""Weight of each pair by the rarity of the labels that it shares, before division per anchor.

    .. math::
        w_{ij} = J_{ij}^{\text{overlap_power}} \Bigl(\sum_{l \le m \in S_{ij}} n_{max} / n_{lm}\Bigr)^{\text{power}}

    The formula is this package's; the paper (arXiv 2512.16294) says that rare co-occurrences weigh more.

    Args:
        labels: (N, C) boolean label sets of the anchors.
        ref_labels: (M, C) boolean label sets of the references.
        jaccard: (N, M) Jaccard similarity; its type is that of the result.
        inverse_counts: :math:`n_{max} / n_{lm}`, (C, C), or (C,) :math:`n_{max} / n_l` to
            sum over single labels only.
        power: 0 switches the frequencies off.
        overlap_power: power of the Jaccard similarity.

    Returns:
        (N, M) weights, >= 0.

    Example:
        >>> labels, jaccard = torch.tensor([[True, True]]), torch.ones(1, 1)
        >>> pairwise_label_weights(labels, labels, jaccard, torch.tensor([1.0, 3.0]))
        tensor([[4.]])
        >>> pairwise_label_weights(labels, labels, jaccard, torch.tensor([[1.0, 6.0], [6.0, 3.0]]))
        tensor([[10.]])
    """
    weights = torch.ones_like(jaccard)
    if power != 0:
        weights = SharedSums(labels, ref_labels, inverse_counts.to(jaccard))[:] ** power
    if overlap_power != 0:
        weights = weights * jaccard**overlap_power
    return weights


def anchor_weights(labels: Tensor, inverse_frequency: Tensor, anchor_power: float, dtype: torch.dtype) -> Tensor:
    r"""Weight of each anchor by the frequency of its labels.

    .. math:: a_i = \Bigl(\frac{1}{|Y_i|} \sum_{l \in Y_i} n_{max} / n_l\Bigr)^{\text{anchor_power}}

    Args:
        labels: (N, C) boolean label sets.
        inverse_frequency: (C,) :math:`n_{max} / n_l`.
        anchor_power: 0 weighs all anchors alike.
        dtype: floating-point type of the result.

    Returns:
        (N,) weights, >= 0.

    Example:
        >>> anchor_weights(torch.tensor([[True, True], [True, False]]), torch.tensor([1.0, 3.0]), 1.0, torch.float32)
        tensor([2., 1.])
    """
    if anchor_power == 0:
        return torch.ones(len(labels), dtype=dtype, device=labels.device)
    return mean_over_labels(labels, inverse_frequency.to(labels.device, dtype)) ** anchor_power


def mean_over_labels(labels: Tensor, values: Tensor) -> Tensor:
    """Mean of the values of each row's labels; 0 for an empty label set.

    Args:
        labels: (N, C) boolean label sets.
        values: (C,) value of each label.

    Returns:
        (N,) means in the type of ``values``.
    """
    return (labels * values).sum(dim=1) / labels.sum(dim=1, dtype=values.dtype).clamp(min=1)
