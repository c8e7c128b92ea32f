"""A reducer that weighs pairs and anchors by how rare their labels are."""

from typing import Any

from torch import Tensor

from pml_macl.checks import check_choice, check_range
from pml_macl.functional import anchor_weights, pairwise_label_weights
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.statistics import LabelStatistics

LEVELS = ("cooccurrence", "label")


class FrequencyWeightedReducer(PairWeightedReducer):
    r"""Weighted mean in which rare labels count more: the pairwise label reweighting (PLR) of MACL.

    Amir and Aptoula, Multi-Label Adaptive Contrastive Learning, arXiv 2512.16294, name the idea (rare label
    co-occurrences weigh more); the formula is this package's:

    .. math::
        w_{ip} = J_{ip}^{\text{overlap_power}} \Bigl(\sum_{l \le m \in S_{ip}} n_{max} / n_{lm}\Bigr)^{\text{power}},
        \quad a_i = \Bigl(\frac{1}{|Y_i|} \sum_{l \in Y_i} n_{max} / n_l\Bigr)^{\text{anchor_power}}

    A pair that shares no label weighs 0 unless both powers are 0. How the weights enter, by reduction type, and where
    labels and statistics come from: :class:`~pml_macl.reducers.PairWeightedReducer`.

    Args:
        label_statistics: label frequencies to weigh by; None uses those of the loss, or of the batch if it has none.
        power: power of the frequencies, >= 0; 0 switches them off.
        level: ``"cooccurrence"`` sums over the pairs of shared labels, single labels included; ``"label"`` over single
            labels only.
        overlap_power: power of the Jaccard similarity, >= 0; 0 is MACL, 1 its weighted variant.
        anchor_power: power of the anchors' weights, >= 0; 0 weighs all anchors alike.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a power is negative or ``level`` unknown.

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
