"""Multi-label adaptive contrastive learning."""

from pytorch_metric_learning.distances import BaseDistance

from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss
from pml_macl.reducers import FrequencyWeightedReducer


class MACLLoss(MultiLabelContrastiveLoss):
    r"""Multi-label adaptive contrastive loss (MACL).

    Amir and Aptoula, Multi-Label Adaptive Contrastive Learning Loss for Remote Sensing Image Retrieval,
    arXiv 2512.16294. The paper names the parts (label-aware sampling, pairwise label reweighting, dynamic temperature
    scaling); the formulas are this package's. Not to be confused with lightly's ``MACLLoss``, Model-Aware Contrastive
    Learning.

    .. math::
        L = \frac{1}{\sum_i a_i} \sum_i a_i \sum_{p \in P(i)} \hat w_{ip}
            \Bigl[-\log \frac{\exp(s_{ip} / \tau_{ip})}{\sum_{k \in P(i) \cup N(i)} \exp(s_{ik} / \tau_{ik})}\Bigr]

    over the anchors that have a positive. :math:`P(i)` are the rows that share a label with the anchor and have a
    Jaccard similarity of at least ``positive_threshold``, :math:`N(i)` the others of at most ``negative_threshold``,
    or both are what ``indices_tuple`` says. The temperatures :math:`\tau_{ij}` are those of
    :class:`~pml_macl.distances.TemperatureScheduledSimilarity`, the weights :math:`\hat w_{ip}` (which sum to 1 over
    :math:`P(i)`) and :math:`a_i` those of :class:`~pml_macl.reducers.FrequencyWeightedReducer`; configure them by
    handing over your own. A batch without a positive pair gives a differentiable 0.

    Args:
        num_classes: number of classes C; without ``label_statistics`` the label frequencies are then learnt from the
            training batches (a batch is counted before it is weighted; only in training mode with gradients enabled).
        label_statistics: label frequencies to use as they are. With neither, those of the batch are used.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 takes any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1]; 0 takes no shared label, 1 keeps
            every row that is not a positive.
        engine: ``"auto"``, ``"fused"`` or ``"reference"``, as for :class:`MultiLabelContrastiveLoss`.
        **kwargs: for PML's ``BaseMetricLossFunction``: ``distance`` (a ``TemperatureScheduledSimilarity``, or any PML
            distance, which is then the similarity under the default temperature), ``reducer`` (any of PML's but for
            ``DivisorReducer`` and ``ClassWeightedReducer``), ``embedding_regularizer``, ``embedding_reg_weight``,
            ``collect_stats``.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is out of its range, ``num_classes`` disagrees with ``label_statistics``, or the reducer
            cannot work on label sets.

    Example:
        >>> import torch
        >>> loss_fn = MACLLoss(num_classes=3)
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], requires_grad=True)
        >>> loss = loss_fn(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]))
        >>> round(loss.item(), 4)
        0.5415
        >>> loss_fn.label_statistics.counts
        tensor([2, 1, 1])
    """

    def similarity_under_temperature(self, distance: BaseDistance | None) -> TemperatureScheduledSimilarity:
        return TemperatureScheduledSimilarity(distance=distance)

    def get_default_reducer(self) -> FrequencyWeightedReducer:
        return FrequencyWeightedReducer()
