"""Relevance, gains and label counts of a chunk of ranked queries."""

from functools import cached_property

import torch
from torch import Tensor

from pml_macl.evaluation.distinct_rows import distinct_label_sets
from pml_macl.evaluation.functional.average_precision import average_precision
from pml_macl.evaluation.reference_labels import ReferenceLabels
from pml_macl.evaluation.smallest import smallest


class RankedQueries:
    """A chunk of queries with their ranked references. Each property is computed on first use.

    Args:
        order: (N, k) int64 reference index at each rank; M if an approximate search found no reference.
        labels: (N, C) boolean label sets of the queries. Equal ones are compared with the references once.
        references: label sets of the reference set.
        num_relevant: (N,) int64 number of relevant references in the whole reference set, without the query itself.
        max_relevant: () int64 the largest such number over all queries, including those of other chunks.
        thirds: (C,) 0, 1 or 2 for a label of the rarest, middle or most frequent third; -1 for a label without a value.
        max_elements: largest number of elements of a temporary tensor.
        own_index: (N,) index of each query in the reference set; None if queries are not references.
        gain: gain of a reference: ``"shared"`` or ``"jaccard"``.
        ap_denominator: as in :func:`~pml_macl.evaluation.average_precision`.
    """

    def __init__(
        self,
        order: Tensor,
        labels: Tensor,
        references: ReferenceLabels,
        num_relevant: Tensor,
        max_relevant: Tensor,
        thirds: Tensor,
        max_elements: int,
        own_index: Tensor | None = None,
        gain: str = "shared",
        ap_denominator: str = "relevant",
    ) -> None:
        self.order = order
        self.labels = labels
        self.references = references
        self.num_relevant = num_relevant
        self.max_relevant = max_relevant
        self.thirds = thirds
        self.own_index = own_index
        self.gain = gain
        self.ap_denominator = ap_denominator
        self.max_elements = max_elements
        self._distinct, self._row, _ = distinct_label_sets(labels)

    @property
    def k(self) -> int:
        """Number of references that are ranked."""
        return self.order.shape[1]

    @cached_property
    def relevance(self) -> Tensor:
        """(N, k) whether the reference at each rank is relevant."""
        return self._at_ranks(self.references.relevance(self._distinct, self._shared))

    def relevance_at(self, num_ranks: int) -> Tensor:
        """Return the (N, num_ranks) relevance at the first ranks. Ranks without a reference are not relevant."""
        return torch.nn.functional.pad(self.relevance[:, :num_ranks], (0, max(0, num_ranks - self.k)))

    @cached_property
    def shared(self) -> Tensor:
        """(N, k) number of labels that the query and the reference at each rank share."""
        return self._at_ranks(self._shared)

    @cached_property
    def query_sizes(self) -> Tensor:
        """(N,) int64 number of labels of each query."""
        return self.labels.sum(dim=1)

    @cached_property
    def reference_sizes(self) -> Tensor:
        """(N, k) int64 number of labels of the reference at each rank."""
        return _take(self.references.sizes, self._sets)

    @cached_property
    def gains(self) -> Tensor:
        """(N, k) gain of the reference at each rank."""
        return self.shared if self.gain == "shared" else self._at_ranks(self._gain)

    @cached_property
    def ideal_gains(self) -> Tensor:
        """(N, k) largest gains of the whole reference set, descending."""
        # The query itself is among the references with the largest gain: take one gain more and drop the first.
        own = int(self.own_index is not None)
        num_gains = self.k + own
        # Each set has at least one reference, except the last one, so this many sets have enough references.
        gains, sets = _largest(self._gain, num_gains + 1)
        ranks = self.references.multiplicity.long()[sets].cumsum(dim=1).clamp(max=num_gains)
        copies = ranks.diff(dim=1, prepend=ranks.new_zeros(len(ranks), 1))
        copied = gains.flatten().repeat_interleave(copies.flatten(), output_size=len(gains) * num_gains)
        return copied.view(len(gains), num_gains)[self._row, own:]

    @cached_property
    def label_average_precision(self) -> Tensor:
        """(N, C) float64 average precision for each label, if the references that carry the label are relevant.

        Labels that the query does not carry, and labels that no other reference carries, have NaN.
        """
        queries, classes = self.labels.nonzero(as_tuple=True)
        values = torch.full(self.labels.shape, torch.nan, dtype=torch.float64, device=self.labels.device)
        num_relevant = self.references.label_counts - int(self.own_index is not None)
        carries, num_sets = self.references.carries, self.references.num_sets
        pairs_at_once = max(1, self.max_elements // self.k)
        for query, label in zip(torch.split(queries, pairs_at_once), torch.split(classes, pairs_at_once), strict=True):
            relevance = _take(carries, self._sets.index_select(0, query) + num_sets * label[:, None])
            values[query, label] = average_precision(relevance, num_relevant[label], self.ap_denominator)
        return values

    def _at_ranks(self, values: Tensor) -> Tensor:
        """Turn values of distinct query sets x distinct reference sets into (N, k) values of queries x ranks."""
        return _take(values, self._cells)

    @cached_property
    def _sets(self) -> Tensor:
        """(N, k) index of the distinct set of the reference at each rank."""
        return _take(self.references.codes, self.order)

    @cached_property
    def _cells(self) -> Tensor:
        """(N, k) flat index of query set and reference set at each rank."""
        return self._sets + self.references.num_sets * self._row[:, None]

    @cached_property
    def _shared(self) -> Tensor:
        return self.references.shared(self._distinct)

    @cached_property
    def _gain(self) -> Tensor:
        return self._shared if self.gain == "shared" else self.references.jaccard(self._distinct, self._shared)


def _take(values: Tensor, cells: Tensor) -> Tensor:
    """Return the elements of a tensor at flat indices, faster than ``torch.take``."""
    return values.flatten().index_select(0, cells.flatten()).view(cells.shape)


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row, descending, and their columns: k of them, or all if there are fewer."""
    negative, columns = smallest(-values, min(k, values.shape[1]))
    negative, order = negative.sort(dim=1)
    return -negative, columns.gather(1, order)
