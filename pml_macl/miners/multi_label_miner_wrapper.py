"""PML's miners on multi-hot labels."""

from typing import Any

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from pml_macl.checks import check_range
from pml_macl.compatibility import PML_MINERS, check_pml_part
from pml_macl.label_sets import LabelSets
from pml_macl.miners.base_multi_label_miner import BaseMultiLabelMiner


class MultiLabelMinerWrapper(BaseMultiLabelMiner):
    r"""Any pair or triplet miner of PML on multi-hot labels.

    The wrapped miner works as ever, but two rows count as equal, and may be a positive pair, where

    .. math:: |Y_i \cap Y_j| \ge 1 \text{ and } J_{ij} \ge \text{threshold}

    and as different, a negative pair, elsewhere (:class:`~pml_macl.LabelSets`). ``docs/parts/pml_parts.md`` lists the
    miners that work and those that are refused, and why. A miner of your own works if it inherits from none of the latter,
    overrides ``mine`` only and does no more with labels than compare them; anything else raises. A batch without rows
    or references gives empty pairs.

    Args:
        miner: the miner; it is not copied.
        threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 takes any shared label.
        **kwargs: for PML's ``BaseMiner``: ``collect_stats``.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the miner cannot work on multi-hot labels, or the threshold is out of its range.

    Example:
        >>> from pytorch_metric_learning.miners import BatchHardMiner
        >>> labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> MultiLabelMinerWrapper(BatchHardMiner())(torch.eye(3), labels)
        (tensor([0, 2]), tensor([1, 1]), tensor([2, 0]))
    """

    miner: BaseMiner

    def __init__(self, miner: BaseMiner, threshold: float = 0.0, **kwargs: Any) -> None:
        if not isinstance(miner, BaseMiner):
            raise TypeError(
                f"miner must be a pytorch_metric_learning miner, got {type(miner).__name__}; construct it first"
            )
        check_pml_part(miner, PML_MINERS)
        if type(miner).forward is not BaseMiner.forward:
            raise ValueError(
                f"{type(miner).__name__} cannot be wrapped: it overrides forward, which hands the labels on; override "
                "mine, or use it without the wrapper if it takes multi-hot labels itself"
            )
        check_range("threshold", threshold, 0, 1)
        if "distance" in kwargs:
            raise TypeError(f"distance belongs to the wrapped miner; give it to {type(miner).__name__}")
        super().__init__(distance=miner.distance, **kwargs)
        self.miner = miner
        self.threshold = threshold
        self.add_to_recordable_attributes(name="threshold", is_stat=False)

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None
    ) -> tuple[Tensor, ...]:
        if not len(embeddings) or (ref_emb is not None and not len(ref_emb)):
            none = torch.empty(0, dtype=torch.long, device=embeddings.device)
            return none, none, none, none
        indices: tuple[Tensor, ...]
        if ref_labels is None:
            indices = self.miner(embeddings, LabelSets(labels, self.threshold))
        else:
            sets, ref_sets = LabelSets.with_references(labels, ref_labels, self.threshold)
            indices = self.miner(embeddings, sets, ref_emb, ref_sets)
        return indices
