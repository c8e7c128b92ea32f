"""The reducer of MACL, which weights pairs and anchors by label frequency."""

from typing import Any

from torch import Tensor

from pml_macl.checks import check_choice, check_range
from pml_macl.functional import anchor_weights, pairwise_label_weights
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.statistics import LabelStatistics

LEVELS = ("cooccurrence", "label")


class FrequencyWeightedReducer(PairWeightedReducer):
    r"""Weighted mean that gives rare labels and rare co-occurrences more weight.

    This is the pairwise label reweighting (PLR) of MACL (Amir and Aptoula, Multi-Label Adaptive Contrastive Learning,
    arXiv 2512.16294):

    .. math::
        w_{ip} = J_{ip}^{\text{overlap_power}} \Bigl(\sum_{l \le m \in S_{ip}} n_{max} / n_{lm}\Bigr)^{\text{power}},
        \quad a_i = \Bigl(\frac{1}{|Y_i|} \sum_{l \in Y_i} n_{max} / n_l\Bigr)^{\text{anchor_power}}

    A pair that shares no label has weight 0, unless ``power`` and ``overlap_power`` are both 0.
    :class:`~pml_macl.reducers.PairWeightedReducer` describes how the weights apply to each reduction type and where
    labels and statistics come from.

    Args:
        label_statistics: label frequencies; None uses those of the loss, or those of the batch if the loss has none.
        power: exponent of the inverse frequencies, >= 0; 0 ignores label frequencies.
        level: ``"cooccurrence"`` sums over shared labels and pairs of shared labels; ``"label"`` sums over shared
            labels only.
        overlap_power: exponent of the Jaccard similarity, >= 0; 0 is MACL, 1 is weighted MACL.
        anchor_power: exponent of the anchor weights, >= 0; 0 gives all anchors equal weight.
        divide_by_count: divide the weighted sum of an anchor by the number of its losses, not by the sum of weights.
        **kwargs: arguments of PML's ``BaseReducer``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a power is negative, or ``level`` is unknown.

    Example:
        >>> import torch
        >>> reducer = FrequencyWeightedReducer(LabelStatistics.from_labels(torch.tensor([[1, 0], [1, 0], [1, 1]])))
        >>> labels = torch.tensor([[1, 1], [1, 0], [0, 1]])
        >>> losses = {"losses": torch.tensor([1.0, 5.0]), "indices": (torch.tensor([0, 0]), torch.tensor([1, 2]))}
        >>> reducer({"loss": {**losses, "reduction_type": "pos_pair"}}, torch.zeros(3, 2), labels)  # weights 1 and 3
        tensor(4.)
    """

    def __init__(
        self,
        label_statistics: LabelStatistics | None = None,
        power: float = 1.0,
        level: str = "cooccurrence",
        overlap_power: float = 0.0,
        anchor_power: float = 0.0,
        divide_by_count: bool = False,
        **kwargs: Any,
    ) -> None:
        for name, value in (("power", power), ("overlap_power", overlap_power), ("anchor_power", anchor_power)):
            check_range(name, value, 0)
        check_choice("level", level, LEVELS)
        super().__init__(label_statistics, divide_by_count, **kwargs)
        self.power = power
        self.level = level
        self.overlap_power = overlap_power
        self.anchor_power = anchor_power
        self.add_to_recordable_attributes(list_of_names=["power", "overlap_power", "anchor_power"], is_stat=False)

    def pair_weights(self, block: PairBlock) -> Tensor | float:
        rarity: Tensor | float = 1.0
        if self.power != 0:
            statistics = self.statistics_of(block.pairs)
            by_label = self.level == "label"
            values = (statistics.inverse_frequency if by_label else statistics.inverse_cooccurrence)(block.pairs.dtype)
            rarity = block.sum_over_shared(values.to(block.labels.device))
        jaccard = block.jaccard if self.overlap_power != 0 else 1.0
        return pairwise_label_weights(rarity, jaccard, self.power, self.overlap_power)

    def anchor_weights(self, pairs: Pairs) -> Tensor:
        if self.anchor_power == 0:
            return super().anchor_weights(pairs)
        frequency = self.statistics_of(pairs).inverse_frequency(pairs.dtype)
        return anchor_weights(pairs.labels, frequency, self.anchor_power, pairs.dtype)
