"""Divides queries and references into chunks whose temporary tensors fit a budget."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pml_macl.tuning import (
    EVALUATION_BYTES_PER_CLASS,
    EVALUATION_BYTES_PER_RANK,
    EVALUATION_BYTES_PER_REFERENCE,
    REFERENCES_AT_ONCE,
    REFERENCES_PER_RANK,
)


def references_at_once(num_references: int, k: int) -> int:
    """Return how many of the references to compare with a chunk of queries at once, to find the k nearest."""
    return min(num_references, max(REFERENCES_AT_ONCE, REFERENCES_PER_RANK * (k + 1)))


def queries_per_chunk(num_columns: int, k: int, num_classes: int, budget: int) -> int:
    """Return how many queries have temporary tensors that fit a budget; at least one.

    Args:
        num_columns: largest number of references, or of label sets, that are compared with the queries at once.
        k: number of references that are ranked.
        num_classes: number of classes C.
        budget: number of bytes for the temporary tensors of one chunk.
    """
    bytes_per_query = (
        EVALUATION_BYTES_PER_REFERENCE * num_columns
        + EVALUATION_BYTES_PER_RANK * k
        + EVALUATION_BYTES_PER_CLASS * num_classes
    )
    return max(1, budget // bytes_per_query)


def label_set_chunks(sets: Tensor, num_columns: int, budget: int) -> Sequence[Tensor]:
    """Divide distinct label sets of queries into parts whose comparison with as many label sets as columns fits."""
    return torch.split(sets, max(1, budget // (EVALUATION_BYTES_PER_REFERENCE * num_columns)))
