"""The reducer of MulSupCon."""

from torch import Tensor

from pml_macl.pairs import PairBlock, Pairs
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer


class MulSupConReducer(PairWeightedReducer):
    r"""Weighted mean in which all labels of an anchor count equally, however many positives have them.

    Zhang and Wu, Multi-Label Supervised Contrastive Learning, AAAI 2024:

    .. math:: w_{ip} = \sum_{l \in S_{ip}} 1 / n_l, \quad a_i = |\{l \in Y_i : n_l \ge 1\}|

    where :math:`n_l` is the number of references with label l, not counting the anchor itself. If all pairs that share
    a label are positives, the result is a mean over all (anchor, label) pairs. Each of them contributes the mean loss
    over the other images with this label.

    Args:
        label_statistics: not used, because the counts come from the batch; its classes must be those of the labels.
        divide_by_count: divide the weighted sum of an anchor by the number of its losses, not by the sum of weights.
        **kwargs: arguments of PML's ``BaseReducer``: ``collect_stats``.

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
