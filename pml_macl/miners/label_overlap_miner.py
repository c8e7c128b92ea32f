"""The miner of MACL, which selects positives and negatives by label overlap."""

from typing import Any

import torch
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity
from torch import Tensor

from pml_macl.checks import check_choice, check_instance, check_integer, check_range
from pml_macl.labels import label_dtype
from pml_macl.miners.base_multi_label_miner import BaseMultiLabelMiner
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.relations import Relation

POSITIVE_STRATEGIES = ("all", "easy", "hard", "random")
NEGATIVE_STRATEGIES = ("all", "hard", "semihard", "random")
OUTPUTS = ("pairs", "triplets")


class LabelOverlapMiner(BaseMultiLabelMiner):
    r"""Miner that selects positives by shared labels and negatives among the other images.

    This is the label-aware sampling of MACL (Amir and Aptoula, Multi-Label Adaptive Contrastive Learning,
    arXiv 2512.16294). The candidates of anchor i are

    .. math::
        P(i) = \{j : |S_{ij}| \ge 1, J_{ij} \ge \text{positive_threshold}\}, \quad
        N(i) = \{j \notin P(i) : J_{ij} \le \text{negative_threshold}\}

    where :math:`J` is the Jaccard similarity and :math:`S` are the shared labels. As in PML, a row is never its own
    positive or negative unless ``ref_emb`` is given. For each anchor, the strategies select candidates:

    - ``"all"``: all candidates. It does not allow a limit.
    - ``"random"``: random candidates.
    - ``"easy"`` (positives only): the most similar positives.
    - ``"hard"``: the least similar positives, or the most similar negatives. The latter are the hard negatives of the
      paper: images whose embeddings are close although they share no label.
    - ``"semihard"`` (negatives only): the most similar negatives that are less similar than every selected positive of
      the anchor. An anchor without positives gets none.

    Every strategy except ``"all"`` selects one candidate per anchor, as PML's ``BatchEasyHardMiner`` does, or up to the
    limit if there is one.

    Args:
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1]; 0 accepts only pairs without a
            shared label.
        pos_strategy: ``"all"``, ``"easy"``, ``"hard"`` or ``"random"``.
        neg_strategy: ``"all"``, ``"hard"``, ``"semihard"`` or ``"random"``.
        max_positives_per_anchor: largest number of positives per anchor, >= 1. None selects all with
            ``pos_strategy="all"`` and one with the other strategies. A number requires another strategy than ``"all"``.
        max_negatives_per_anchor: the same for negatives and ``neg_strategy``.
        output: ``"pairs"`` (a1, p, a2, n) or ``"triplets"`` (a, p, n). Triplets combine each selected positive of an
            anchor with each of its selected negatives.
        relation: function of labels (N, ...) and reference labels (M, ...) that replaces the Jaccard similarity. It
            returns an (N, M) matrix: floats in [0, 1], or booleans, which count as 1 and 0. Pairs above 0 that reach
            ``positive_threshold`` are candidates for positives. Labels may have any dtype and shape (N, ...).
        **kwargs: arguments of PML's ``BaseMiner``: ``distance`` (default ``CosineSimilarity``), ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of its range or unknown, or the strategy ``"all"`` has a limit.

    Example:
        >>> labels = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]])
        >>> LabelOverlapMiner()(torch.eye(3), labels)
        (tensor([0, 1]), tensor([1, 0]), tensor([0, 1, 2, 2]), tensor([2, 2, 0, 1]))
    """

    def __init__(
        self,
        positive_threshold: float = 0.0,
        negative_threshold: float = 0.0,
        pos_strategy: str = "all",
        neg_strategy: str = "all",
        max_positives_per_anchor: int | None = None,
        max_negatives_per_anchor: int | None = None,
        output: str = "pairs",
        relation: Relation | None = None,
        **kwargs: Any,
    ) -> None:
        check_range("positive_threshold", positive_threshold, 0, 1)
        check_range("negative_threshold", negative_threshold, 0, 1)
        check_choice("pos_strategy", pos_strategy, POSITIVE_STRATEGIES)
        check_choice("neg_strategy", neg_strategy, NEGATIVE_STRATEGIES)
        check_choice("output", output, OUTPUTS)
        _check_limit("max_positives_per_anchor", max_positives_per_anchor, "pos_strategy", pos_strategy)
        _check_limit("max_negatives_per_anchor", max_negatives_per_anchor, "neg_strategy", neg_strategy)
        check_instance("distance", kwargs.get("distance"), BaseDistance, "a pytorch_metric_learning distance")
        super().__init__(relation, **kwargs)
        self.positive_threshold = positive_threshold
        self.negative_threshold = negative_threshold
        self.pos_strategy = pos_strategy
        self.neg_strategy = neg_strategy
        self.max_positives_per_anchor = max_positives_per_anchor
        self.max_negatives_per_anchor = max_negatives_per_anchor
        self.output = output
        self.add_to_recordable_attributes(list_of_names=["positive_threshold", "negative_threshold"], is_stat=False)
        self.add_to_recordable_attributes(
            list_of_names=["anchors_without_positives", "mean_positive_overlap"], is_stat=True
        )

    def get_default_distance(self) -> CosineSimilarity:
        return CosineSimilarity()

    def mine(
        self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor | None, ref_labels: Tensor | None
    ) -> tuple[Tensor, ...]:
        pairs = Pairs(
            labels,
            ref_labels,
            positive_threshold=self.positive_threshold,
            negative_threshold=self.negative_threshold,
            dtype=label_dtype(embeddings),
            deferred=self.deferred_check,
            relation=self.relation,
        )
        block = pairs[:]
        positives, negatives = block.positives, block.negatives
        if positives.numel():
            positives, negatives = self._choose(positives, negatives, self._similarities(embeddings, ref_emb))
        self._set_stats(positives, block)
        if self.output == "triplets":
            return _join_to_triplets(positives, negatives)
        return (*positives.nonzero(as_tuple=True), *negatives.nonzero(as_tuple=True))

    def _similarities(self, embeddings: Tensor, ref_emb: Tensor | None) -> Tensor:
        """Compute the (N, M) similarities, or return an empty () tensor if no strategy needs them."""
        if {self.pos_strategy, self.neg_strategy} <= {"all", "random"}:
            return embeddings.new_empty(())
        distances: Tensor = self.distance(embeddings, ref_emb)
        return distances if self.distance.is_inverted else -distances

    def _choose(self, positives: Tensor, negatives: Tensor, similarities: Tensor) -> tuple[Tensor, Tensor]:
        preference = -similarities if self.pos_strategy == "hard" else similarities
        positives = _keep(positives, self.pos_strategy, self.max_positives_per_anchor, preference)
        if self.neg_strategy == "semihard":
            least = similarities.masked_fill(~positives, torch.inf).amin(dim=1, keepdim=True)
            negatives = negatives & (similarities < least) & positives.any(dim=1, keepdim=True)
        return positives, _keep(negatives, self.neg_strategy, self.max_negatives_per_anchor, similarities)

    def _set_stats(self, positives: Tensor, block: PairBlock) -> None:
        if self.collect_stats:
            without = (~positives.any(dim=1)).sum()
            overlap = block.jaccard[positives].sum() / positives.sum().clamp(min=1)
            without, self.mean_positive_overlap = torch.stack([without, overlap]).tolist()  # one wait for the GPU
            self.anchors_without_positives = int(without)


def _keep(mask: Tensor, strategy: str, limit: int | None, preference: Tensor) -> Tensor:
    """Keep up to ``limit`` entries per row of the mask, highest preference first. None keeps one, or all with "all"."""
    if strategy == "all":
        return mask
    if strategy == "random":
        preference = torch.rand(mask.shape, device=mask.device)
    values, columns = preference.masked_fill(~mask, -torch.inf).topk(min(limit or 1, mask.shape[1]), dim=1)
    return torch.zeros_like(mask).scatter_(1, columns, values > -torch.inf)


def _join_to_triplets(positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Combine each positive of an anchor with each of its negatives, without intermediates larger than the result."""
    anchors, positive_indices = positives.nonzero(as_tuple=True)
    negative_indices = negatives.nonzero()[:, 1]
    num_negatives = negatives.sum(dim=1)
    first_negative = num_negatives.cumsum(0) - num_negatives
    repeats = num_negatives[anchors]
    first_triplet = repeats.cumsum(0) - repeats
    pairs = torch.arange(len(anchors), device=anchors.device).repeat_interleave(repeats)
    position = torch.arange(len(pairs), device=anchors.device) - first_triplet[pairs]
    anchors = anchors[pairs]
    return anchors, positive_indices[pairs], negative_indices[first_negative[anchors] + position]


def _check_limit(name: str, limit: int | None, strategy_name: str, strategy: str) -> None:
    if limit is None:
        return
    check_integer(name, limit)
    if strategy == "all":
        raise ValueError(
            f"{name} must be None with {strategy_name}='all', which selects every candidate, got {limit}; set "
            f"{strategy_name}='random' to select {limit} at random"
        )
