"""Label sets stored by label, and sums over the labels that anchors and references share."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pml_macl.computed_once import computed_once
from pml_macl.tuning import DENSE_LABEL_PAIRS, DENSE_LABELS


class LabelTable:
    """Tables of label sets with one row per label or per pair of labels; each table is computed on first access.

    Args:
        labels: (N, C) boolean label sets.
        dtype: floating-point type of the numbers.

    Attributes:
        by_label: (C, N) bytes, because torch converts bytes to floats much faster than booleans.
    """

    def __init__(self, labels: Tensor, dtype: torch.dtype) -> None:
        self.labels = labels
        self.dtype = dtype
        self.by_label = labels.T.contiguous().view(torch.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.labels.shape[1]

    @computed_once
    def label_columns(self) -> Tensor:
        """(C, N) table: 1 if the image has the label, otherwise 0."""
        return self.by_label.to(self.dtype)

    @computed_once
    def pair_columns(self) -> Tensor:
        """(C (C + 1) / 2, N) table: 1 if the image has both labels l <= m, otherwise 0; rows as in :attr:`pairs`."""
        first, second = self.pairs
        both = self.by_label.index_select(0, first).bitwise_and_(self.by_label.index_select(0, second))
        return both.to(self.dtype)

    @computed_once
    def pairs(self) -> Tensor:
        """(2, C (C + 1) / 2) indices of all pairs of labels l <= m."""
        return torch.triu_indices(self.num_classes, self.num_classes, device=self.labels.device)

    @computed_once
    def sizes(self) -> Tensor:
        """(N,) number of labels of each image."""
        return self.labels.sum(dim=1, dtype=self.dtype)


def sum_over_shared(anchors: LabelTable, references: LabelTable, rows: slice, values: Tensor | None = None) -> Tensor:
    r"""Sum the values of the labels, or of the pairs of labels, that n anchors share with each reference.

    .. math:: \sum_{l \in S_{ij}} v_l \quad \text{or} \quad \sum_{l \le m \in S_{ij}} v_{lm}

    :math:`S_{ij}` are the labels that anchor i and reference j share. Up to ``DENSE_LABELS`` classes
    (``DENSE_LABEL_PAIRS`` for pairs of labels), one matrix product computes all sums. With more classes, label sets are
    sparse, and adding the few table rows of each anchor is faster. That makes the host wait for the GPU, because it
    must know the number of labels.

    Args:
        anchors: label sets of N anchors.
        references: label sets of M references, over the same classes.
        rows: the n anchors to compute.
        values: (C,) one value per label, or a symmetric (C, C) matrix with one value per pair of labels; None counts
            the shared labels.

    Returns:
        (n, M) sums in the dtype of the tables.
    """
    by_pair = values is not None and values.ndim == 2
    with torch.autocast(anchors.labels.device.type, enabled=False):  # autocast would round the values to half precision
        if anchors.num_classes > (DENSE_LABEL_PAIRS if by_pair else DENSE_LABELS):
            return _add_up_rows(anchors.labels[rows], references, values)
        if values is None:
            return anchors.label_columns[:, rows].T @ references.label_columns
        if not by_pair:
            return (anchors.label_columns[:, rows].T * values) @ references.label_columns
        first, second = anchors.pairs
        return (anchors.pair_columns[:, rows].T * values[first, second]) @ references.pair_columns


def sum_over_shared_labels(labels: Tensor, ref_labels: Tensor, values: Tensor) -> Tensor:
    r"""Sum the values of the labels, or of the pairs of labels, that each anchor shares with each reference.

    .. math:: \sum_{l \in S_{ij}} v_l \quad \text{or} \quad \sum_{l \le m \in S_{ij}} v_{lm}

    :math:`S_{ij}` are the labels that anchor i and reference j share.

    Args:
        labels: (N, C) boolean label sets of the anchors.
        ref_labels: (M, C) boolean label sets of the references.
        values: (C,) one value per label, or a symmetric (C, C) matrix with one value per pair of labels.

    Returns:
        (N, M) sums in the dtype of ``values``.

    Example:
        >>> labels, ref_labels = torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]])
        >>> sum_over_shared_labels(labels, ref_labels, torch.ones(3))
        tensor([[2.]])
        >>> sum_over_shared_labels(labels, ref_labels, torch.ones(3, 3))
        tensor([[3.]])
    """
    anchors, references = (LabelTable(sets, values.dtype) for sets in (labels, ref_labels))
    return sum_over_shared(anchors, references, slice(0, len(labels)), values)


def _add_up_rows(labels: Tensor, references: LabelTable, values: Tensor | None) -> Tensor:
    """Compute the sums of :func:`sum_over_shared` by adding one table row per label or pair of labels of an anchor."""
    anchors, classes = labels.nonzero(as_tuple=True)
    counts = labels.sum(dim=1)
    if values is None or values.ndim == 1:
        factors = values[classes] if values is not None else None
        return _sum_rows(references.label_columns, classes, counts, factors)
    first, second, counts = _pairs_of_rows(anchors, classes, counts)
    # The table has one row for each pair of labels that at least one anchor has.
    num_classes = len(values)
    codes, position = torch.unique(first * num_classes + second, return_inverse=True)
    has_both = references.by_label.index_select(0, codes // num_classes)
    table = has_both.bitwise_and_(references.by_label.index_select(0, codes % num_classes))
    return _sum_rows(table.to(references.dtype), position, counts, values[first, second])


def _pairs_of_rows(anchors: Tensor, classes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of labels l <= m of each row, in row order, and the number of pairs per row.

    Args:
        anchors: (K,) row of each label, sorted.
        classes: (K,) the labels.
        counts: number of labels per row.
    """
    starts = counts.cumsum(0) - counts
    position = torch.arange(len(classes), device=classes.device) - starts[anchors]  # of each label in its row
    # The label at position p of its row is the second label of p + 1 pairs: one per label up to itself.
    repeats = position + 1
    second = torch.arange(len(classes), device=classes.device).repeat_interleave(repeats)
    number = torch.arange(len(second), device=classes.device) - (repeats.cumsum(0) - repeats)[second]
    first = starts[anchors[second]] + number
    return classes[first], classes[second], counts * (counts + 1) // 2


def _sum_rows(table: Tensor, indices: Tensor, counts: Tensor, factors: Tensor | None) -> Tensor:
    """Look up the table rows at ``indices``, multiply them by ``factors`` and sum each run of ``counts`` rows."""
    starts = counts.cumsum(0) - counts
    sums: Tensor = embedding_bag(indices, table, starts, mode="sum", per_sample_weights=factors)
    return sums
