"""The weights of MulSupCon."""

from typing import Any

import torch
from torch import Tensor

from pml_macl.labels import count_product
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.statistics import LabelStatistics


class MulSupConReducer(PairWeightedReducer):
    r"""Each label of an anchor counts once, whatever the number of positives that carry it.

    Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024:

    .. math:: w_{ip} = \sum_{l \in S_{ip}} 1 / n_l, \quad a_i = |\{l \in Y_i : n_l \ge 1\}|

    with the number :math:`n_l` of references, without the anchor itself, that carry label l. With all pairs that share
    a label as positives this is the mean over the (anchor, label) pairs of the mean over the label's other carriers.

    Args:
        label_statistics: not used: the counts are those of the batch.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Example:
        >>> reducer = MulSupConReducer()
        >>> labels = torch.tensor([[True, True], [True, False], [True, False], [False, True]])
        >>> reducer.pair_weights(labels, None, LabelStatistics.from_labels(labels), torch.float32)[0, 1:]
        tensor([0.5000, 0.5000, 1.0000])
    """

    def pair_weights(
        self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics, dtype: torch.dtype
    ) -> Tensor:
        inverse_counts = self.weight_terms(labels, ref_labels, statistics)["inverse_counts"].to(dtype)
        others = labels if ref_labels is None else ref_labels
        with torch.autocast(labels.device.type, enabled=False):
            weights: Tensor = (labels * inverse_counts) @ others.to(dtype).T
        return weights

    def weight_terms(self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics) -> dict[str, Any]:
        """What :meth:`pair_weights` are made of, for the fused engine."""
        return {"inverse_counts": 1 / self._counts(labels, ref_labels).clamp(min=1).double(), "power": 1.0}

    def anchor_weights(
        self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics, dtype: torch.dtype
    ) -> Tensor:
        carried = self._counts(labels, ref_labels) >= 1
        return count_product(labels, carried[:, None])[:, 0].to(dtype)

    @staticmethod
    def _counts(labels: Tensor, ref_labels: Tensor | None) -> Tensor:
        """(C,) number of references that carry each label; a carrier among them does not count itself."""
        return labels.sum(dim=0) - 1 if ref_labels is None else ref_labels.sum(dim=0)
