"""Base class of the baselines, which use one temperature for all pairs."""

from typing import Any

from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss


class SingleTemperatureLoss(MultiLabelContrastiveLoss):
    """Contrastive loss on label sets with one temperature for all pairs.

    Args:
        temperature: temperature of all pairs, > 0.
        **kwargs: the arguments of :class:`MultiLabelContrastiveLoss`. The loss divides the similarities of ``distance``
            by the temperature.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MultiLabelContrastiveLoss`.
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        super().__init__(temperature=temperature, **kwargs)
