"""Relations: functions of two sets of labels that replace the Jaccard similarity."""

from collections.abc import Callable

import torch
from torch import Tensor

from pml_macl.deferred_check import DeferredCheck

Relation = Callable[[Tensor, Tensor], Tensor]


def evaluate_relation(
    relation: Relation, labels: Tensor, ref_labels: Tensor, deferred: DeferredCheck | None = None
) -> Tensor:
    """Call a relation without gradients and without autocast, and check what it returns.

    Args:
        relation: function of ``labels`` and ``ref_labels`` that returns an (N, M) matrix on their device: booleans, or
            floats in [0, 1]. It is not called if there are no rows or no references.
        labels: N labels of any shape (N, ...).
        ref_labels: M labels of the same shape (M, ...).
        deferred: checks the range of floats without waiting for the GPU; None waits.

    Returns:
        (N, M) booleans, or floats in [0, 1].

    Raises:
        TypeError: the relation returns no tensor, or one of another dtype.
        ValueError: the relation returns another shape or device, or a number outside [0, 1].
    """
    expected = (len(labels), len(ref_labels))
    if 0 in expected:
        return torch.zeros(expected, dtype=torch.bool, device=labels.device)
    with torch.no_grad(), torch.autocast(labels.device.type, enabled=False):
        values = relation(labels, ref_labels)
    if not isinstance(values, Tensor):
        raise TypeError(f"relation must return a torch.Tensor, got {type(values).__name__}")
    if values.dtype is not torch.bool and not values.is_floating_point():
        raise TypeError(
            f"relation must return booleans, or floats in [0, 1], got {values.dtype}; compare the values, for example "
            "values > 0, or convert them with float()"
        )
    if values.shape != expected:
        raise ValueError(
            f"relation must return one value per pair of rows and references, shape {expected}, got "
            f"{tuple(values.shape)}; compare labels[:, None] with ref_labels[None], or use torch.cdist"
        )
    if values.device != labels.device:
        raise ValueError(
            f"relation must return a tensor on the device of labels ({labels.device}), got {values.device}; create "
            "its tensors with device=labels.device"
        )
    if values.dtype is not torch.bool:
        wrong = ~((values >= 0) & (values <= 1)).all()  # also True for NaN
        must = "relation must return booleans, or floats in [0, 1]"
        (DeferredCheck() if deferred is None else deferred)(
            wrong, must, "; clamp similarities with clamp(0, 1), and fill NaN with nan_to_num(0)"
        )
    return values.detach()


def is_positive(values: Tensor, threshold: float) -> Tensor:
    """Return which values of a relation make a pair positive: those above 0 that reach the threshold."""
    return values > 0 if threshold == 0 else values >= threshold
