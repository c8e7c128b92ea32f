"""The Jaccard similarity in which rare labels count more."""

import torch
from torch import Tensor, nn

from pml_macl.checks import check_range
from pml_macl.deferred_check import DeferredCheck
from pml_macl.functional import weighted_jaccard_similarity
from pml_macl.labels import check_labels
from pml_macl.statistics import LabelStatistics, check_statistics


class FrequencyWeightedJaccard(nn.Module):
    r"""Jaccard similarity that weights each label by its inverse frequency, as ``relation`` of a loss.

    .. math::
        J^v_{ij} = \sum_{l \in Y_i \cap Y_j} v_l \Big/ \sum_{l \in Y_i \cup Y_j} v_l, \quad
        v_l = (n_{max} / n_l)^{\text{power}}

    It is :func:`~pml_macl.functional.weighted_jaccard_similarity` with the frequencies of a data set. In
    :class:`~pml_macl.losses.MACLLoss`, it replaces the Jaccard similarity in the temperatures, the weights and the
    thresholds, so a shared rare label makes two images more similar than a shared frequent one. This is our own
    addition; the paper does not describe it.

    Args:
        label_statistics: the counts :math:`n_l`. They may change, such as those that a loss learns.
        power: exponent of the inverse frequencies, >= 0; 0 gives the Jaccard similarity.

    Raises:
        TypeError: ``label_statistics`` is not a ``LabelStatistics``, or ``power`` is not a number.
        ValueError: ``power`` is negative.

    Example:
        >>> statistics = LabelStatistics.from_labels(torch.tensor([[1, 0], [1, 0], [1, 1]]))
        >>> relation = FrequencyWeightedJaccard(statistics)  # weights 1 and 3
        >>> relation(torch.tensor([[1, 1]]), torch.tensor([[1, 0], [0, 1]]))
        tensor([[0.2500, 0.7500]])
    """

    def __init__(self, label_statistics: LabelStatistics, power: float = 1.0) -> None:
        super().__init__()
        if label_statistics is None:
            raise TypeError(
                "label_statistics must be given, got None; create it with LabelStatistics.from_labels(train_labels)"
            )
        check_statistics(label_statistics)
        check_range("power", power, 0)
        self.label_statistics = label_statistics
        self.power = power
        self.deferred_check = DeferredCheck()

    def forward(self, labels: Tensor, ref_labels: Tensor) -> Tensor:
        """Compute the similarity of each pair.

        Args:
            labels: (N, C) multi-hot label sets.
            ref_labels: (M, C) multi-hot label sets.

        Returns:
            (N, M) similarities in [0, 1], in torch's default dtype.

        Raises:
            TypeError, ValueError: labels are not multi-hot, or C is not that of the statistics.
        """
        num_classes = self.label_statistics.num_classes
        labels = check_labels(labels, num_classes=num_classes, deferred=self.deferred_check)
        ref_labels = check_labels(ref_labels, None, num_classes, "ref_labels", self.deferred_check)
        weights = self.label_statistics.inverse_frequency(torch.get_default_dtype()) ** self.power
        return weighted_jaccard_similarity(labels, ref_labels, weights)

    def extra_repr(self) -> str:
        return f"power={self.power}"
