"""What the metrics need to know about a chunk of ranked queries."""

from functools import cached_property

import torch
from torch import Tensor

from pml_macl.evaluation.average_precision import average_precision
from pml_macl.evaluation.reference_labels import ReferenceLabels


class RankedQueries:
    """A chunk of queries with their ranked references; every property is computed when first asked for.

    Args:
        order: (N, k) int64 reference index at each rank; -1 where an approximate search found none.
        labels: (N, C) boolean label sets of the queries.
        references: label sets of the reference set.
        num_relevant: (N,) int64 relevant references of the whole reference set, the query itself left out.
        own_index: (N,) index of each query in the reference set; None where queries are not references.
        gain: ``"shared"`` or ``"jaccard"``, the gain of a reference.
        ap_denominator: as in :func:`~pml_macl.evaluation.average_precision`.
        max_elements: how many elements a temporary tensor may have.
    """

    def __init__(
        self,
        order: Tensor,
        labels: Tensor,
        references: ReferenceLabels,
        num_relevant: Tensor,
        own_index: Tensor | None = None,
        gain: str = "shared",
        ap_denominator: str = "relevant",
        max_elements: int = 2**22,
    ) -> None:
        self.order = order
        self.labels = labels
        self.references = references
        self.num_relevant = num_relevant
        self.own_index = own_index
        self.gain = gain
        self.ap_denominator = ap_denominator
        self.max_elements = max_elements

    @cached_property
    def codes(self) -> Tensor:
        """(N, k) which of the distinct label sets stands at each rank."""
        return self.references.codes[self.order]

    @cached_property
    def relevance(self) -> Tensor:
        """(N, k) whether the reference at each rank is relevant."""
        return self.references.is_relevant(*self._overlap).gather(1, self.codes) & (self.order >= 0)

    @cached_property
    def gains(self) -> Tensor:
        """(N, k) gain at each rank."""
        return self._gain_of_sets.gather(1, self.codes) * (self.order >= 0)

    @cached_property
    def ideal_gains(self) -> Tensor:
        """(N, k) largest gains of the whole reference set, descending."""
        counts = self.references.multiplicity.long().expand(len(self.labels), -1)
        if self.own_index is not None:
            own_code = self.references.codes[self.own_index, None]
            counts = counts.scatter_add(1, own_code, torch.full_like(own_code, -1))
        gains, by_gain = self._gain_of_sets.sort(dim=1, descending=True)
        last_rank = counts.gather(1, by_gain).cumsum(dim=1)
        ranks = torch.arange(1, 1 + self.order.shape[1], device=self.order.device)
        return gains.gather(1, torch.searchsorted(last_rank, ranks.expand(len(gains), -1).contiguous()))

    @cached_property
    def label_average_precision(self) -> Tensor:
        """(N, C) float64 average precision for each label: relevant is what carries it; NaN off the query's labels."""
        queries, classes = self.labels.nonzero(as_tuple=True)
        values = torch.full(self.labels.shape, torch.nan, dtype=torch.float64, device=self.labels.device)
        num_relevant = self.references.label_counts - int(self.own_index is not None)
        carries = self.references.sets.T.contiguous()
        pairs_at_once = max(1, self.max_elements // self.order.shape[1])
        for query, label in zip(torch.split(queries, pairs_at_once), torch.split(classes, pairs_at_once), strict=True):
            relevance = carries[label].gather(1, self.codes[query]) & (self.order[query] >= 0)
            values[query, label] = average_precision(relevance, num_relevant[label], self.ap_denominator)
        return values

    @cached_property
    def _overlap(self) -> tuple[Tensor, Tensor]:
        """Shared label counts and Jaccard similarities of the queries with the distinct label sets."""
        return self.references.overlap(self.labels)

    @cached_property
    def _gain_of_sets(self) -> Tensor:
        shared, jaccard = self._overlap
        return shared if self.gain == "shared" else jaccard
