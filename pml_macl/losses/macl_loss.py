"""The MACL loss."""

from typing import Any

from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss
from pml_macl.reducers import FrequencyWeightedReducer


class MACLLoss(MultiLabelContrastiveLoss):
    r"""Multi-label adaptive contrastive loss (MACL).

    Amir and Aptoula, Multi-Label Adaptive Contrastive Learning Loss for Remote Sensing Image Retrieval,
    arXiv 2512.16294. It is not related to lightly's ``MACLLoss`` (Model-Aware Contrastive Learning).

    .. math::
        L = \frac{1}{\sum_i a_i} \sum_i a_i \sum_{p \in P(i)} \hat w_{ip}
            \Bigl[-\log \frac{\exp(s_{ip} / \tau_{ip})}{\sum_{k \in P(i) \cup N(i)} \exp(s_{ik} / \tau_{ik})}\Bigr]

    The outer sums run over the anchors that have a positive. The positives :math:`P(i)` share a label with the anchor,
    and their Jaccard similarity is at least ``positive_threshold``. The negatives :math:`N(i)` are the other references
    whose Jaccard similarity is at most ``negative_threshold``. The loss ignores pairs between the two thresholds. If
    ``indices_tuple`` is given, it defines positives and negatives instead.

    :class:`~pml_macl.distances.TemperatureScheduledSimilarity` computes the temperatures :math:`\tau_{ij}`.
    :class:`~pml_macl.reducers.FrequencyWeightedReducer` computes the weights :math:`\hat w_{ip}`, which sum to 1 over
    :math:`P(i)`, and :math:`a_i`. Pass your own ``distance`` or ``reducer`` to change their settings. For a batch
    without a positive pair, the loss and its gradient are 0.

    Args:
        num_classes: number of classes C, >= 1. Without ``label_statistics``, the loss then counts labels over the
            training batches. It adds a batch to the counts before it computes the weights, and only in training mode
            with gradients enabled.
        label_statistics: label frequencies, which the loss does not change; ``.to()`` of the loss moves them. If both
            ``num_classes`` and ``label_statistics`` are None, the loss uses the frequencies of the batch.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1]; 0 accepts only pairs without a
            shared label, 1 accepts all references that are not positives.
        engine: ``"auto"``, ``"fused"`` or ``"reference"``, as for :class:`MultiLabelContrastiveLoss`.
        temperature: base temperature :math:`\tau`, > 0; None uses that of ``distance``, or 0.2.
        relation: function that replaces the Jaccard similarity, as for :class:`MultiLabelContrastiveLoss`. The default
            distance and reducer need multi-hot labels; for other labels, set ``rarity_scale=0`` and ``power=0``.
        **kwargs: arguments of PML's ``BaseMetricLossFunction``: ``distance`` (a ``TemperatureScheduledSimilarity``, or
            a PML distance, which the loss divides by the temperatures), ``reducer`` (any PML reducer except
            ``DivisorReducer`` and ``ClassWeightedReducer``), ``embedding_regularizer``, ``embedding_reg_weight``,
            ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of its range, ``num_classes`` and ``label_statistics`` disagree, or the reducer
            does not work on label sets.

    Example:
        >>> import torch
        >>> loss_fn = MACLLoss(num_classes=3)
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], requires_grad=True)
        >>> loss = loss_fn(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]))
        >>> round(loss.item(), 4)
        0.4581
        >>> loss_fn.label_statistics.counts
        tensor([2, 1, 1])
    """

    def similarity_under_temperature(self, **options: Any) -> TemperatureScheduledSimilarity:
        return TemperatureScheduledSimilarity(**options)

    def get_default_reducer(self) -> FrequencyWeightedReducer:
        return FrequencyWeightedReducer()
