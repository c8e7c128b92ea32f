"""Multi-hot label sets: their check, the number of labels that two sets share, and their Jaccard similarity."""

from typing import Any

import torch
from torch import Tensor

from pml_macl.deferred_check import DeferredCheck


def check_labels(
    labels: Tensor,
    num_rows: int | None = None,
    num_classes: int | None = None,
    name: str = "labels",
    deferred: DeferredCheck | None = None,
) -> Tensor:
    """Validate multi-hot labels and return them as booleans.

    Args:
        labels: (N, C) multi-hot label sets. ``torch.bool`` is returned unchanged. Integers and floats must hold only
            0 and 1; PML's trainers pass int64 and its testers float labels.
        num_rows: the N that the labels must have; None accepts any.
        num_classes: the C that the labels must have; None accepts any.
        name: name of the argument in error messages.
        deferred: checks the values in a training step without waiting for the GPU; None waits. The values of
            ``torch.bool`` labels need no check.

    Returns:
        (N, C) ``torch.bool`` on the device of ``labels``.

    Raises:
        TypeError: ``labels`` is not a tensor.
        ValueError: ``labels`` is sparse, has a wrong shape, or holds a value other than 0 and 1.

    Example:
        >>> check_labels(torch.tensor([[1, 0, 1]]))
        tensor([[ True, False,  True]])
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} must be a multi-hot torch.Tensor of shape (rows, classes), got {type(labels).__name__}; "
            f"{_how_to_convert(labels)}"
        )
    if labels.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {labels.layout}; convert it with to_dense()")
    if labels.ndim != 2:
        hint = (
            '; in PML\'s trainers pass label_hierarchy_level="all", and test with MultiLabelEmbeddingSpaceTester; '
            "convert class indices with torch.nn.functional.one_hot"
        )
        raise ValueError(
            f"{name} must be 2-D multi-hot, shape (rows, classes), got shape {tuple(labels.shape)}"
            f"{hint if labels.ndim == 1 else ''}"
        )
    if num_rows is not None and labels.shape[0] != num_rows:
        raise ValueError(f"{name} must have one row per embedding ({num_rows}), got {labels.shape[0]} rows")
    if num_classes is not None:
        check_num_classes(labels, num_classes, name)
    if labels.dtype is torch.bool:
        return labels
    present = labels == 1
    wrong = ~(present | (labels == 0))
    must = f"{name} must hold only 0 and 1"
    if deferred is not None and labels.device.type != "cpu":
        deferred(wrong.any(), must, "; replace -1 and NaN by 0, and threshold scores or counts")
    elif wrong.any():
        value = labels[wrong][0].item()
        raise ValueError(f"{must}, got {value}; {_how_to_replace(value)}")
    return present


def check_num_classes(labels: Tensor, num_classes: int, name: str = "labels") -> None:
    """Raise unless the labels have one column per class."""
    if labels.shape[1] != num_classes:
        raise ValueError(f"{name} must have one column per class ({num_classes}), got {labels.shape[1]} columns")


def _how_to_convert(labels: Any) -> str:
    """Advice for labels that are not a tensor."""
    if labels is None:
        return "pass one row per image"
    if hasattr(labels, "to_numpy"):
        return "convert it with torch.as_tensor(labels.to_numpy())"
    try:
        torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        return (
            "turn lists of names or class indices into multi-hot rows with scikit-learn: "
            "torch.as_tensor(MultiLabelBinarizer().fit_transform(labels))"
        )
    return "convert it with torch.as_tensor"


def _how_to_replace(value: float) -> str:
    """Advice for a value that is neither 0 nor 1."""
    if value != value:
        return "NaN marks a missing value: fill it first, for example with labels.nan_to_num(0)"
    if value == -1:
        return "if -1 means absent in your table, pass labels > 0"
    return "threshold scores or counts first, for example labels > 0.5"


def shared_label_counts(labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
    """Count the labels that each pair of rows shares.

    Args:
        labels: (N, C) multi-hot label sets.
        ref_labels: (M, C) multi-hot label sets; None compares ``labels`` with themselves.

    Returns:
        (N, M) int64 counts.

    Raises:
        TypeError, ValueError: as :func:`check_labels`.

    Example:
        >>> shared_label_counts(torch.tensor([[1, 1, 0], [0, 1, 1]]))
        tensor([[2, 1],
                [1, 2]])
    """
    labels, ref_labels = _check_both(labels, ref_labels)
    return count_product(labels, ref_labels.T).long()


def jaccard_similarity(labels: Tensor, ref_labels: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    r"""Compute the Jaccard similarity of each pair of label sets.

    .. math:: J_{ij} = |Y_i \cap Y_j| / |Y_i \cup Y_j|

    An empty label set has the similarity 0 to every set, including another empty one.

    Args:
        labels: (N, C) multi-hot label sets.
        ref_labels: (M, C) multi-hot label sets; None compares ``labels`` with themselves.
        dtype: floating-point type of the result; None is torch's default.

    Returns:
        (N, M) similarities in [0, 1].

    Raises:
        TypeError, ValueError: as :func:`check_labels`.

    Example:
        >>> jaccard_similarity(torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 1]]))
        tensor([[0.3333, 1.0000, 0.0000]])
    """
    labels, ref_labels = _check_both(labels, ref_labels)
    return label_overlap(labels, ref_labels, torch.get_default_dtype() if dtype is None else dtype)[1]


def label_overlap(labels: Tensor, ref_labels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the (N, M) shared label counts and Jaccard similarities of checked labels, both in ``dtype``."""
    shared = count_product(labels, ref_labels.T).to(dtype)
    return shared, jaccard_from_counts(shared, labels.sum(dim=1, dtype=dtype), ref_labels.sum(dim=1, dtype=dtype))


def jaccard_from_counts(shared: Tensor, sizes: Tensor, ref_sizes: Tensor) -> Tensor:
    """Return the (N, M) Jaccard similarities, from (N, M) shared label counts and the (N,) and (M,) set sizes."""
    # A size of 1 instead of 0 does not change the result, because an empty set shares nothing. It avoids 0 / 0.
    union = (sizes.clamp(min=1)[:, None] + ref_sizes).sub_(shared)
    return torch.div(shared, union, out=union)


def count_product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two boolean matrices. The float32 counts are exact up to 2**24, under autocast too."""
    with torch.autocast(left.device.type, enabled=False):
        # torch converts bytes to floats far faster than booleans.
        return left.view(torch.uint8).float() @ right.view(torch.uint8).float()


def label_dtype(embeddings: Tensor) -> torch.dtype:
    """Return the type of weights and temperatures: float64 for float64 embeddings, otherwise float32."""
    return torch.float64 if embeddings.dtype is torch.float64 else torch.float32


def _check_both(labels: Tensor, ref_labels: Tensor | None) -> tuple[Tensor, Tensor]:
    labels = check_labels(labels)
    if ref_labels is None:
        return labels, labels
    return labels, check_labels(ref_labels, num_classes=labels.shape[1], name="ref_labels")
