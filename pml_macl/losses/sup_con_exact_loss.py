"""SupCon whose positives have equal label sets."""

from typing import Any

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss


class SupConExactLoss(SingleTemperatureLoss):
    r"""SupCon whose positives have the label set of the anchor; all other images are negatives.

    Khosla et al., Supervised Contrastive Learning, arXiv 2004.11362, with one class per distinct label set:

    .. math::
        L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
            \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)}, \quad P(i) = \{p \ne i : Y_p = Y_i\}

    :math:`I` are the anchors that have a positive. Images without labels are never positives.

    Args:
        temperature: :math:`\tau` > 0.
        **kwargs: the arguments of :class:`MultiLabelContrastiveLoss`, except ``positive_threshold``.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> SupConExactLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 0]]))
        tensor(0.3485)
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        if "positive_threshold" in kwargs:
            raise TypeError(
                "SupConExactLoss takes no positive_threshold, because its positives have equal label sets; use "
                "MultiSupConLoss(threshold=...) for a lower threshold"
            )
        super().__init__(temperature, **{"positive_threshold": 1, "negative_threshold": 1, **kwargs})
