"""The MultiSupCon loss."""

from typing import Any

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss
from pml_macl.reducers import FrequencyWeightedReducer


class MultiSupConLoss(SingleTemperatureLoss):
    r"""SupCon whose positives reach a Jaccard similarity and are weighted by it.

    Dao et al., Contrastive Learning for Multi-Label Classification, arXiv 2107.11626:

    .. math::
        L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
            J_{ip} \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)},
        \quad P(i) = \{p \ne i : J_{ip} \ge c\}

    :math:`I` are the anchors that have a positive. PML 3's ``MultiSupConLoss`` uses the same definition, including the
    inclusive threshold, with two differences:

    - Two images without labels have the similarity 0 here and 1 in PML 3. They are never positives here.
    - With ``threshold=0``, only images that share a label are positives here. PML 3 then counts all images in
      :math:`|P(i)|`, with weight 0 for those that share none.

    Args:
        temperature: :math:`\tau` > 0.
        threshold: smallest Jaccard similarity :math:`c` of a positive pair, in [0, 1].
        **kwargs: the arguments of :class:`MultiLabelContrastiveLoss`, except ``positive_threshold``.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> MultiSupConLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]]))
        tensor(0.1742)
    """

    def __init__(self, temperature: float = 0.1, threshold: float = 0.5, **kwargs: Any) -> None:
        if "positive_threshold" in kwargs:
            raise TypeError("MultiSupConLoss takes no positive_threshold; use threshold instead")
        super().__init__(temperature, **{"positive_threshold": threshold, "negative_threshold": 1, **kwargs})

    def get_default_reducer(self) -> FrequencyWeightedReducer:
        return FrequencyWeightedReducer(power=0, overlap_power=1, divide_by_count=True)
