"""A 1-D tensor of label sets whose ``==`` means "share labels", for code that compares class labels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pml_macl.checks import check_callable, check_label_rows, check_range
from pml_macl.labels import check_labels, count_product, label_overlap
from pml_macl.relations import Relation, evaluate_relation, is_positive

# torch passes every operation to __torch_function__ as a function object. One operation has several such objects:
# torch.eq, Tensor.eq and Tensor.__eq__; Tensor.shape arrives as the __get__ of a descriptor. The objects differ between
# releases of torch, but their names do not, so this module identifies operations by name. The two lists contain the
# allowed operations, and every other one raises an error. With a list of forbidden operations instead, an operation
# that a later torch adds would treat row numbers as classes.
COMPARISONS = ("eq", "__eq__", "ne", "__ne__")
# Operations that move row numbers or describe the tensor. __get__ reads attributes such as shape, dtype and device.
REARRANGEMENTS = (
    *("__getitem__", "index_select", "masked_select", "cat", "stack", "unbind", "split", "chunk"),
    *("unsqueeze", "squeeze", "view", "reshape", "flatten", "expand", "repeat", "t", "transpose", "flip", "roll"),
    *("contiguous", "clone", "detach", "to", "cpu", "cuda"),
    *("__get__", "__len__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "get_device"),
)


class LabelSets(Tensor):
    r"""A 1-D int64 tensor of label sets whose ``==`` means "share labels".

    Most miners and losses of PML only test whether the labels of two rows are equal: ``labels[:, None] == ref_labels``.
    On label sets, the test means

    .. math:: a = b \iff |Y_a \cap Y_b| \ge 1 \text{ and } J(Y_a, Y_b) \ge \text{threshold}

    PML therefore treats such rows as positives and all other rows as negatives. A row always equals itself, even
    without labels. Otherwise a row without labels would be its own negative where PML keeps the diagonal.

    The values of the tensor are row numbers of a table of label sets. Indexing, reshaping, ``torch.cat`` and
    ``.to(device)`` work as on any tensor; their results share the table.

    Sharing labels is not transitive, so label sets do not define classes. Operations that need classes raise
    ``TypeError`` instead of returning a wrong result: ``unique``, ``sort``, ``<``, ``max``, ``one_hot``, ``bincount``,
    a comparison with a number, weights indexed by labels, ``tolist`` and others.

    A comparison needs memory for its result or for all pairs of distinct rows, whichever is larger.

    Args:
        labels: (N, C) multi-hot label sets, any number of classes.
        threshold: smallest Jaccard similarity of rows that count as equal, in [0, 1]; 0 accepts any shared label.
        relation: function that replaces the Jaccard similarity; ``labels`` may then have any dtype and shape (N, ...).
            It takes (n, ...) and (m, ...) rows of them and returns an (n, m) matrix. Two rows are equal where it is
            True, or a float in (0, 1] that reaches ``threshold``.

    Attributes:
        threshold: as given.
        relation: as given.

    Raises:
        TypeError, ValueError: as :func:`~pml_macl.labels.check_labels`, ``threshold`` is outside [0, 1], or
            ``relation`` is not callable. A comparison raises if the relation returns a wrong dtype, shape or value.

    Example:
        >>> sets = LabelSets(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        >>> sets.unsqueeze(1) == sets.unsqueeze(0)
        tensor([[ True,  True, False],
                [ True,  True,  True],
                [False,  True,  True]])
    """

    threshold: float
    relation: Relation | None
    _rows: Tensor
    _table: Tensor

    def __new__(cls, labels: Tensor, threshold: float = 0.0, relation: Relation | None = None) -> "LabelSets":
        check_range("threshold", threshold, 0, 1)
        check_callable("relation", relation)
        table = check_labels(labels) if relation is None else check_label_rows(labels)
        table = table.detach().clone()  # of its own: label sets with one table were created together
        return cls._of_rows(torch.arange(len(table), device=table.device), table, threshold, relation)

    @classmethod
    def _of_rows(cls, rows: Tensor, table: Tensor, threshold: float, relation: Relation | None = None) -> "LabelSets":
        # torch makes its nn.Parameter with _make_subclass. The public as_subclass does the same, but in torch 2.2 it
        # fails under a TorchDispatchMode. It is therefore used only if torch has removed the private function.
        make_subclass = getattr(Tensor, "_make_subclass", None)
        sets: LabelSets = rows.as_subclass(cls) if make_subclass is None else make_subclass(cls, rows)
        sets._rows, sets._table, sets.threshold, sets.relation = rows, table, threshold, relation
        return sets

    @classmethod
    def with_references(
        cls, labels: Tensor, ref_labels: Tensor, threshold: float = 0.0, relation: Relation | None = None
    ) -> tuple["LabelSets", "LabelSets"]:
        """Create the label sets of a batch and of its references, which can be compared with each other.

        Args:
            labels: (N, C) multi-hot label sets.
            ref_labels: (M, C) multi-hot label sets.
            threshold: smallest Jaccard similarity of rows that count as equal, in [0, 1].
            relation: function that replaces the Jaccard similarity, as for the constructor.

        Returns:
            (N,) and (M,) label sets. They have no row in common, so a row without labels in one equals no row of the
            other.

        Raises:
            TypeError, ValueError: as the constructor, or the two have different numbers of classes.
        """
        if relation is None:
            labels = check_labels(labels)
            ref_labels = check_labels(ref_labels, num_classes=labels.shape[1], name="ref_labels")
        else:
            labels = check_label_rows(labels)
            ref_labels = check_label_rows(ref_labels, shape=labels.shape[1:], name="ref_labels")
        both = cls(torch.cat([labels, ref_labels.to(labels.device)]), threshold, relation)
        rows, ref_rows = both._rows.tensor_split([len(labels)])
        return _label_sets_from(rows, both), _label_sets_from(ref_rows, both)

    def multi_hot(self) -> Tensor:
        """Return the label sets as booleans: the shape of this tensor plus (C,), on its device.

        With a relation, the labels keep their dtype and the shape of their rows.
        """
        return self._table.to(self._rows.device)[self._rows]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        named: dict[str, Any] = kwargs or {}
        name = func.__name__
        if name in COMPARISONS:
            equal = _equal(*args, **named)
            return equal if name in ("eq", "__eq__") else ~equal
        if name in ("__repr__", "__format__"):
            sets = args[0]
            kind = f"num_classes={sets._table.shape[1]}" if sets.relation is None else f"relation={sets.relation}"
            return f"LabelSets(shape={tuple(sets._rows.shape)}, {kind}, threshold={sets.threshold})"
        subject, *others = (*args, *named.values())
        sets = list(_label_sets(subject))
        if name not in REARRANGEMENTS or not sets or any(True for _ in _label_sets(others)):
            raise TypeError(
                f"LabelSets do not support this use of {name}: rows that share labels are not classes. They support "
                "==, !=, indexing and reshaping; multi_hot() returns the labels. A loss or miner that needs one class "
                "per row cannot work on multi-hot labels"
            )
        if isinstance(subject, (list, tuple)):
            sets = _comparable(*subject)
        return _label_sets_from(func(*_plain(list(args)), **_plain(named)), sets[0])

    # If torch's == raises TypeError, Python returns "not equal". An error raised in this method reaches the caller.
    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # element-wise, as for any tensor
        return _equal(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]  # element-wise, as for any tensor
        return ~_equal(self, other)

    __hash__ = Tensor.__hash__  # Python removes __hash__ from a class that defines __eq__


def _equal(input: object, other: object) -> Tensor:  # noqa: A002  # callers may pass input= by name, as to torch.eq
    left, right = _comparable(input, other)
    # Compare each distinct row once, so that a long list of pairs needs no (pairs, classes) tensor.
    left_rows, left_index = torch.unique(left._rows, return_inverse=True)
    right_rows, right_index = torch.unique(right._rows, return_inverse=True)
    table = left._table.to(left_rows.device)
    equal: Tensor = _overlaps(table[left_rows], table[right_rows], left.threshold, left.relation)
    equal |= left_rows[:, None] == right_rows
    if left_index.shape[1:] == (1,) and right_index.shape[:-1] in ((), (1,)):
        # PML mostly compares all rows with all rows. This is several times faster than indexing every pair.
        equal = equal.index_select(0, left_index.flatten()).index_select(1, right_index.flatten())
    else:
        equal = equal[left_index, right_index]
    return equal


def _overlaps(labels: Tensor, ref_labels: Tensor, threshold: float, relation: Relation | None) -> Tensor:
    """Return (N, M) booleans, True if two rows are equal without being the same row."""
    if relation is not None:
        return is_positive(evaluate_relation(relation, labels, ref_labels), threshold)
    if threshold == 0:
        return count_product(labels, ref_labels.T) > 0
    shared, jaccard = label_overlap(labels, ref_labels, torch.float32)
    return (shared > 0) & (jaccard >= threshold)


def _comparable(*values: object) -> list[LabelSets]:
    """Return the values as label sets; raise unless all are label sets with one table and threshold."""
    sets = [value for value in values if isinstance(value, LabelSets)]
    if len(sets) < len(values):
        found = next(type(value).__name__ for value in values if not isinstance(value, LabelSets))
        raise TypeError(
            f"LabelSets can only be compared or concatenated with LabelSets, got {found}; a loss or miner that "
            "compares labels with class numbers cannot work on multi-hot labels"
        )
    if any(other._table is not sets[0]._table or other.threshold != sets[0].threshold for other in sets):
        raise TypeError(
            "LabelSets can only be compared or concatenated if they were created together, got separate ones; create "
            "both with LabelSets.with_references"
        )
    return sets


def _label_sets(value: Any) -> Iterator[LabelSets]:
    """Yield the label sets in the arguments of a function, including those in lists and tuples."""
    if isinstance(value, LabelSets):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _label_sets(item)


def _plain(value: Any) -> Any:
    """Replace the label sets in the arguments of a function by their row numbers."""
    if isinstance(value, LabelSets):
        return value._rows
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _label_sets_from(result: Any, source: LabelSets) -> Any:
    """Replace the row numbers in the result of a function by label sets."""
    if type(result) in (list, tuple):
        return tuple(_label_sets_from(item, source) for item in result)
    if not isinstance(result, Tensor):
        return result
    if result.dtype is not torch.int64:
        raise TypeError(f"LabelSets must stay int64, got {result.dtype}; multi_hot() returns the labels to convert")
    return LabelSets._of_rows(result, source._table, source.threshold, source.relation)
