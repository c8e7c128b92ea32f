"""Collects the values of metrics over query chunks."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pml_macl.tuning import BLOCK_ELEMENTS


class MetricAccumulator:
    """Collects the values of one metric and computes their means. Means leave out NaN.

    Args:
        labels: (Q, C) boolean label sets of all queries.
        has_label_values: whether the metric has one value per query and label instead of one per query.
    """

    def __init__(self, labels: Tensor, has_label_values: bool) -> None:
        self.labels = labels
        self.has_label_values = has_label_values
        num_queries, num_classes = labels.shape
        if has_label_values:  # keep only sums: all values would take Q x C x 8 bytes
            self.sums = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
            self.counts = torch.zeros(num_classes, dtype=torch.long, device=labels.device)
        else:
            self.values = torch.full((num_queries,), torch.nan, dtype=torch.float64, device=labels.device)

    def add(self, rows: Tensor, values: Tensor) -> None:
        """Add the values of some queries.

        Args:
            rows: (N,) index of each query.
            values: (N,), or (N, C) with ``has_label_values``.
        """
        if self.has_label_values:
            self._add_to_sums(values)
        else:
            self.values[rows] = values.double()

    def mean(self) -> float:
        """Return the mean over queries; for a metric with values per label, the mean over labels."""
        return self.mean_over_labels() if self.has_label_values else self.values.nanmean().item()

    def mean_over_labels(self) -> float:
        """Return the mean of :meth:`label_means`."""
        return self.label_means().nanmean().item()

    def label_means(self) -> Tensor:
        """Return the (C,) float64 means over the queries that carry each label; NaN for a label without queries."""
        if self.has_label_values:
            return self.sums / self.counts
        means = MetricAccumulator(self.labels, has_label_values=True)
        rows_at_once = max(1, BLOCK_ELEMENTS // max(1, self.labels.shape[1]))
        blocks = zip(torch.split(self.labels, rows_at_once), torch.split(self.values, rows_at_once), strict=True)
        for labels, values in blocks:
            means._add_to_sums(torch.where(labels, values[:, None], torch.nan))
        return means.label_means()

    def _add_to_sums(self, values: Tensor) -> None:
        self.sums += values.nansum(dim=0)
        self.counts += (~values.isnan()).sum(dim=0)


def accumulate(
    labels: Tensor, chunks: Iterable[Tensor], results: Iterable[Mapping[str, Tensor]]
) -> dict[str, MetricAccumulator]:
    """Collect each metric of several chunks.

    Args:
        labels: (Q, C) boolean label sets of all queries.
        chunks: (N,) query indices of each chunk.
        results: (N,) or (N, C) values of each metric, by name, for each chunk.
    """
    metrics: dict[str, MetricAccumulator] = {}
    for rows, values in zip(chunks, results, strict=True):
        for name, value in values.items():
            if name not in metrics:
                metrics[name] = MetricAccumulator(labels, has_label_values=value.ndim == 2)
            metrics[name].add(rows, value)
    return metrics
