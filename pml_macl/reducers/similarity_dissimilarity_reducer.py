"""The weights of the Similarity-Dissimilarity loss."""

from typing import Any

import torch
from torch import Tensor

from pml_macl.labels import label_overlap
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.statistics import LabelStatistics


class SimilarityDissimilarityReducer(PairWeightedReducer):
    r"""Pairs count by what the positive shares with the anchor and by what the anchor has beyond it.

    Huang et al., Similarity-Dissimilarity Loss for Multi-label Supervised Contrastive Learning, arXiv 2410.13439:

    .. math:: w_{ip} = \frac{|S_{ip}|}{|Y_p|} \cdot \frac{1}{1 + |Y_i \setminus Y_p|}

    divided by the number of positives.

    Args:
        label_statistics: not used.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Example:
        >>> labels = torch.tensor([[True, True], [True, False]])
        >>> statistics = LabelStatistics.from_labels(labels)
        >>> SimilarityDissimilarityReducer().pair_weights(labels, None, statistics, torch.float32)
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """

    def __init__(
        self, label_statistics: LabelStatistics | None = None, divide_by_count: bool = True, **kwargs: bool
    ) -> None:
        super().__init__(label_statistics, divide_by_count, **kwargs)

    def pair_weights(
        self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics, dtype: torch.dtype
    ) -> Tensor:
        others = labels if ref_labels is None else ref_labels
        shared, _ = label_overlap(labels, others, dtype)
        missing = labels.sum(dim=1, dtype=dtype)[:, None] - shared
        return shared / others.sum(dim=1, dtype=dtype).clamp(min=1) / (1 + missing)

    def weight_terms(self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics) -> dict[str, Any]:
        """What :meth:`pair_weights` are made of, for the fused engine."""
        return {"dissimilarity": True}
