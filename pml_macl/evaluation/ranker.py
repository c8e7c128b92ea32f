"""Ranks a reference set by Euclidean distance, exactly or with the user's function."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pml_macl.evaluation.distinct_rows import rows_that_may_be_equal
from pml_macl.evaluation.query_chunks import references_at_once
from pml_macl.evaluation.retrieval_sets import RetrievalSets
from pml_macl.evaluation.smallest import columns_of_smallest, smallest
from pml_macl.tuning import BLOCK_ELEMENTS, REFERENCES_AT_ONCE


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
    order = torch.as_tensor(knn_func(query, k, reference, sets.ref_includes_query)[1], device=query.device)
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
    product in the dtype of the embeddings computes it, for one block of references after the other if few of them are
    ranked. Two different references may therefore come in either order if their squared distances differ by less than
    the rounding of ``|r|^2``. Equal references always tie, because they share one column of a product.

    The ranker copies only references that lie far from 0 or equal another one, so they may be a file in mapped memory.

    Run the ranker inside :func:`~pml_macl.evaluation.full_precision.full_precision`. Otherwise autocast and TF32 round
    the product to fewer digits.

    Args:
        reference: (M, D) finite embeddings.
    """

    def __init__(self, reference: Tensor) -> None:
        self.origin = self._origin(reference)
        self.reference = reference - self.origin if self.origin.any() else reference
        self.half_squares = _half_squares(self.reference)
        # References that equal another one, and for each of them the index of its embedding among the distinct ones.
        self.repeated = rows_that_may_be_equal(self.reference)
        self.distinct, self.columns = torch.unique(self.reference[self.repeated] + 0.0, dim=0, return_inverse=True)
        self.distinct_half_squares = _half_squares(self.distinct)

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
        num_references, num_distinct = len(self.reference), len(self.distinct)
        width = references_at_once(num_references, k)
        if num_distinct > width and len(query) > 1:  # the keys of the distinct embeddings need more space than a block
            parts = torch.split(torch.arange(len(query)), max(1, len(query) * width // num_distinct))
            return torch.cat([self(query[part], k, None if own_index is None else own_index[part]) for part in parts])
        query = query - self.origin
        distinct_keys = torch.addmm(self.distinct_half_squares, query, self.distinct.T, alpha=-1)
        if k + 1 >= num_references:
            return self._sort(self._keys(query, distinct_keys, own_index, 0, num_references), k)
        values, indices = query.new_empty(len(query), 0), self.repeated.new_empty(len(query), 0)
        for start in range(0, num_references, width):
            keys = self._keys(query, distinct_keys, own_index, start, min(start + width, num_references))
            found, columns = smallest(keys, min(k + 1, keys.shape[1]))
            values, indices = torch.cat([values, found], dim=1), torch.cat([indices, columns + start], dim=1)
            if values.shape[1] > k + 1:
                kept = columns_of_smallest(values, k + 1)
                values, indices = values.gather(1, kept), indices.gather(1, kept)
        # topk returns equal values in any order: sort its choice by index first, then stably by value.
        indices, by_index = indices.sort(dim=1)
        values, by_value = values.gather(1, by_index).sort(dim=1, stable=True)
        indices = indices.gather(1, by_value)[:, :k]
        # If the last value kept equals the first one left out, topk may have kept the wrong one of the equal values.
        cut_in_tie = (values[:, k - 1] == values[:, k]).nonzero().squeeze(1)
        for rows in torch.split(cut_in_tie, max(1, BLOCK_ELEMENTS // num_references)):
            own = None if own_index is None else own_index[rows]
            indices[rows] = self._sort(self._keys(query[rows], distinct_keys[rows], own, 0, num_references), k)
        return indices

    def _keys(self, query: Tensor, distinct_keys: Tensor, own_index: Tensor | None, start: int, stop: int) -> Tensor:
        """Return values that order the references ``start`` to ``stop`` of each query as the distances do.

        Args:
            query: (N, D) embeddings relative to the origin.
            distinct_keys: (N, distinct embeddings) values of the references that equal another one.
            own_index: (N,) index of each query in the reference set, where the value is infinity.
            start: first reference.
            stop: reference after the last one.
        """
        keys = torch.addmm(self.half_squares[start:stop], query, self.reference[start:stop].T, alpha=-1)
        if len(self.repeated):
            first, last = torch.searchsorted(self.repeated, self.repeated.new_tensor([start, stop])).tolist()
            keys[:, self.repeated[first:last] - start] = distinct_keys.index_select(1, self.columns[first:last])
        if own_index is not None:
            place = (own_index - start)[:, None]
            inside = (place >= 0) & (place < stop - start)
            place = place.clamp(0, stop - start - 1)
            keys.scatter_(1, place, keys.gather(1, place).masked_fill(inside, torch.inf))
        return keys

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
        """Return the point to subtract from all embeddings: 0, or a central reference if the data lie far from 0.

        Far from 0, the squares would cancel and lose digits. A reference is used instead of the mean, because the
        differences of whole numbers are exact, and equal distances stay equal.
        """
        centre, half_squares = reference.mean(dim=0), _half_squares(reference)
        is_far = centre.square().sum() > half_squares.mean()  # centre exceeds spread
        nearest = (half_squares - reference @ centre).argmin(dim=0, keepdim=True)
        return torch.where(is_far, reference[nearest][0], 0.0)


def _half_squares(rows: Tensor) -> Tensor:
    """Return half the squared norm of each row, without a copy of all rows."""
    return torch.cat([part.square().sum(dim=1) / 2 for part in torch.split(rows, REFERENCES_AT_ONCE)])


def _stable_argsort(digits: Tensor, dtype: type) -> Tensor:
    """Return the stable argsort of each row of 16-bit numbers."""
    rows: NDArray[Any] = digits.numpy().view(dtype)
    return torch.from_numpy(rows.argsort(axis=1, kind="stable"))
