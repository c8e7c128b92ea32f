"""Ranks the references for some queries and computes the metrics of these queries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pml_macl.evaluation.ranked_queries import RankedQueries
from pml_macl.evaluation.reference_labels import ReferenceLabels
from pml_macl.evaluation.retrieval_sets import RetrievalSets

MetricFunction = Callable[[RankedQueries], Tensor]


@dataclass(frozen=True)
class Measurement:
    """Computes the values of several metrics from one ranking.

    Args:
        sets: queries and references.
        references: label sets of the references.
        functions: metric functions by name.
        rank: returns the (N, k) reference indices, nearest first, of the (N,) queries with the given indices.
        num_relevant: (Q,) int64 number of relevant references of each query, without the query itself.
        thirds: (C,) third of the label frequencies that each label belongs to, as in :class:`RankedQueries`.
        max_elements: largest number of elements of a temporary tensor.
        gain: as in :class:`RankedQueries`.
        ap_denominator: as in :class:`RankedQueries`.
    """

    sets: RetrievalSets
    references: ReferenceLabels
    functions: Mapping[str, MetricFunction]
    rank: Callable[[Tensor], Tensor]
    num_relevant: Tensor
    thirds: Tensor
    max_elements: int
    gain: str
    ap_denominator: str

    def __call__(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the values of each metric, (N,) or (N, C), for the (N,) queries with the given indices.

        Where a metric has one value per query, queries without a relevant reference get NaN.
        """
        ranking = RankedQueries(
            self.rank(rows),
            self.sets.query_labels[rows],
            self.references,
            self.num_relevant[rows],
            self.num_relevant.max(),
            self.thirds,
            self.max_elements,
            own_index=rows if self.sets.ref_includes_query else None,
            gain=self.gain,
            ap_denominator=self.ap_denominator,
        )
        results = {name: function(ranking) for name, function in self.functions.items()}
        is_lone = ranking.num_relevant == 0
        return {name: v.double().masked_fill(is_lone, torch.nan) if v.ndim == 1 else v for name, v in results.items()}
