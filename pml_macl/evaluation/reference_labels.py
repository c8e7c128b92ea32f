"""The label sets of a reference set, each distinct one kept once."""

from functools import cached_property

import torch
from torch import Tensor

from pml_macl.evaluation.distinct_rows import distinct_label_sets
from pml_macl.labels import count_product, jaccard_from_counts
from pml_macl.tuning import DENSE_LABELS


class ReferenceLabels:
    """Label sets of the references, compared with those of queries once per distinct set instead of once per reference.

    Args:
        labels: (M, C) boolean label sets.
        dtype: floating-point type of the comparisons.
        relevance_threshold: smallest Jaccard similarity at which a reference that shares a label is relevant.

    Attributes:
        carries: (C, S) whether the distinct label set has the label; the last set is empty.
        codes: (M + 1,) index of each reference's label set; the last is that of a reference not found, the empty set.
        multiplicity: (S,) float64, how many references have each label set.
        sizes: (S,) int64, how many labels each label set has.
        label_counts: (C,) int64, how many references carry each label.
    """

    def __init__(self, labels: Tensor, dtype: torch.dtype, relevance_threshold: float = 0.0) -> None:
        sets, codes, multiplicity = distinct_label_sets(labels)
        self.carries = torch.cat([sets, sets.new_zeros(1, labels.shape[1])]).T.contiguous()
        self.codes = torch.cat([codes, codes.new_full((1,), len(sets))])
        # In float64, since counts of references can exceed what float32 represents exactly.
        self.multiplicity = torch.cat([multiplicity, multiplicity.new_zeros(1)]).double()
        self.sizes = _count(self.carries)
        self.label_counts = _count(labels)
        self.dtype = dtype
        self.relevance_threshold = relevance_threshold

    def of_references(self, values: Tensor) -> Tensor:
        """(N, M + 1) values per reference from (N, S) per distinct set; the last is for a reference not found."""
        return values.index_select(-1, self.codes)

    def shared(self, labels: Tensor) -> Tensor:
        """(N, S) how many labels (N, C) label sets share with each distinct set."""
        if labels.shape[1] <= DENSE_LABELS:
            return count_product(labels, self.carries).to(self.dtype)
        shared: Tensor = torch.sparse.mm(self._sparse_sets, labels.T.to(self.dtype))
        return shared.T.contiguous()

    def jaccard(self, labels: Tensor, shared: Tensor) -> Tensor:
        """(N, S) Jaccard similarity of (N, C) label sets with each distinct set."""
        return jaccard_from_counts(shared, labels.sum(dim=1, dtype=self.dtype), self.sizes)

    def relevance(self, labels: Tensor, shared: Tensor) -> Tensor:
        """(N, S) whether the references that carry a distinct set are relevant to (N, C) label sets."""
        if self.relevance_threshold == 0:
            return shared >= 1
        return self.jaccard(labels, shared) >= self.relevance_threshold

    def count_relevant(self, labels: Tensor) -> Tensor:
        """(N,) int64 number of references that are relevant to (N, C) label sets."""
        counts: Tensor = self.relevance(labels, self.shared(labels)).double() @ self.multiplicity
        return counts.long()

    @cached_property
    def _sparse_sets(self) -> Tensor:
        """(S, C) the distinct label sets."""
        return self.carries.T.to_sparse().to(self.dtype)


def _count(booleans: Tensor) -> Tensor:
    """Number of True in each column; torch's ``sum`` would convert the whole matrix to int64 first."""
    return torch.bincount(booleans.nonzero()[:, 1], minlength=booleans.shape[1])
