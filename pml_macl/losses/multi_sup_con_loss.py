"""MultiSupCon."""

from typing import Any

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss
from pml_macl.reducers import FrequencyWeightedReducer


class MultiSupConLoss(SingleTemperatureLoss):
    r"""SupCon in which images of enough Jaccard similarity are positives, weighted by it.

    Dao et al., Contrastive Learning for Multi-Label Classification, arXiv 2107.11626:

    .. math::
        L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
            J_{ip} \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)},
        \quad P(i) = \{p \ne i : J_{ip} \ge c\}

    over the anchors :math:`I` with a positive. This is the definition of PML 3's ``MultiSupConLoss`` (the threshold is
    inclusive), with two differences. Images without labels are nobody's positives here, as everywhere in this package,
    while PML 3 gives two empty sets the similarity 1. With ``threshold=0`` only images that share a label are positives
    here, while PML 3 then counts all others in :math:`|P(i)|`, with weight 0.

    Args:
        temperature: :math:`\tau` > 0.
        threshold: :math:`c` in [0, 1].
        **kwargs: as for :class:`MultiLabelContrastiveLoss`.

    Raises:
        TypeError, ValueError: as :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> MultiSupConLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]]))
        tensor(0.1742)
    """

    def __init__(self, temperature: float = 0.1, threshold: float = 0.5, **kwargs: Any) -> None:
        if "positive_threshold" in kwargs:
            raise TypeError("MultiSupConLoss takes no positive_threshold; the name of this setting is threshold")
        super().__init__(temperature, **{"positive_threshold": threshold, "negative_threshold": 1, **kwargs})

    def get_default_reducer(self) -> FrequencyWeightedReducer:
        return FrequencyWeightedReducer(power=0, overlap_power=1, divide_by_count=True)
