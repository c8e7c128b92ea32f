"""The label contract: multi-hot label sets, how many labels two of them share, and their Jaccard similarity."""

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
        labels: (N, C) multi-hot label sets: ``torch.bool`` (used as it is), or integers or floats that hold
            only 0 and 1, as PML's trainers and testers deliver them.
        num_rows: the N that the labels must have; None accepts any.
        num_classes: the C that the labels must have; None accepts any.
        name: name of the argument in messages.
        deferred: checks the values without waiting for a GPU, in training steps; None waits. ``torch.bool`` needs no
            check of its values.

    Returns:
        (N, C) ``torch.bool`` on the device of ``labels``; boolean input is returned itself.

    Raises:
        TypeError: ``labels`` is not a tensor.
        ValueError: a wrong number of dimensions, rows or classes, or a value other than 0 and 1.

    Example:
        >>> check_labels(torch.tensor([[1, 0, 1]]))
        tensor([[ True, False,  True]])
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} must be a multi-hot torch.Tensor of shape (rows, classes), got {type(labels).__name__}; "
            "convert it with torch.as_tensor"
        )
    if labels.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {labels.layout}; convert it with to_dense()")
    if labels.ndim != 2:
        hint = "; one-hot encode class indices with torch.nn.functional.one_hot" if labels.ndim == 1 else ""
        raise ValueError(f"{name} must be multi-hot of shape (rows, classes), got {tuple(labels.shape)}{hint}")
    if num_rows is not None and labels.shape[0] != num_rows:
        raise ValueError(f"{name} must have one row per embedding ({num_rows}), got {labels.shape[0]} rows")
    if num_classes is not None and labels.shape[1] != num_classes:
        raise ValueError(f"{name} must have one column per class ({num_classes}), got {labels.shape[1]} columns")
    if labels.dtype is torch.bool:
        return labels
    present = labels == 1
    wrong = ~(present | (labels == 0))
    must = f"{name} must hold only 0 and 1"
    if deferred is not None and labels.device.type != "cpu":
        deferred(wrong.any(), must)
    elif wrong.any():
        raise ValueError(f"{must}, got {labels[wrong][0].item()}; threshold scores or counts first")
    return present


def shared_label_counts(labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
    """Number of labels that each pair of rows shares.

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
    r"""Jaccard similarity of each pair of label sets.

    .. math:: J_{ij} = |Y_i \cap Y_j| / |Y_i \cup Y_j|

    An empty label set shares nothing with anything: its similarity is 0, to another empty set too.

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
    """Shared label counts and Jaccard similarities of checked labels in one pass, both (N, M) in ``dtype``."""
    shared = count_product(labels, ref_labels.T).to(dtype)
    return shared, jaccard_from_counts(shared, labels.sum(dim=1, dtype=dtype), ref_labels.sum(dim=1, dtype=dtype))


def jaccard_from_counts(shared: Tensor, sizes: Tensor, ref_sizes: Tensor) -> Tensor:
    """(N, M) Jaccard similarities from (N, M) numbers of shared labels and the sizes, (N,) and (M,), of the sets."""
    # An empty set shares nothing, so its size does not matter, but 0 / 0 would.
    union = (sizes.clamp(min=1)[:, None] + ref_sizes).sub_(shared)
    return torch.div(shared, union, out=union)


def count_product(left: Tensor, right: Tensor) -> Tensor:
    """Product of two boolean matrices as float32 counts, exact up to 2**24 and whatever autocast is active."""
    with torch.autocast(left.device.type, enabled=False):
        # As bytes, which torch turns into floats far faster than booleans.
        return left.view(torch.uint8).float() @ right.view(torch.uint8).float()


def label_dtype(embeddings: Tensor) -> torch.dtype:
    """Type for weights and temperatures beside these embeddings: float64 for float64, else float32."""
    return torch.float64 if embeddings.dtype is torch.float64 else torch.float32


def _check_both(labels: Tensor, ref_labels: Tensor | None) -> tuple[Tensor, Tensor]:
    labels = check_labels(labels)
    if ref_labels is None:
        return labels, labels
    return labels, check_labels(ref_labels, num_classes=labels.shape[1], name="ref_labels")
