"""The weights of MulSupCon."""

from torch import Tensor

from pml_macl.pairs import PairBlock, Pairs
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer


class MulSupConReducer(PairWeightedReducer):
    r"""Each label of an anchor counts once, whatever the number of positives that carry it.

    Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024:

    .. math:: w_{ip} = \sum_{l \in S_{ip}} 1 / n_l, \quad a_i = |\{l \in Y_i : n_l \ge 1\}|

    with the number :math:`n_l` of references, without the anchor itself, that carry label l. With all pairs that share
    a label as positives this is the mean over the (anchor, label) pairs of the mean over the label's other carriers.

    Args:
        label_statistics: ignored, since the counts are those of the batch.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[True, True], [True, False], [True, False], [False, True]])
        >>> MulSupConReducer().pair_weights(Pairs(labels)[0:1])[0, 1:]
        tensor([0.5000, 0.5000, 1.0000])
    """

    def pair_weights(self, block: PairBlock) -> Tensor:
        return block.sum_over_shared(1 / block.pairs.carriers.clamp(min=1))

    def anchor_weights(self, pairs: Pairs) -> Tensor:
        return (pairs.labels * (pairs.carriers >= 1)).sum(dim=1, dtype=pairs.dtype)
