"""The contrastive loss with one temperature for all pairs, which the baselines are settings of."""

from typing import Any

from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss


class SingleTemperatureLoss(MultiLabelContrastiveLoss):
    """The contrastive loss on label sets with one temperature for all pairs.

    Args:
        temperature: > 0.
        **kwargs: as for :class:`MultiLabelContrastiveLoss`; a ``distance`` is the similarity under the temperature.

    Raises:
        TypeError, ValueError: as :class:`MultiLabelContrastiveLoss`.
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any) -> None:
        distance = kwargs.pop("distance", None)
        similarity = TemperatureScheduledSimilarity(temperature, overlap_scale=0, rarity_scale=0, distance=distance)
        super().__init__(distance=similarity, **kwargs)
