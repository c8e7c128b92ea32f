"""SupCon whose positives share any label."""

from pml_macl.losses.single_temperature_loss import SingleTemperatureLoss


class SupConAnyLoss(SingleTemperatureLoss):
    r"""SupCon whose positives share a label with the anchor and have equal weights.

    Khosla et al., Supervised Contrastive Learning, arXiv 2004.11362, applied to label sets:

    .. math::
        L = \frac{1}{|I|} \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
            \log \frac{\exp(s_{ip} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)},
        \quad P(i) = \{p \ne i : Y_i \cap Y_p \ne \emptyset\}

    :math:`I` are the anchors that have a positive. On one-hot labels this is PML's ``SupConLoss``.

    Args:
        temperature: :math:`\tau` > 0.
        **kwargs: the arguments of :class:`MultiLabelContrastiveLoss`.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MultiLabelContrastiveLoss`.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> SupConAnyLoss(temperature=0.5)(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]))
        tensor(0.3485)
    """
