"""Compares the label sets of queries with those of the references."""

from functools import cached_property

import torch
from torch import Tensor

from pml_macl.evaluation.distinct_rows import distinct_label_sets
from pml_macl.labels import count_product, jaccard_from_counts
from pml_macl.tuning import DENSE_LABELS


class ReferenceLabels:
    """Compares label sets with each distinct label set of the references, instead of with each reference.

    The last of the S distinct sets is empty. It stands for a reference that an approximate search did not find.

    Args:
        labels: (M, C) boolean label sets of the references.
        dtype: floating-point type of the comparisons.
        relevance_threshold: smallest Jaccard similarity at which a reference that shares a label is relevant.

    Attributes:
        carries: (C, S) whether the label belongs to the distinct set.
        codes: (M + 1,) int64 index of each reference's set; the last one is the index of the empty set.
        multiplicity: (S,) float64 number of references that have the set.
        sizes: (S,) int64 number of labels of the set.
        label_counts: (C,) int64 number of references that carry the label.
    """

    def __init__(self, labels: Tensor, dtype: torch.dtype, relevance_threshold: float = 0.0) -> None:
        sets, codes, multiplicity = distinct_label_sets(labels)
        self.carries = torch.cat([sets, sets.new_zeros(1, labels.shape[1])]).T.contiguous()
        self.codes = torch.cat([codes, codes.new_full((1,), len(sets))])
        # float64, because float32 does not represent all counts of references exactly.
        self.multiplicity = torch.cat([multiplicity, multiplicity.new_zeros(1)]).double()
        self.sizes = _count(self.carries)
        self.label_counts = _count(labels)
        self.dtype = dtype
        self.relevance_threshold = relevance_threshold

    @property
    def num_sets(self) -> int:
        """Number of distinct sets S."""
        return len(self.sizes)

    def shared(self, labels: Tensor) -> Tensor:
        """Return the (N, S) numbers of labels that (N, C) label sets share with each distinct set."""
        if labels.shape[1] <= DENSE_LABELS:
            return count_product(labels, self.carries).to(self.dtype)
        shared: Tensor = torch.sparse.mm(self._sparse_sets, labels.T.to(self.dtype))
        return shared.T.contiguous()

    def jaccard(self, labels: Tensor, shared: Tensor) -> Tensor:
        """Return the (N, S) Jaccard similarities of (N, C) label sets with each distinct set."""
        return jaccard_from_counts(shared, labels.sum(dim=1, dtype=self.dtype), self.sizes)

    def relevance(self, labels: Tensor, shared: Tensor) -> Tensor:
        """Return (N, S) whether references with each distinct set are relevant to queries with (N, C) label sets."""
        if self.relevance_threshold == 0:
            return shared >= 1
        return self.jaccard(labels, shared) >= self.relevance_threshold

    def count_relevant(self, labels: Tensor) -> Tensor:
        """Return the (N,) int64 number of references that are relevant to queries with (N, C) label sets."""
        counts: Tensor = self.relevance(labels, self.shared(labels)).double() @ self.multiplicity
        return counts.long()

    @cached_property
    def _sparse_sets(self) -> Tensor:
        """(S, C) the distinct label sets as a sparse matrix."""
        return self.carries.T.to_sparse().to(self.dtype)


def _count(booleans: Tensor) -> Tensor:
    """Count True in each column. ``torch.sum`` would first convert the whole matrix to int64."""
    return torch.bincount(booleans.nonzero()[:, 1], minlength=booleans.shape[1])
