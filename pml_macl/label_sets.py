"""Label sets as a 1-D tensor in which "equal" means "overlapping", for code that compares class labels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pml_macl.checks import check_range
from pml_macl.labels import check_labels, count_product, label_overlap

# __torch_function__ receives each operation of torch as a function object. One operation has several of them: torch.eq,
# Tensor.eq and Tensor.__eq__; Tensor.shape arrives as the __get__ of a descriptor. The objects differ between releases
# of torch, their names do not, so operations are told apart by name. The lists name what is allowed. Any other
# operation, such as one that a later torch adds, raises an error; a list of what is forbidden would let it treat row
# numbers as classes.
COMPARISONS = ("eq", "__eq__", "ne", "__ne__")
# Operations that move row numbers or describe the tensor. __get__ reads shape, ndim, dtype, device and the like.
REARRANGEMENTS = (
    *("__getitem__", "index_select", "masked_select", "cat", "stack", "unbind", "split", "chunk"),
    *("unsqueeze", "squeeze", "view", "reshape", "flatten", "expand", "repeat", "t", "transpose", "flip", "roll"),
    *("contiguous", "clone", "detach", "to", "cpu", "cuda"),
    *("__get__", "__len__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "get_device"),
)


class LabelSets(Tensor):
    r"""A 1-D int64 tensor of label sets whose ``==`` means "overlap".

    PML's miners and losses ask of labels only whether two rows are equal: ``labels[:, None] == ref_labels``. Here

    .. math:: a = b \iff |Y_a \cap Y_b| \ge 1 \text{ and } J(Y_a, Y_b) \ge \text{threshold}

    so they take rows that share labels for positives and all others for negatives. A row also equals itself: a row
    without labels, which overlaps with nothing, is then no negative of itself where PML leaves the diagonal in.

    The numbers are rows of a table of label sets, shared by everything that is made from this tensor. Indexing,
    reshaping, ``torch.cat`` and ``.to(device)`` work as on any tensor and keep it. Overlap is not transitive, so rows
    have no classes: whatever needs classes (``unique``, ``sort``, ``<``, ``max``, ``one_hot``, ``bincount``, a
    comparison with a number, weights indexed by labels, ``tolist``, ...) raises ``TypeError`` instead of giving a
    wrong answer. A comparison takes the memory of its result, or of all pairs of rows where that is more.

    Args:
        labels: (N, C) multi-hot label sets, any number of classes.
        threshold: smallest Jaccard similarity of rows that count as equal, in [0, 1]; 0 takes any shared label.

    Attributes:
        threshold: as given.

    Raises:
        TypeError, ValueError: as :func:`~pml_macl.labels.check_labels`, or the threshold is out of its range.

    Example:
        >>> sets = LabelSets(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
        >>> sets.unsqueeze(1) == sets.unsqueeze(0)
        tensor([[ True,  True, False],
                [ True,  True,  True],
                [False,  True,  True]])
    """

    threshold: float
    _rows: Tensor
    _table: Tensor

    def __new__(cls, labels: Tensor, threshold: float = 0.0) -> "LabelSets":
        check_range("threshold", threshold, 0, 1)
        table = check_labels(labels)
        return cls._of_rows(torch.arange(len(table), device=table.device), table, threshold)

    @classmethod
    def _of_rows(cls, rows: Tensor, table: Tensor, threshold: float) -> "LabelSets":
        # torch's own nn.Parameter is made by _make_subclass. The public as_subclass does the same, but in torch 2.2 it
        # fails under a TorchDispatchMode, so it only stands in for a torch that has removed the private function.
        make_subclass = getattr(Tensor, "_make_subclass", None)
        sets: LabelSets = rows.as_subclass(cls) if make_subclass is None else make_subclass(cls, rows)
        sets._rows, sets._table, sets.threshold = rows, table, threshold
        return sets

    @classmethod
    def with_references(
        cls, labels: Tensor, ref_labels: Tensor, threshold: float = 0.0
    ) -> tuple["LabelSets", "LabelSets"]:
        """Label sets of a batch and of its references, which can be compared with one another.

        Args:
            labels: (N, C) multi-hot label sets.
            ref_labels: (M, C) multi-hot label sets.
            threshold: smallest Jaccard similarity of rows that count as equal, in [0, 1].

        Returns:
            (N,) and (M,) label sets. No row of the one is a row of the other, so a row without labels equals none.

        Raises:
            TypeError, ValueError: as the constructor.
        """
        labels = check_labels(labels)
        ref_labels = check_labels(ref_labels, num_classes=labels.shape[1], name="ref_labels")
        both = cls(torch.cat([labels, ref_labels.to(labels.device)]), threshold)
        rows, ref_rows = both._rows.tensor_split([len(labels)])
        return cls._of_rows(rows, both._table, threshold), cls._of_rows(ref_rows, both._table, threshold)

    def multi_hot(self) -> Tensor:
        """The label sets as booleans: (N, C), on the device of this tensor."""
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
            rows, table = args[0]._rows, args[0]._table
            return f"LabelSets(shape={tuple(rows.shape)}, num_classes={table.shape[1]}, threshold={args[0].threshold})"
        subject, *others = (*args, *named.values())
        sets = list(_label_sets(subject))
        if name not in REARRANGEMENTS or not sets or any(True for _ in _label_sets(others)):
            raise TypeError(
                f"{name} has no meaning on LabelSets: rows that overlap form no classes. They can be compared with == "
                "and !=, indexed and reshaped; multi_hot() gives the labels back. A loss or miner that needs one class "
                "per row cannot work on multi-hot labels"
            )
        if isinstance(subject, (list, tuple)):
            sets = _comparable(*subject)
        return _label_sets_from(func(*_plain(list(args)), **_plain(named)), sets[0])

    # Python takes a TypeError inside torch's own == for "not equal"; raised here, it reaches the caller.
    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # element-wise, as for any tensor
        return _equal(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]  # element-wise, as for any tensor
        return ~_equal(self, other)

    __hash__ = Tensor.__hash__  # defining __eq__ takes it away


def _equal(input: object, other: object) -> Tensor:  # noqa: A002  # the name in torch.eq, which callers may write out
    left, right = _comparable(input, other)
    # Each row is compared once, so that long lists of pairs take no (pairs, classes) tensor.
    left_rows, left_index = torch.unique(left._rows, return_inverse=True)
    right_rows, right_index = torch.unique(right._rows, return_inverse=True)
    table = left._table.to(left_rows.device)
    equal: Tensor = _overlaps(table[left_rows], table[right_rows], left.threshold) | (left_rows[:, None] == right_rows)
    if left_index.shape[1:] == (1,) and right_index.shape[:-1] in ((), (1,)):
        # All with all, which is what PML asks most; this is several times faster than picking every pair.
        equal = equal.index_select(0, left_index.flatten()).index_select(1, right_index.flatten())
    else:
        equal = equal[left_index, right_index]
    return equal


def _overlaps(labels: Tensor, ref_labels: Tensor, threshold: float) -> Tensor:
    """(N, M) which rows share a label and have the Jaccard similarity asked for."""
    if threshold == 0:
        return count_product(labels, ref_labels.T) > 0
    shared, jaccard = label_overlap(labels, ref_labels, torch.float32)
    return (shared > 0) & (jaccard >= threshold)


def _comparable(*values: object) -> list[LabelSets]:
    """The values, if they are label sets that can be compared with one another."""
    sets = [value for value in values if isinstance(value, LabelSets)]
    if len(sets) < len(values):
        found = next(type(value).__name__ for value in values if not isinstance(value, LabelSets))
        raise TypeError(
            f"LabelSets can be compared and joined only with LabelSets, got {found}; a loss or miner that compares "
            "labels with class numbers cannot work on multi-hot labels"
        )
    if any(other._table is not sets[0]._table or other.threshold != sets[0].threshold for other in sets):
        raise TypeError("LabelSets made apart cannot be compared or joined; make them by LabelSets.with_references")
    return sets


def _label_sets(value: Any) -> Iterator[LabelSets]:
    """The label sets among the arguments of a function, in lists and tuples too."""
    if isinstance(value, LabelSets):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _label_sets(item)


def _plain(value: Any) -> Any:
    """The arguments with plain row numbers for label sets."""
    if isinstance(value, LabelSets):
        return value._rows
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _label_sets_from(result: Any, source: LabelSets) -> Any:
    """The result of a function on row numbers with label sets for row numbers."""
    if type(result) in (list, tuple):
        return tuple(_label_sets_from(item, source) for item in result)
    if not isinstance(result, Tensor):
        return result
    if result.dtype is not torch.int64:
        raise TypeError(f"LabelSets number rows in int64 and cannot become {result.dtype}")
    return LabelSets._of_rows(result, source._table, source.threshold)
