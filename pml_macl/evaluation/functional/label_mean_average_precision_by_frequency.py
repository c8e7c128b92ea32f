"""Label mean average precision of rare, middle and frequent labels."""

import torch
from torch import Tensor


def label_mean_average_precision_by_frequency(label_average_precision: Tensor, counts: Tensor) -> Tensor:
    """Compute the label mean average precision of the rarest, the middle and the most frequent third of the labels.

    The labels that have a value are sorted by count, and by class index at equal counts, and split into thirds. If
    their number is not a multiple of 3, tail and head have the same size, and the middle has one label more or fewer.

    Args:
        label_average_precision: (classes,) mean average precision of each label; NaN for a label without a value.
        counts: (classes,) number of occurrences of each label.

    Returns:
        (3,) float64 mean of the rarest third (tail), the middle, and the most frequent third (head); NaN for a third
        without labels.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> values = torch.tensor([0.9, 0.7, 0.5, 0.3], dtype=torch.float64)
        >>> label_mean_average_precision_by_frequency(values, torch.tensor([40, 30, 20, 10]))
        tensor([0.3000, 0.6000, 0.9000], dtype=torch.float64)
    """
    if label_average_precision.ndim != 1 or label_average_precision.shape != counts.shape:
        raise ValueError(
            "label_average_precision and counts must both have one value per class, shape (classes,), "
            f"got {tuple(label_average_precision.shape)} and {tuple(counts.shape)}"
        )
    thirds = frequency_thirds(counts, ~label_average_precision.isnan())
    values = label_average_precision.double()
    return torch.stack([values[thirds == third].mean() for third in range(3)])


def frequency_thirds(counts: Tensor, considered: Tensor) -> Tensor:
    """Return (classes,) 0, 1 or 2 for a label of the rarest, middle or most frequent third, -1 if not considered."""
    by_count = counts.argsort(stable=True)
    by_count = by_count[considered[by_count]]
    thirds = torch.full_like(counts, -1, dtype=torch.long)
    places = torch.arange(len(by_count), device=counts.device)
    thirds[by_count] = (6 * places + 3) // (2 * len(by_count))  # the third that contains place + 1/2
    return thirds
