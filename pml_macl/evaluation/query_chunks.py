"""How many queries are evaluated at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pml_macl.tuning import EVALUATION_BYTES_PER_CLASS, EVALUATION_BYTES_PER_RANK, EVALUATION_BYTES_PER_REFERENCE


def query_chunks(
    set_of_query: Tensor, num_references: int, k: int, num_classes: int, budget: int, query_batch_size: int | None
) -> Sequence[Tensor]:
    """Share out the queries to chunks whose temporaries fit into a budget.

    Queries with equal label sets come one after the other, so that a chunk compares each set with the references once.

    Args:
        set_of_query: (Q,) int64 index of each query's label set among the distinct ones.
        num_references: M.
        k: how many of them are ranked.
        num_classes: C.
        budget: bytes that the temporaries of one chunk may take. A single query may take more.
        query_batch_size: queries per chunk; None takes as many as the budget allows.

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
    """Parts of the (S, C) distinct label sets of the queries whose comparison with all references fits a budget."""
    return torch.split(sets, max(1, budget // (EVALUATION_BYTES_PER_REFERENCE * num_references)))
