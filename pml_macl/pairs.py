"""The pairs of a batch: what distances, reducers and losses need to know about the label sets of two images."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pml_macl.batch_share import BatchShare
from pml_macl.computed_once import computed_once
from pml_macl.deferred_check import DeferredCheck
from pml_macl.functional.pair_masks import masks_from_indices, negative_mask, positive_mask
from pml_macl.label_table import LabelTable, sum_over_shared
from pml_macl.labels import check_labels, jaccard_from_counts
from pml_macl.relations import Relation, evaluate_relation, is_positive
from pml_macl.statistics import LabelStatistics
from pml_macl.tuning import BLOCK_ELEMENTS, BLOCK_ROWS


class Pairs:
    """All pairs of N anchors and M references; a slice of anchors, such as ``pairs[0:32]``, is a :class:`PairBlock`.

    A loss creates one object per batch and passes it to its distance and its reducer. Each value is computed on first
    access. The object stores no (N, M) matrix except the masks of ``indices_tuple``.

    Args:
        labels: (N, C) boolean label sets of the anchors, already checked.
        ref_labels: (M, C) boolean label sets of the references; None compares the anchors with each other.
        own: (N,) int64, index of the reference that is the anchor itself, such as its copy in a memory. An anchor and
            its own reference are neither a positive nor a negative pair. None: without ``ref_labels``, each anchor is
            its own reference; with ``ref_labels``, no anchor has one.
        indices_tuple: pairs (a1, p, a2, n) or triplets (a, p, n) of a miner. They replace the thresholds, and also the
            rule about own references unless ``own`` is given.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1].
        statistics: label frequencies; None counts ``labels`` when frequencies are needed.
        dtype: floating-point type of weights and temperatures.
        deferred: checks ``indices_tuple`` and the relation without waiting for the GPU; None waits.
        relation: function that replaces the Jaccard similarity. It takes ``labels[rows]`` and ``ref_labels`` as given,
            which then may have any dtype and shape (N, ...), and returns an (n, M) matrix of booleans or of floats in
            [0, 1].
        share: the anchors that this process computes, if ``labels`` is the joint batch of several processes; None
            computes all.

    Attributes:
        own: (N,) index of each anchor's own reference, or None if there are none.
        given_statistics: ``statistics`` as given.
        dtype: as given.
        device: device of the labels.
        relation: as given.
        share: as given.

    Raises:
        ValueError: ``indices_tuple`` contains a pair both as a positive and as a negative.

    Example:
        >>> pairs = Pairs(torch.tensor([[True, True, False], [True, False, False], [False, False, True]]))
        >>> block = pairs[0:1]
        >>> block.shared
        tensor([[2., 1., 0.]])
        >>> block.jaccard
        tensor([[1.0000, 0.5000, 0.0000]])
        >>> block.positives, block.negatives
        (tensor([[False,  True, False]]), tensor([[False, False,  True]]))
    """

    def __init__(
        self,
        labels: Tensor,
        ref_labels: Tensor | None = None,
        own: Tensor | None = None,
        indices_tuple: Sequence[Tensor] | None = None,
        positive_threshold: float = 0.0,
        negative_threshold: float = 0.0,
        statistics: LabelStatistics | None = None,
        dtype: torch.dtype = torch.float32,
        deferred: DeferredCheck | None = None,
        relation: Relation | None = None,
        share: BatchShare | None = None,
    ) -> None:
        self.given_labels = labels
        self.given_ref_labels = labels if ref_labels is None else ref_labels
        self.relation = relation
        self.deferred = deferred
        self.device = labels.device
        self.share = share
        self.dtype = dtype
        self.given_statistics = statistics
        self.positive_threshold = positive_threshold
        self.negative_threshold = negative_threshold
        self.includes_anchors = ref_labels is None or own is not None
        self.masks: tuple[Tensor, Tensor] | None = None
        if indices_tuple is not None:
            self.masks = masks_from_indices(indices_tuple, len(self), self.num_references, self.device, deferred)
        elif ref_labels is None and own is None:
            own = torch.arange(len(labels), device=labels.device)
        self.own = own

    def __len__(self) -> int:
        """Number of anchors N."""
        return len(self.given_labels)

    @property
    def num_references(self) -> int:
        """Number of references M."""
        return len(self.given_ref_labels)

    def __getitem__(self, rows: slice) -> "PairBlock":
        return PairBlock(self, slice(*rows.indices(len(self))))

    def row_blocks(self) -> Iterator[slice]:
        """Yield slices that split the anchors into blocks with small (n, M) matrices; yield none without pairs."""
        size = max(BLOCK_ROWS, BLOCK_ELEMENTS // max(1, self.num_references))
        first, end = (0, len(self)) if self.share is None else (self.share.start, self.share.stop)
        for start in range(first, end if self.num_references else first, size):
            yield slice(start, min(start + size, end))

    def to_tensor(self, values: Tensor | float) -> Tensor:
        """Convert temperatures or weights to a tensor with the dtype and device of the pairs."""
        return torch.as_tensor(values, dtype=self.dtype, device=self.device)

    @computed_once
    def labels(self) -> Tensor:
        """(N, C) boolean label sets of the anchors; raises ``ValueError`` if a relation compares other labels."""
        return self._label_sets(self.given_labels, "labels")

    @computed_once
    def anchor_table(self) -> LabelTable:
        """Label sets of the anchors."""
        return LabelTable(self.labels, self.dtype)

    @computed_once
    def reference_table(self) -> LabelTable:
        """Label sets of the references."""
        if self.given_ref_labels is self.given_labels:
            return self.anchor_table
        return LabelTable(self._label_sets(self.given_ref_labels, "ref_labels"), self.dtype)

    def _label_sets(self, labels: Tensor, name: str) -> Tensor:
        if self.relation is None:
            return labels
        try:
            return check_labels(labels, name=name, deferred=self.deferred)
        except ValueError as error:
            raise ValueError(
                f"{error}. The relation accepts other labels, but label frequencies and shared labels need multi-hot "
                "ones; to use neither, set distance=TemperatureScheduledSimilarity(rarity_scale=0) and "
                "reducer=FrequencyWeightedReducer(power=0)"
            ) from error

    @computed_once
    def statistics(self) -> LabelStatistics:
        """Label frequencies: the given statistics, otherwise the counts of the anchors."""
        return self.given_statistics or LabelStatistics.from_checked_labels(self.labels)

    @computed_once
    def carriers(self) -> Tensor:
        """(C,) number of references with each label, without the anchor's own reference."""
        counts = self.reference_table.label_columns.sum(dim=1)
        return counts - 1 if self.includes_anchors else counts


class PairBlock:
    """The pairs of n anchors and all M references; each property is computed on first access.

    Do not change the matrices in place: the distance, the reducer and the loss share them.

    Args:
        pairs: the pairs of the batch.
        rows: slice of the anchors.
    """

    def __init__(self, pairs: Pairs, rows: slice) -> None:
        self.pairs = pairs
        self.rows = rows

    @property
    def labels(self) -> Tensor:
        """(n, C) boolean label sets of the anchors."""
        return self.pairs.labels[self.rows]

    @property
    def sizes(self) -> Tensor:
        """(n, 1) number of labels of each anchor."""
        return self.pairs.anchor_table.sizes[self.rows, None]

    @property
    def ref_sizes(self) -> Tensor:
        """(M,) number of labels of each reference."""
        return self.pairs.reference_table.sizes

    @computed_once
    def shared(self) -> Tensor:
        """(n, M) number of shared labels."""
        return self.sum_over_shared(None)

    @computed_once
    def jaccard(self) -> Tensor:
        """(n, M) Jaccard similarity of the label sets, 0 if either set is empty; or the values of the relation."""
        pairs = self.pairs
        if pairs.relation is not None:
            labels = pairs.given_labels[self.rows]
            return evaluate_relation(pairs.relation, labels, pairs.given_ref_labels, pairs.deferred).to(pairs.dtype)
        return jaccard_from_counts(self.shared, self.pairs.anchor_table.sizes[self.rows], self.ref_sizes)

    @computed_once
    def positives(self) -> Tensor:
        """(n, M) booleans, True for a positive pair."""
        pairs = self.pairs
        if pairs.masks is not None:
            return self._without_own(pairs.masks[0][self.rows])
        if pairs.relation is not None:
            return self._without_own(is_positive(self.jaccard, pairs.positive_threshold))
        jaccard = self.jaccard if pairs.positive_threshold > 0 else None
        return self._without_own(positive_mask(self.shared, jaccard, pairs.positive_threshold))

    @computed_once
    def negatives(self) -> Tensor:
        """(n, M) booleans, True for a negative pair."""
        pairs = self.pairs
        if pairs.masks is not None:
            return self._without_own(pairs.masks[1][self.rows])
        jaccard = self.jaccard if pairs.positive_threshold > 0 else None
        return self._without_own(
            negative_mask(self.positives, jaccard, pairs.positive_threshold, pairs.negative_threshold)
        )

    @property
    def own(self) -> Tensor | None:
        """(n, 1) int64, index of the reference that is the anchor itself; None if there are no such references."""
        return None if self.pairs.own is None else self.pairs.own[self.rows, None]

    @property
    def ignored(self) -> Tensor | None:
        """(n, M) booleans, True for a pair that is neither positive nor negative; None if only own pairs are."""
        no_gap = self.pairs.positive_threshold == 0 or self.pairs.negative_threshold == 1
        return None if self.pairs.masks is None and no_gap else ~(self.positives | self.negatives)

    def of_positives(self, weights: Tensor | float) -> Tensor:
        """Set the weights of all pairs that are not positive to 0.

        Args:
            weights: finite weights that broadcast to (n, M).

        Returns:
            (n, M) weights.
        """
        pairs = self.pairs
        # Multiply by 0 and 1: on a CPU, where() and masked_fill() with an irregular mask are ten times slower.
        if pairs.masks is None and pairs.relation is None and pairs.positive_threshold == 0:
            kept = self.shared.clamp(max=1).mul_(weights)
        else:
            kept = self.positives.view(torch.uint8).to(pairs.dtype).mul_(weights)
        return kept if self.own is None else kept.scatter_(1, self.own, 0)

    def sum_over_shared(self, values: Tensor | None) -> Tensor:
        r"""Sum the values of the labels, or of the pairs of labels, that anchor and reference share.

        .. math:: \sum_{l \in S_{ij}} v_l \quad \text{or} \quad \sum_{l \le m \in S_{ij}} v_{lm}

        :math:`S_{ij}` are the labels that anchor i and reference j share.

        Args:
            values: (C,) one value per label, or a symmetric (C, C) matrix with one value per pair of labels, in the
                dtype of the pairs; None counts the shared labels.

        Returns:
            (n, M) sums.
        """
        return sum_over_shared(self.pairs.anchor_table, self.pairs.reference_table, self.rows, values)

    def _without_own(self, mask: Tensor) -> Tensor:
        own = self.own
        return mask if own is None else mask.scatter(1, own, False)


def without_own(indices_tuple: tuple[Tensor, ...], own: Tensor) -> tuple[Tensor, ...]:
    """Remove the pairs and triplets that combine an anchor with its own reference.

    Args:
        indices_tuple: pairs (a1, p, a2, n) or triplets (a, p, n).
        own: (N,) int64, index of the reference that is the anchor itself.

    Returns:
        The remaining pairs or triplets.
    """
    if len(indices_tuple) == 3:
        a, p, n = indices_tuple
        keep = (p != own[a]) & (n != own[a])
        return a[keep], p[keep], n[keep]
    a1, p, a2, n = indices_tuple
    positive, negative = p != own[a1], n != own[a2]
    return a1[positive], p[positive], a2[negative], n[negative]
