"""The Similarity-Dissimilarity loss."""

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss
from pml_macl.reducers import SimilarityDissimilarityReducer


class SimilarityDissimilarityLoss(SingleTemperatureLoss):
    r"""SupCon whose weights grow with the shared labels and fall with the labels that only one image has.

    Huang et al., Similarity-Dissimilarity Loss for Multi-label Supervised Contrastive Learning, arXiv 2410.13439:

    .. math::
        L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
            \frac{|S_{ip}|}{|Y_p|} \frac{1}{1 + |Y_i \setminus Y_p|}
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
        >>> SimilarityDissimilarityLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]]))
        tensor(0.2971)
    """

    def get_default_reducer(self) -> SimilarityDissimilarityReducer:
        return SimilarityDissimilarityReducer()
