"""Divides the queries into chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pml_macl.tuning import EVALUATION_BYTES_PER_CLASS, EVALUATION_BYTES_PER_RANK, EVALUATION_BYTES_PER_REFERENCE


def queries_per_chunk(num_references: int, k: int, num_classes: int, budget: int) -> int:
    """Return how many queries have temporary tensors that fit a budget; at least one.

    Args:
        num_references: number of references M.
        k: number of references that are ranked.
        num_classes: number of classes C.
        budget: number of bytes for the temporary tensors of one chunk.
    """
    bytes_per_query = (
        EVALUATION_BYTES_PER_REFERENCE * num_references
        + EVALUATION_BYTES_PER_RANK * k
        + EVALUATION_BYTES_PER_CLASS * num_classes
    )
    return max(1, budget // bytes_per_query)


def label_set_chunks(sets: Tensor, num_references: int, budget: int) -> Sequence[Tensor]:
    """Divide the (S, C) distinct label sets of the queries into parts whose comparison with all references fits."""
    return torch.split(sets, max(1, budget // (EVALUATION_BYTES_PER_REFERENCE * num_references)))
