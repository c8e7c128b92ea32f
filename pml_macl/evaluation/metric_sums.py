"""Adds up the values of metrics over query chunks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class MetricSums:
    """Adds up the values of metrics over queries, and divides the sums into means. NaN does not count.

    Args:
        names: names of the metrics.
        num_classes: number of classes C.
        device: device of the values.

    Attributes:
        totals: (2, metrics, C + 1) float64 sums and numbers of values over the queries that carry each label; the last
            column is over all queries and stays 0 for a metric with one value per query and label. Several processes
            that add up their ``totals`` have those of all queries.
    """

    def __init__(self, names: Sequence[str], num_classes: int, device: torch.device) -> None:
        self.rows = {name: row for row, name in enumerate(names)}
        self.totals = torch.zeros(2, len(self.rows), num_classes + 1, dtype=torch.float64, device=device)

    def add(self, labels: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add some queries.

        Args:
            labels: (N, C) boolean label sets of the queries.
            values: (N,) or (N, C) values of each metric.
        """
        columns = torch.nn.functional.pad(labels, (0, 1), value=True).double()
        for name, value in values.items():
            is_known = ~value.isnan()
            known = value.masked_fill(~is_known, 0).double()
            if value.ndim == 1:
                found = torch.stack([known, is_known.double()]) @ columns
            else:
                found = torch.nn.functional.pad(torch.stack([known.sum(dim=0), is_known.sum(dim=0)]), (0, 1))
            self.totals[:, self.rows[name]] += found

    def mean(self, name: str) -> float:
        """Return the mean over queries; for a metric with values per label, the mean over labels."""
        total, count = self.totals[:, self.rows[name], -1].tolist()
        return total / count if count else self.mean_over_labels(name)

    def mean_over_labels(self, name: str) -> float:
        """Return the mean of :meth:`label_means`."""
        return self.label_means(name).nanmean().item()

    def label_means(self, name: str) -> Tensor:
        """Return the (C,) float64 means over the queries that carry each label; NaN for a label without queries."""
        sums, counts = self.totals[:, self.rows[name], :-1]
        means: Tensor = sums / counts
        return means
