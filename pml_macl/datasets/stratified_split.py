"""A split that gives every part its share of each label."""

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pml_macl.labels import check_labels


def stratified_split(labels: Tensor, fractions: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0) -> Tensor:
    """Iterative stratification of multi-labels (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011).

    The label with the fewest images left is dealt out first, so that rare labels are not left to chance: each of its
    images goes to the part that still lacks most images of that label, on a tie to the part that lacks most images
    at all, on a further tie to a random one. Images without labels fill up the parts in the end.

    Every image is in exactly one part, and each part has the label that is rarest of all to within one image of its
    fraction. The other labels and the sizes of the parts come close to theirs, which cannot all be met at once.
    Equal arguments give equal splits, on every machine.

    Args:
        labels: (N, C) multi-hot label sets.
        fractions: share of the images in each part, each above 0; their sum is 1.
        seed: of the random order of the images and of ties, >= 0.

    Returns:
        (N,) int64, the part of each image: an index into ``fractions``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the labels are not multi-hot, a fraction or the seed is out of range, or the sum is not 1.

    Example:
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> parts = stratified_split(labels, fractions=(0.5, 0.5))
        >>> labels[parts == 0].sum(dim=0), labels[parts == 1].sum(dim=0)
        (tensor([2, 1]), tensor([2, 1]))
    """
    shares = check_fractions(fractions)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    left = check_labels(labels).cpu().numpy()
    rng = random.Random(seed)  # its random() gives the same numbers in all versions, unlike numpy's generators
    order = np.argsort([rng.random() for _ in left], kind="stable")
    left = left[order]
    parts = np.full(len(left), -1)
    lacking = shares * len(left)  # images that each part still lacks
    lacking_of_label = shares[:, None] * left.sum(axis=0)  # the same of each label
    counts = left.sum(axis=0)
    while counts.any():
        label = np.where(counts > 0, counts, len(left) + 1).argmin()
        for row in np.flatnonzero(left[:, label] & (parts < 0)):
            part = neediest(rng, lacking_of_label[:, label], lacking)
            parts[row] = part
            lacking[part] -= 1
            lacking_of_label[part] -= left[row]
            counts -= left[row]
    for row in np.flatnonzero(parts < 0):
        parts[row] = part = neediest(rng, lacking)
        lacking[part] -= 1
    result = np.empty_like(parts)
    result[order] = parts
    return torch.from_numpy(result)


def neediest(rng: random.Random, *lacking: np.ndarray) -> int:
    """The part that lacks most by the first criterion, among equals by the next, among equals of all a random one."""
    candidates = np.arange(len(lacking[0]))
    for values in lacking:
        values = values[candidates]
        candidates = candidates[values > values.max() - 1e-6]  # differences of sums of fractions are not exact
    return int(candidates[0] if len(candidates) == 1 else candidates[int(rng.random() * len(candidates))])


def check_fractions(fractions: Sequence[float]) -> np.ndarray:
    """The fractions as an array; TypeError or ValueError unless each is above 0 and the sum is 1."""
    numbers = list(fractions) if isinstance(fractions, Sequence) and not isinstance(fractions, str) else [None]
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"fractions must be a sequence of numbers, got {fractions!r}")
    if not numbers or not all(number > 0 for number in numbers) or not math.isclose(sum(numbers), 1, abs_tol=1e-6):
        raise ValueError(f"fractions must be above 0 and add up to 1, got {fractions!r}")
    return np.array(numbers, dtype=float)
