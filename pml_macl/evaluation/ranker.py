"""Ranks a reference set by Euclidean distance, exactly or with the user's function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pml_macl.evaluation.distinct_rows import may_have_equal_rows
from pml_macl.evaluation.retrieval_sets import RetrievalSets


def make_rank_function(
    sets: RetrievalSets, k: int, knn_func: Callable[..., tuple[Tensor, Tensor]] | None
) -> Callable[[Tensor], Tensor]:
    """Return a function that ranks the references for some of the queries.

    Args:
        sets: queries and references.
        k: number of references to rank.
        knn_func: replaces the exact ranking; None for the exact ranking.

    Returns:
        A function of (N,) query indices that returns (N, k) reference indices, nearest first; M stands for a reference
        that ``knn_func`` did not find.

    Raises:
        ValueError: ``knn_func`` returned indices of a wrong shape.
    """
    query, reference = sets.query, sets.reference
    if knn_func is None:
        ranker = Ranker(reference)
        return lambda rows: ranker(query[rows], k, rows if sets.ref_includes_query else None)
    # Each call of knn_func builds an index, so call it once, with all queries.
    order = knn_func(query, k, reference, sets.ref_includes_query)[1]
    if order.shape != (len(query), k):
        raise ValueError(
            f"knn_func must return the {k} nearest references of each query, shape {(len(query), k)}, got indices "
            f"of shape {tuple(order.shape)}; set k to the number that it can return"
        )
    order = torch.where(order < 0, len(reference), order)
    return lambda rows: order[rows]


class Ranker:
    """Ranks references by Euclidean distance to each query, and equal distances by reference index.

    The ranker compares ``|r|^2 / 2 - q . r``, which orders the references of one query as the distance does. A matrix
    product in the dtype of the embeddings computes it. Two different references whose distances agree to rounding may
    therefore come in either order. Equal references always tie, because they share one column of the product.

    Run the ranker inside :func:`~pml_macl.evaluation.full_precision.full_precision`. Otherwise autocast and TF32 round
    the product to fewer digits.

    Args:
        reference: (M, D) finite embeddings.
    """

    def __init__(self, reference: Tensor) -> None:
        reference = reference + 0.0  # turns -0.0 into 0.0, so that both have the same bits
        self.origin = self._origin(reference)
        distinct, self.columns = reference - self.origin, None
        if may_have_equal_rows(distinct):
            distinct, self.columns = torch.unique(distinct, dim=0, return_inverse=True)
        self.distinct = distinct.T.contiguous()
        self.half_squares = distinct.square().sum(dim=1) / 2

    def __call__(self, query: Tensor, k: int, own_index: Tensor | None = None) -> Tensor:
        """Return the indices of the nearest references.

        Args:
            query: (N, D) embeddings with the dtype and device of the references.
            k: number of references to rank, at most M, or M - 1 with ``own_index``.
            own_index: (N,) index of each query in the reference set, which its ranking leaves out; None if queries are
                not references.

        Returns:
            (N, k) int64 reference indices, nearest first.
        """
        keys = self._keys(query, own_index)
        if k + 1 >= keys.shape[1]:
            return self._sort(keys, k)
        return self._nearest(keys, k)

    def _keys(self, query: Tensor, own_index: Tensor | None) -> Tensor:
        """Return (N, M) values that order each row as the distances do, with infinity at the query itself."""
        keys = torch.addmm(self.half_squares, query - self.origin, self.distinct, alpha=-1)
        if self.columns is not None:
            keys = keys.index_select(1, self.columns)
        if own_index is not None:
            keys.scatter_(1, own_index[:, None], torch.inf)
        return keys

    @staticmethod
    def _nearest(keys: Tensor, k: int) -> Tensor:
        """Return the indices of the k smallest keys of each row in stable order, without sorting the rest."""
        values, indices = keys.topk(k + 1, dim=1, largest=False, sorted=False)
        # topk returns equal values in any order: sort its choice by index first, then stably by value.
        indices, by_index = indices.sort(dim=1)
        values, by_value = values.gather(1, by_index).sort(dim=1, stable=True)
        indices = indices.gather(1, by_value)[:, :k]
        # If the last value kept equals the first one left out, topk may have kept the wrong one of the equal values.
        cut_in_tie = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        if len(cut_in_tie):
            indices[cut_in_tie] = keys[cut_in_tie].sort(dim=1, stable=True).indices[:, :k]
        return indices

    @staticmethod
    def _sort(keys: Tensor, k: int) -> Tensor:
        """Return the indices of the k smallest keys of each row in stable order. This overwrites the keys."""
        if keys.device.type != "cpu":
            return keys.sort(dim=1, stable=True).indices[:, :k]
        # Radix sort: numpy sorts stably by one 16-bit digit at a time, lowest digit first. For 20 rows of 20,000
        # float32 keys, one thread takes 2.5 ms; torch.sort(stable=True) takes 48 ms (float64: 10 and 45 ms). Flipping
        # the bits of negative numbers, except the sign, orders the bits as the keys. No key is -0.0: a sum is -0.0 only
        # if both of its terms are, and half_squares has none.
        num_bits = 8 * keys.element_size()
        bits = keys.view(torch.int32 if num_bits == 32 else torch.int64)
        bits ^= (bits >> (num_bits - 1)).bitwise_and_(~(-1 << (num_bits - 1)))
        order = _stable_argsort(bits.to(torch.int16), np.uint16)
        for shift in range(16, num_bits, 16):
            is_last = shift + 16 == num_bits
            digits = (bits >> shift).to(torch.int16).gather(1, order)
            by_digit = _stable_argsort(digits, np.int16 if is_last else np.uint16)
            order = order.gather(1, by_digit[:, :k] if is_last else by_digit)
        return order

    @staticmethod
    def _origin(reference: Tensor) -> Tensor:
        """Return the point to subtract from all embeddings: 0, or the first reference if the data lie far from 0.

        Far from 0, the squares would cancel and lose digits. A reference is used instead of the mean, because the
        differences of whole numbers are exact, and equal distances stay equal.
        """
        centre = reference.mean(dim=0)
        is_far = centre.square().sum() > reference.var(dim=0, unbiased=False).sum()
        return torch.where(is_far, reference[0], 0.0)


def _stable_argsort(digits: Tensor, dtype: type) -> Tensor:
    """Return the stable argsort of each row of 16-bit numbers."""
    rows: NDArray[Any] = digits.numpy().view(dtype)
    return torch.from_numpy(rows.argsort(axis=1, kind="stable"))
