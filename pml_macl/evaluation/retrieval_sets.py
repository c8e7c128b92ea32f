"""Checks the input of an evaluation."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pml_macl.checks import check_finite
from pml_macl.labels import check_labels

Array = Tensor | NDArray[Any]


@dataclass(frozen=True)
class RetrievalSets:
    """Queries and references with their label sets, all on one device.

    Attributes:
        query: (Q, D) finite float32 or float64 embeddings.
        query_labels: (Q, C) boolean label sets.
        reference: (M, D) embeddings of the same type.
        reference_labels: (M, C) boolean label sets.
        ref_includes_query: whether the first Q references are the queries.
    """

    query: Tensor
    query_labels: Tensor
    reference: Tensor
    reference_labels: Tensor
    ref_includes_query: bool

    @classmethod
    def from_arrays(
        cls,
        query: Array,
        query_labels: Array,
        reference: Array | None,
        reference_labels: Array | None,
        ref_includes_query: bool,
        device: torch.device | None,
    ) -> "RetrievalSets":
        """Check the arguments of :meth:`MultiLabelAccuracyCalculator.get_accuracy` and convert them to tensors.

        Args:
            query: (Q, D) embeddings.
            query_labels: (Q, C) multi-hot label sets.
            reference: (M, D) embeddings; None ranks the queries among themselves.
            reference_labels: (M, C) multi-hot label sets; None if ``reference`` is None.
            ref_includes_query: whether the first Q references are the queries.
            device: where to compute; None uses the device of ``query``.

        Raises:
            TypeError: an argument is neither a tensor nor an array.
            ValueError: a shape or value is wrong.
        """
        if reference is None:
            if reference_labels is not None:
                raise ValueError("reference_labels were given without reference; give both or neither")
            reference, reference_labels, ref_includes_query = query, query_labels, True
        if reference_labels is None:
            raise ValueError("reference_labels are missing; give reference and reference_labels together")
        query, reference = _check_both_embeddings(query, reference, device)
        query_labels = _check_labels(query_labels, "query_labels", query, None)
        reference_labels = _check_labels(reference_labels, "reference_labels", reference, query_labels.shape[1])
        sets = cls(query, query_labels, reference, reference_labels, bool(ref_includes_query))
        if ref_includes_query:
            sets._check_reference_begins_with_query()
        return sets

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.query_labels.shape[1]

    @property
    def num_own(self) -> int:
        """Number of references that are the query itself: 1 or 0."""
        return int(self.ref_includes_query)

    @property
    def num_others(self) -> int:
        """Number of references that can be ranked for one query: all except the query itself."""
        return len(self.reference) - self.num_own

    def _check_reference_begins_with_query(self) -> None:
        size = len(self.query)
        same_labels = torch.equal(self.query_labels, self.reference_labels[:size])
        if same_labels and self.query is self.reference:
            return
        head = self.reference[:size]
        if not (same_labels and self.query.shape == head.shape and torch.allclose(self.query, head)):
            raise ValueError(
                f"with ref_includes_query=True, reference must begin with the {size} queries and reference_labels with "
                "their labels, but they differ; put the queries first, or set ref_includes_query=False"
            )


def _check_both_embeddings(query: Array, reference: Array, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Return both as finite tensors of the same dtype, float32 or float64, on the same device."""
    is_query = reference is query
    query = _as_embeddings(query, "query", device)
    reference = query if is_query else _as_embeddings(reference, "reference", query.device)
    if query.shape[1] != reference.shape[1]:
        raise ValueError(
            f"query and reference must have the same embedding size, got {query.shape[1]} and {reference.shape[1]}; "
            "compute both with the same model"
        )
    dtype = torch.promote_types(query.dtype, reference.dtype)
    return query.to(dtype), reference.to(dtype)


def _as_embeddings(embeddings: Array, name: str, device: torch.device | None) -> Tensor:
    tensor = _as_tensor(embeddings, device, name)
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor or numpy array, got {type(tensor).__name__}")
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise ValueError(
            f"{name} must hold at least one embedding, shape (rows, embedding_size), got {tuple(tensor.shape)}"
        )
    if tensor.is_complex():
        raise ValueError(f"{name} must be real, got {tensor.dtype}")
    if tensor.dtype is not torch.float64:
        tensor = tensor.float()
    check_finite(name, tensor, limit=(torch.finfo(tensor.dtype).max / (4 * tensor.shape[1])) ** 0.5)
    return tensor


def _check_labels(labels: Array, name: str, embeddings: Tensor, num_classes: int | None) -> Tensor:
    """Return the labels of the embeddings as booleans on the same device."""
    tensor = _as_tensor(labels, embeddings.device, name)
    if isinstance(tensor, Tensor) and tensor.ndim == 1:
        raise ValueError(
            f"{name} must be 2-D multi-hot, shape (rows, classes), got shape {tuple(tensor.shape)}; PML's testers pass "
            "one label column at a time, for any label_hierarchy_level: use MultiLabelEmbeddingSpaceTester instead; "
            "convert class indices with torch.nn.functional.one_hot"
        )
    return check_labels(tensor, len(embeddings), num_classes, name=name)


def _as_tensor(array: Array, device: torch.device | None, name: str) -> Tensor:
    """Move a tensor or array to the device as a tensor. Return anything else unchanged for the next check."""
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got an array of {array.dtype}; convert it with astype")
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        with warnings.catch_warnings():
            # A file that is mapped into memory may be read-only. The evaluation does not write to it.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
            array = torch.from_numpy(array)
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    return tensor.to(device) if isinstance(tensor, Tensor) else tensor
