"""Collects the values of one metric over query chunks."""

import torch
from torch import Tensor


class MetricAccumulator:
    """Values of one metric, a query or a query and label at a time, and their means.

    Args:
        num_queries: Q.
        num_classes: C.
        by_label: keep the means per label for metrics with one value a query, too.
        device: where the values are.
    """

    def __init__(self, num_queries: int, num_classes: int, by_label: bool, device: torch.device) -> None:
        self.by_label = by_label
        self.values = torch.full((num_queries,), torch.nan, dtype=torch.float64, device=device)
        self.label_sums = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.label_counts = torch.zeros(num_classes, dtype=torch.long, device=device)

    def add(self, rows: Tensor, values: Tensor, labels: Tensor) -> None:
        """Take the values of some queries.

        Args:
            rows: (N,) index of each query.
            values: (N,) a query, or (N, C) a query and label; NaN is left out of every mean.
            labels: (N, C) boolean label sets of the queries.
        """
        if values.ndim == 1:
            self.values[rows] = values
            if not self.by_label:
                return
            values = torch.where(labels, values[:, None], torch.nan)
        self.by_label = True
        self.label_sums += values.nansum(dim=0)
        self.label_counts += (~values.isnan()).sum(dim=0)

    def mean(self) -> float:
        """Mean over labels of the means per label where these are kept, else over queries."""
        return (self.label_means() if self.by_label else self.values).nanmean().item()

    def label_means(self) -> Tensor:
        """(C,) float64 mean over the queries that carry the label; NaN for a label without queries."""
        return self.label_sums / self.label_counts
