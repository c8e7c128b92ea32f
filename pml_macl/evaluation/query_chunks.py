"""Divides the queries into chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pml_macl.tuning import EVALUATION_BYTES_PER_CLASS, EVALUATION_BYTES_PER_RANK, EVALUATION_BYTES_PER_REFERENCE


def query_chunks(
    set_of_query: Tensor, num_references: int, k: int, num_classes: int, budget: int, query_batch_size: int | None
) -> Sequence[Tensor]:
    """Divide the queries into chunks whose temporary tensors fit a budget.

    Queries with equal label sets follow each other, so that a chunk compares each set with the references only once.

    Args:
        set_of_query: (Q,) int64 index of each query's label set among the distinct ones.
        num_references: number of references M.
        k: number of references that are ranked.
        num_classes: number of classes C.
        budget: number of bytes for the temporary tensors of one chunk. A single query may need more.
        query_batch_size: number of queries per chunk; None takes as many as the budget allows.

    Returns:
        The indices of the queries of each chunk.
    """
    bytes_per_query = (
        EVALUATION_BYTES_PER_REFERENCE * num_references
        + EVALUATION_BYTES_PER_RANK * k
        + EVALUATION_BYTES_PER_CLASS * num_classes
    )
    return torch.split(set_of_query.argsort(stable=True), query_batch_size or max(1, budget // bytes_per_query))


def label_set_chunks(sets: Tensor, num_references: int, budget: int) -> Sequence[Tensor]:
    """Divide the (S, C) distinct label sets of the queries into parts whose comparison with all references fits."""
    return torch.split(sets, max(1, budget // (EVALUATION_BYTES_PER_REFERENCE * num_references)))
