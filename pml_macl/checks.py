"""Checks of the arguments of public classes and functions. Internal functions rely on them and check nothing."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pml_macl.deferred_check import DeferredCheck
from pml_macl.labels import check_labels


def check_batch(
    embeddings: Tensor,
    labels: Tensor,
    ref_emb: Tensor | None = None,
    ref_labels: Tensor | None = None,
    num_classes: int | None = None,
    deferred: DeferredCheck | None = None,
    multi_hot: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Validate a batch of embeddings and labels, and its references if given.

    Args:
        embeddings: (N, D) floating-point embeddings of the anchors.
        labels: (N, C) multi-hot label sets.
        ref_emb: (M, D) embeddings of the references, or None.
        ref_labels: (M, C) multi-hot label sets of the references; required with ``ref_emb``, otherwise None.
        num_classes: the C that the labels must have; None accepts any.
        deferred: checks the label values without waiting for the GPU; None waits.
        multi_hot: False accepts labels of any dtype and shape (N, ...), for a relation that compares them.

    Returns:
        ``labels`` and ``ref_labels`` on the device of ``embeddings``, as booleans if ``multi_hot`` is True; None for
        missing references.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a shape, dtype, device or value is wrong.
    """
    check_embeddings(embeddings)
    if multi_hot:
        checked = check_labels(labels, len(embeddings), num_classes, deferred=deferred).to(embeddings.device)
    else:
        shape = None if num_classes is None else (num_classes,)
        checked = check_label_rows(labels, len(embeddings), shape).to(embeddings.device)
    if (ref_emb is None) != (ref_labels is None):
        given, missing = ("ref_labels", "ref_emb") if ref_emb is None else ("ref_emb", "ref_labels")
        raise ValueError(f"{given} was given without {missing}; give both or neither")
    if ref_emb is None or ref_labels is None:
        return checked, None
    check_embeddings(ref_emb, embeddings.shape[1], name="ref_emb")
    if ref_emb.device != embeddings.device:
        raise ValueError(
            f"ref_emb must be on the device of embeddings ({embeddings.device}), got {ref_emb.device}; "
            "move it with to()"
        )
    if multi_hot:
        ref_checked = check_labels(ref_labels, len(ref_emb), checked.shape[1], "ref_labels", deferred)
    else:
        ref_checked = check_label_rows(ref_labels, len(ref_emb), checked.shape[1:], "ref_labels")
    return checked, ref_checked.to(embeddings.device)


def check_label_rows(
    labels: Tensor, num_rows: int | None = None, shape: Sequence[int] | None = None, name: str = "labels"
) -> Tensor:
    """Raise unless ``labels`` is a dense tensor with ``num_rows`` rows of the shape ``shape``; None accepts any."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(labels).__name__}; convert it with torch.as_tensor")
    if labels.layout is not torch.strided or labels.ndim == 0:
        raise ValueError(
            f"{name} must be a dense tensor with one row per embedding, got {labels.layout} of shape "
            f"{tuple(labels.shape)}; convert it with to_dense() or unsqueeze(0)"
        )
    if num_rows is not None and len(labels) != num_rows:
        raise ValueError(f"{name} must have one row per embedding ({num_rows}), got {len(labels)} rows")
    if shape is not None and tuple(labels.shape[1:]) != tuple(shape):
        raise ValueError(f"{name} must have rows of shape {tuple(shape)}, got {tuple(labels.shape[1:])}")
    return labels


def check_embeddings(embeddings: Tensor, embedding_size: int | None = None, name: str = "embeddings") -> None:
    """Raise unless ``embeddings`` is a floating-point (rows, embedding_size) tensor."""
    if not isinstance(embeddings, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(embeddings).__name__}; convert it with torch.as_tensor"
        )
    if embeddings.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {embeddings.layout}; convert it with to_dense()")
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ValueError(
            f"{name} must be a floating-point tensor of shape (rows, embedding_size), "
            f"got {embeddings.dtype} of shape {tuple(embeddings.shape)}; convert it with float() or reshape it"
        )
    if embedding_size is not None and embeddings.shape[1] != embedding_size:
        raise ValueError(f"{name} must have the embedding size {embedding_size}, got {embeddings.shape[1]}")


def check_finite(name: str, embeddings: Tensor, limit: float = math.inf) -> None:
    """Raise unless every value of the (N, D) embeddings is finite, and at most ``limit`` in size."""
    if embeddings.numel() == 0:
        return
    smallest, largest = embeddings.aminmax(dim=1)  # NaN if one value is; needs no tensor of the size of the embeddings
    sizes = torch.maximum(-smallest, largest)
    if ((sizes <= limit) & sizes.isfinite()).all():
        return
    if num_wrong := int((~sizes.isfinite()).sum()):
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {num_wrong} of {len(embeddings)} rows; check whether the "
            "training has diverged"
        )
    raise ValueError(
        f"{name} must hold values up to {limit:.0e}, because the squares of larger ones overflow in "
        f"{embeddings.dtype}, got {float(sizes.max()):.1e}; normalise or scale them"
    )


def in_float32(embeddings: Tensor) -> Tensor:
    """Convert half precision to float32 and leave other types unchanged.

    Half precision has three problems: similarities lose half of their digits, the 1e-12 that PML uses to normalise
    rows of zeros is 0 in float16, and torch has no bfloat16 version of some distances.
    """
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))


def check_indices_tuple(
    indices_tuple: Sequence[Tensor] | None,
    num_rows: int,
    num_references: int,
    deferred: DeferredCheck | None = None,
) -> None:
    """Raise unless ``indices_tuple`` is None, or holds pairs (a1, p, a2, n) or triplets (a, p, n) of existing rows.

    Args:
        indices_tuple: the output of a miner; None if no miner selected pairs.
        num_rows: number of anchors.
        num_references: number of rows that positives and negatives are taken from.
        deferred: checks the indices without waiting for the GPU; None waits.

    Raises:
        TypeError: it is not a tuple of integer tensors.
        ValueError: it has a wrong number of tensors, a wrong shape, or an index out of range.
    """
    if indices_tuple is None:
        return
    if not isinstance(indices_tuple, (tuple, list)) or not all(isinstance(x, Tensor) for x in indices_tuple):
        found = type(indices_tuple).__name__
        if isinstance(indices_tuple, (tuple, list)):
            found += f" of {', '.join(type(x).__name__ for x in indices_tuple)}"
        raise TypeError(f"indices_tuple must be a tuple of tensors, such as a miner returns, got {found}")
    groups: tuple[tuple[Tensor, ...], ...]
    anchors: tuple[Tensor, ...]
    if len(indices_tuple) == 4:
        a1, p, a2, n = indices_tuple
        groups, anchors, others = ((a1, p), (a2, n)), (a1, a2), (p, n)
    elif len(indices_tuple) == 3:
        a, p, n = indices_tuple
        groups, anchors, others = ((a, p, n),), (a,), (p, n)
    else:
        raise ValueError(
            f"indices_tuple must be pairs (a1, p, a2, n) or triplets (a, p, n), got {len(indices_tuple)} tensors"
        )
    for group in groups:
        shapes = {tuple(x.shape) for x in group}
        if len(shapes) != 1 or group[0].ndim != 1:
            raise ValueError(f"indices_tuple must hold 1-D tensors of equal length, got shapes {sorted(shapes)}")
    for indices, limit in ((anchors, num_rows), (others, num_references)):
        for index in indices:
            check_index("indices_tuple", index, limit, deferred)


def check_index(name: str, index: Tensor, limit: int, deferred: DeferredCheck | None = None) -> None:
    """Raise unless the tensor holds integers from 0 to ``limit - 1``; ``deferred`` does not wait for the GPU."""
    if not index.numel():
        return
    if index.is_floating_point() or index.dtype is torch.bool:
        raise TypeError(f"{name} must hold integers, got {index.dtype}; convert it with long()")
    must = f"{name} must hold existing row numbers"
    if deferred is not None and index.device.type != "cpu":
        deferred(((index < 0) | (index >= limit)).any(), must)
    elif int(index.min()) < 0 or int(index.max()) >= limit:
        raise ValueError(
            f"{must}, from 0 to {limit - 1}, got {int(index.min())} to {int(index.max())}; pass indices of the current "
            "batch"
        )


def check_instance(name: str, value: Any, kind: type, description: str) -> None:
    """Raise unless ``value`` is None or an instance of ``kind``."""
    if value is None or isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        found = f"the class {value.__name__} itself; pass an instance, such as {value.__name__}()"
    else:
        found = f"{type(value).__name__}; pass an instance of {kind.__name__}"
    raise TypeError(f"{name} must be {description}, got {found}")


def check_integer(name: str, value: int, low: int = 1) -> int:
    """Return a Python or numpy integer of at least ``low`` as Python's; raise for others. Booleans are no integers."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return int(value)


def check_bool(name: str, value: bool) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise unless ``value`` is a finite number in [low, high]."""
    _check_number(name, value)
    if not (math.isfinite(value) and low <= value <= high):
        expected = f"in [{low}, {high}]" if math.isfinite(high) else f">= {low} and finite"
        raise ValueError(f"{name} must be {expected}, got {value}")


def check_positive(name: str, value: float) -> None:
    """Raise unless ``value`` is a finite number above 0."""
    _check_number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be above 0 and finite, got {value}")


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_callable(name: str, value: Any, description: str = "callable") -> None:
    """Raise unless ``value`` is None or callable."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be {description} or None, got {value!r}")


def check_k(k: int | str | None) -> None:
    """Raise unless PML's accuracy calculator accepts ``k``: None, a positive integer or "max_bin_count"."""
    is_positive_integer = isinstance(k, int) and not isinstance(k, bool) and k >= 1
    if k is not None and k != "max_bin_count" and not is_positive_integer:
        raise ValueError(f"k must be None, a positive integer or 'max_bin_count', got {k!r}")


def check_ranks(name: str, tensor: Tensor) -> None:
    """Raise unless ``tensor`` has the shape (queries, k)."""
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have the shape (queries, k), got {tuple(tensor.shape)}")


def check_same_shape(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless ``tensor`` has the shape (queries, k) and ``other`` has the same shape."""
    check_ranks(name, tensor)
    if tensor.shape != other.shape:
        raise ValueError(f"{other_name} must have the shape of {name}, {tuple(tensor.shape)}, got {tuple(other.shape)}")


def check_per_query(name: str, tensor: Tensor, num_queries: int) -> None:
    """Raise unless ``tensor`` holds one value per query."""
    if tuple(tensor.shape) != (num_queries,):
        raise ValueError(f"{name} must have one value per query, shape ({num_queries},), got {tuple(tensor.shape)}")


def check_path(name: str, value: Any) -> None:
    """Raise unless ``value`` is a path: a string or an ``os.PathLike``."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, got {value!r}")


def check_string_or_none(name: str, value: Any) -> None:
    """Raise unless ``value`` is a string or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None, got {value!r}")


def check_values(name: str, values: NDArray[np.float64], low: float, high: float = math.inf) -> None:
    """Raise unless every element of the array is in [low, high]; NaN raises too."""
    wrong = values[~((values >= low) & (values <= high))]
    if wrong.size:
        expected = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f">= {low:g}"
        raise ValueError(f"every value of {name} must be {expected}, got {wrong[0]:g}")
