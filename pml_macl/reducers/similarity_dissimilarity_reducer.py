"""The reducer of the Similarity-Dissimilarity loss."""

from typing import Any

from torch import Tensor

from pml_macl.pairs import PairBlock
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.statistics import LabelStatistics


class SimilarityDissimilarityReducer(PairWeightedReducer):
    r"""Weighted mean whose weights fall with the labels that only one image of a pair has.

    Huang et al., Similarity-Dissimilarity Loss for Multi-label Supervised Contrastive Learning, arXiv 2410.13439:

    .. math:: w_{ip} = \frac{|S_{ip}|}{|Y_p|} \cdot \frac{1}{1 + |Y_i \setminus Y_p|}

    The weighted sum of an anchor is divided by the number of its positives.

    Args:
        label_statistics: not used, because the weights depend on label sets only; with the number of classes of the
            labels.
        divide_by_count: divide the weighted sum of an anchor by the number of its losses, not by the sum of weights.
        **kwargs: arguments of PML's ``BaseReducer``: ``collect_stats``.

    Example:
        >>> import torch
        >>> from pml_macl.pairs import Pairs
        >>> labels = torch.tensor([[True, True], [True, False]])
        >>> SimilarityDissimilarityReducer().pair_weights(Pairs(labels)[:])
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """

    def __init__(
        self, label_statistics: LabelStatistics | None = None, divide_by_count: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(label_statistics, divide_by_count, **kwargs)

    def pair_weights(self, block: PairBlock) -> Tensor:
        missing = block.sizes - block.shared
        return block.shared / block.ref_sizes.clamp(min=1) / (1 + missing)
