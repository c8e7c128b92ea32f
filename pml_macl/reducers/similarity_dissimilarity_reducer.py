"""The weights of the Similarity-Dissimilarity loss."""

from typing import Any

from torch import Tensor

from pml_macl.pairs import PairBlock
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.statistics import LabelStatistics


class SimilarityDissimilarityReducer(PairWeightedReducer):
    r"""Pairs count by what the positive shares with the anchor and by what the anchor has beyond it.

    Huang et al., Similarity-Dissimilarity Loss for Multi-label Supervised Contrastive Learning, arXiv 2410.13439:

    .. math:: w_{ip} = \frac{|S_{ip}|}{|Y_p|} \cdot \frac{1}{1 + |Y_i \setminus Y_p|}

    divided by the number of positives.

    Args:
        label_statistics: ignored.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

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
