"""SupCon with equal label sets."""

from typing import Any

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss


class SupConExactLoss(SingleTemperatureLoss):
    r"""SupCon in which only images with the same label set are positives; all others are negatives.

    Khosla et al., Supervised Contrastive Learning, arXiv 2004.11362, with each distinct label set as a class:

    .. math::
        L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
            \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)}, \quad P(i) = \{p \ne i : Y_p = Y_i\}

    over the anchors :math:`I` with a positive. Images without labels are nobody's positives.

    Args:
        temperature: :math:`\tau` > 0.
        **kwargs: as for :class:`MultiLabelContrastiveLoss`.

    Raises:
        TypeError, ValueError: as :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> SupConExactLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0]]))
        tensor(0.3485)
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        if "positive_threshold" in kwargs:
            raise TypeError("SupConExactLoss takes no positive_threshold: its positives have equal label sets")
        super().__init__(temperature, **{"positive_threshold": 1, "negative_threshold": 1, **kwargs})
