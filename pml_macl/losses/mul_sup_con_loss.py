"""The MulSupCon loss."""

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss
from pml_macl.reducers import MulSupConReducer


class MulSupConLoss(SingleTemperatureLoss):
    r"""SupCon with one term per label of the anchor, whose positives are the other images with that label.

    Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024:

    .. math::
        L = \frac{1}{|K|} \sum_{(i, l) \in K} \frac{-1}{|P_l(i)|} \sum_{p \in P_l(i)}
            \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)}, \quad P_l(i) = \{p \ne i : l \in Y_p\}

    :math:`K` are the pairs of an anchor and one of its labels, for each label that another image has too.

    Args:
        temperature: :math:`\tau` > 0.
        **kwargs: the arguments of :class:`MultiLabelContrastiveLoss`.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> MulSupConLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]]))
        tensor(0.9860)
    """

    def get_default_reducer(self) -> MulSupConReducer:
        return MulSupConReducer()
