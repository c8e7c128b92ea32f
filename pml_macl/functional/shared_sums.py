"""Sums over the labels, or the pairs of labels, that two label sets share."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

# Up to so many classes a sum over labels, or over pairs of labels, is one dense product. Beyond, label sets are sparse
# and adding up the few rows that an anchor has is faster; how many these are has to be asked of the device.
_DENSE_LABELS_UP_TO, _DENSE_PAIRS_UP_TO = 128, 24


class SharedSums:
    r"""Sums of values over what anchors share with references, a chunk of anchors at a time.

    .. math:: \sum_{l \in S_{ij}} v_l \quad \text{or} \quad \sum_{l \le m \in S_{ij}} v_{lm}

    Args:
        labels: (N, C) boolean label sets of the anchors.
        ref_labels: (M, C) boolean label sets of the references.
        values: (C,) value of each label, or (C, C) of each pair of labels, symmetric, in the type of the result.

    Example:
        >>> labels, ref_labels = torch.tensor([[True, True, False]]), torch.tensor([[True, True, True]])
        >>> SharedSums(labels, ref_labels, torch.ones(3))[0:1]
        tensor([[2.]])
        >>> SharedSums(labels, ref_labels, torch.ones(3, 3))[0:1]
        tensor([[3.]])
    """

    def __init__(self, labels: Tensor, ref_labels: Tensor, values: Tensor) -> None:
        num_classes = labels.shape[1]
        self.labels = labels
        self.by_label = _by_label(ref_labels)
        self.values = values
        self.is_dense = num_classes <= (_DENSE_LABELS_UP_TO if values.ndim == 1 else _DENSE_PAIRS_UP_TO)
        if self.is_dense:
            self.table = self._columns(self.by_label)
            own = self.table if labels is ref_labels else self._columns(_by_label(labels))
            self.left = own.T * (values if values.ndim == 1 else values[self._pairs()])
        elif values.ndim == 1:
            self.table = self.by_label.to(values)

    def _columns(self, by_label: Tensor) -> Tensor:
        """(K, rows) which rows carry which label or pair of labels, as numbers."""
        if self.values.ndim == 2:
            first, second = self._pairs()
            by_label = by_label.index_select(0, first).bitwise_and_(by_label.index_select(0, second))
        return by_label.to(self.values)

    def _pairs(self) -> tuple[Tensor, Tensor]:
        num_classes = len(self.values)
        first, second = torch.triu_indices(num_classes, num_classes, device=self.values.device)
        return first, second

    def __getitem__(self, rows: slice) -> Tensor:
        """(n, M) sums of some anchors."""
        with torch.autocast(self.labels.device.type, enabled=False):  # it would round the values to half precision
            if self.is_dense:
                return self.left[rows] @ self.table
            return self._add_up(self.labels[rows])

    def _add_up(self, labels: Tensor) -> Tensor:
        anchors, classes = labels.nonzero(as_tuple=True)
        counts = labels.sum(dim=1)
        if self.values.ndim == 1:
            return _sum_rows(self.table, classes, counts, self.values[classes])
        first, second, counts = _pairs_of_rows(anchors, classes, counts)
        # Each pair of labels that an anchor carries is a row of a table of the references that carry both.
        num_classes = len(self.values)
        codes, position = torch.unique(first * num_classes + second, return_inverse=True)
        carry = self.by_label.index_select(0, codes // num_classes)
        table = carry.bitwise_and_(self.by_label.index_select(0, codes % num_classes))
        return _sum_rows(table.to(self.values), position, counts, self.values[first, second])


def _by_label(labels: Tensor) -> Tensor:
    """(C, rows) which rows carry which label, as bytes: torch turns them into floats far faster than booleans."""
    return labels.T.contiguous().view(torch.uint8)


def _pairs_of_rows(anchors: Tensor, classes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the K labels of all rows into the pairs l <= m of each row, in row order, and their number a row."""
    starts = counts.cumsum(0) - counts
    position = torch.arange(len(classes), device=classes.device) - starts[anchors]  # of the label in its row
    # The label at position p of a row is the second of p + 1 pairs, with each label up to itself.
    repeats = position + 1
    second = torch.arange(len(classes), device=classes.device).repeat_interleave(repeats)
    number = torch.arange(len(second), device=classes.device) - (repeats.cumsum(0) - repeats)[second]
    first = starts[anchors[second]] + number
    return classes[first], classes[second], counts * (counts + 1) // 2


def _sum_rows(table: Tensor, indices: Tensor, counts: Tensor, factors: Tensor) -> Tensor:
    """Sum of ``counts`` rows of the table after one another, each times its factor."""
    sums: Tensor = embedding_bag(indices, table, counts.cumsum(0) - counts, mode="sum", per_sample_weights=factors)
    return sums
