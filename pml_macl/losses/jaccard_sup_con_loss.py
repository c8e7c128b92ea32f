"""SupCon with weights from the Jaccard similarity."""

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss
from pml_macl.reducers import FrequencyWeightedReducer


class JaccardSupConLoss(SingleTemperatureLoss):
    r"""SupCon whose positives share a label with the anchor and are weighted by their Jaccard similarity.

    This is the base loss of Audibert et al., Exploring Contrastive Learning for Long-Tailed Multi-Label Text
    Classification, arXiv 2404.08720:

    .. math::
        L = \frac{-1}{|I|} \sum_{i \in I} \sum_{p \ne i} \frac{J_{ip}}{\sum_{q \ne i} J_{iq}}
            \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)}

    :math:`I` are the anchors that have a positive.

    Args:
        temperature: :math:`\tau` > 0.
        **kwargs: the arguments of :class:`MultiLabelContrastiveLoss`.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> JaccardSupConLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]]))
        tensor(0.9334)
    """

    def get_default_reducer(self) -> FrequencyWeightedReducer:
        return FrequencyWeightedReducer(power=0, overlap_power=1)
