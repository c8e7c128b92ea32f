"""Wrapper that lets PML's miners work on multi-hot labels."""

from typing import Any

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from pml_macl.checks import check_range
from pml_macl.compatibility import PML_MINERS, check_pml_part
from pml_macl.label_sets import LabelSets
from pml_macl.miners.base_multi_label_miner import BaseMultiLabelMiner
from pml_macl.relations import Relation


class MultiLabelMinerWrapper(BaseMultiLabelMiner):
    r"""Wrapper that lets a pair or triplet miner of PML work on multi-hot labels.

    The wrapped miner compares labels to find candidates. The wrapper makes two label sets equal (a positive pair) if

    .. math:: |Y_i \cap Y_j| \ge 1 \text{ and } J_{ij} \ge \text{threshold}

    and different (a negative pair) otherwise (:class:`~pml_macl.LabelSets`). If there are no rows or no references, the
    miner returns empty pairs.

    ``docs/parts/pml_parts.md`` lists the miners that work, those that the wrapper rejects, and why. Your own miner
    works if it inherits from no rejected miner, overrides ``mine`` but not ``forward``, and only compares labels.
    Otherwise the wrapper raises an error.

    Args:
        miner: PML miner to wrap; it is not copied.
        threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        relation: function of labels (n, ...) and reference labels (m, ...) that replaces the rule above. It returns an
            (n, m) matrix: booleans, True for positives, or floats in [0, 1], positive above 0 from ``threshold`` on. It
            should be symmetric. Labels may have any dtype and shape (N, ...).
        **kwargs: arguments of PML's ``BaseMiner``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the miner does not work on multi-hot labels, or the threshold is out of its range.

    Example:
        >>> from pytorch_metric_learning.miners import BatchHardMiner
        >>> labels = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]])
        >>> MultiLabelMinerWrapper(BatchHardMiner())(torch.eye(3), labels)
        (tensor([0, 2]), tensor([1, 1]), tensor([2, 0]))
    """

    miner: BaseMiner

    def __init__(
        self, miner: BaseMiner, threshold: float = 0.0, relation: Relation | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(miner, BaseMiner):
            raise TypeError(
                f"miner must be a pytorch_metric_learning miner, got {type(miner).__name__}; pass an instance "
                "such as MultiSimilarityMiner()"
            )
        check_pml_part(miner, PML_MINERS)
        if type(miner).forward is not BaseMiner.forward:
            raise ValueError(
                f"miner must not override forward, which the wrapper needs, but {type(miner).__name__} does; override "
                "mine instead, or use the miner without the wrapper if it takes multi-hot labels itself"
            )
        check_range("threshold", threshold, 0, 1)
        if "distance" in kwargs:
            raise TypeError(f"distance belongs to the wrapped miner; pass it to {type(miner).__name__} instead")
        super().__init__(relation, distance=miner.distance, **kwargs)
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
            indices = self.miner(embeddings, LabelSets(labels, self.threshold, self.relation))
        else:
            sets, ref_sets = LabelSets.with_references(labels, ref_labels, self.threshold, self.relation)
            indices = self.miner(embeddings, sets, ref_emb, ref_sets)
        return indices
