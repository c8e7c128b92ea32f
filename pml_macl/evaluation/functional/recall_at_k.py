"""Recall at k, as metric learning defines it."""

from torch import Tensor

from pml_macl.evaluation.functional.first_ranks import first_ranks


def recall_at_k(relevance: Tensor, k: int) -> Tensor:
    r"""Return 1 for each query that has a relevant reference among the first k, and 0 for the others.

    .. math:: \max_{j \le k} rel_j

    The mean over queries is the Recall@K of metric learning (Song et al., 1511.06452): the share of queries with at
    least one relevant reference among the first k. The recall of information retrieval, which is the share of the
    relevant references that are found, is :func:`~pml_macl.evaluation.coverage_at_k`.

    Args:
        relevance: (queries, ranks) 1 or True where the reference at that rank is relevant.
        k: number of ranks that count, from 1 to the number of ranks.

    Returns:
        (queries,) float64, 0 or 1.

    Raises:
        ValueError: ``relevance`` is not 2-dimensional, or ``k`` is out of range.

    Example:
        >>> import torch
        >>> recall_at_k(torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]]), k=3)
        tensor([1., 0.], dtype=torch.float64)
    """
    return first_ranks(relevance, k).bool().any(dim=1).double()
