"""The label sets of a reference set, each distinct one kept once."""

import torch
from torch import Tensor

from pml_macl.labels import label_overlap


class ReferenceLabels:
    """Label sets of the references, compared with those of queries once a distinct set and not once a reference.

    Args:
        labels: (M, C) boolean label sets.
        dtype: floating-point type of the comparisons.
        relevance_threshold: Jaccard similarity from which a reference that shares a label is relevant.

    Attributes:
        sets: (S, C) the distinct label sets.
        codes: (M,) which of them each reference carries.
        multiplicity: (S,) float64, how many references carry each.
        label_counts: (C,) int64, how many references carry each label.
    """

    def __init__(self, labels: Tensor, dtype: torch.dtype, relevance_threshold: float = 0.0) -> None:
        self.sets: Tensor
        self.codes: Tensor
        self.sets, self.codes, multiplicity = torch.unique(labels, dim=0, return_inverse=True, return_counts=True)
        self.multiplicity = multiplicity.double()  # a product of integers is exact in float64, whatever TF32 is set to
        self.label_counts = labels.sum(dim=0)
        self.dtype = dtype
        self.relevance_threshold = relevance_threshold

    def overlap(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Shared label counts and Jaccard similarities of (N, C) label sets with the distinct ones, (N, S) each."""
        return label_overlap(labels, self.sets, self.dtype)

    def is_relevant(self, shared: Tensor, jaccard: Tensor) -> Tensor:
        """Whether pairs with this overlap are relevant to each other."""
        return (shared >= 1) & (jaccard >= self.relevance_threshold)

    def count_relevant(self, labels: Tensor, includes_query: bool) -> Tensor:
        """(N,) int64 number of references that are relevant to label sets, less the query itself where included."""
        is_relevant = self.is_relevant(*self.overlap(labels))
        counts: Tensor = (is_relevant.double() @ self.multiplicity).long()
        return counts - labels.any(dim=1).long() if includes_query else counts
