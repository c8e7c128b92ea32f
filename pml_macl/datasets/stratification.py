"""Splitting a data set so that each part gets its share of every label."""

import math
import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pml_macl.checks import check_integer, check_positive
from pml_macl.labels import check_labels


def stratified_split(labels: Tensor, fractions: Sequence[float] = (0.6, 0.2, 0.2), seed: int = 0) -> Tensor:
    """Split a data set by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011).

    The algorithm assigns the images of one label at a time and starts with the rarest label. It always continues with
    the label that has the fewest unassigned images. Each image goes to the part that lacks the most images of the
    label; on a tie, to the part that lacks the most images overall; on a further tie, to a random one of these parts.
    Images without labels are assigned last.

    Every image is in exactly one part. In each part the count of the rarest label differs by less than one image from
    its exact share. The other labels and the sizes of the parts come close to their shares; not all of them can be met
    at once. Equal arguments give equal splits on every machine. The function saves nothing: pass its result to
    ``write_split``.

    Args:
        labels: (N, C) multi-hot label sets.
        fractions: share of the images in each part, each above 0; they must add up to 1.
        seed: seed of the random order of the images and of the random choice on ties, >= 0.

    Returns:
        (N,) int64: the part of each image as an index into ``fractions``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the labels are not multi-hot, a fraction or the seed is out of range, or the fractions do not add
            up to 1.

    Example:
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> parts = stratified_split(labels, fractions=(0.5, 0.5))
        >>> labels[parts == 0].sum(dim=0), labels[parts == 1].sum(dim=0)
        (tensor([2, 1]), tensor([2, 1]))
    """
    shares = check_fractions(fractions)
    check_integer("seed", seed, 0)
    left = check_labels(labels).cpu().numpy()
    rng = random.Random(seed)  # random() gives the same numbers in all Python versions; numpy's generators may change
    order = np.argsort([rng.random() for _ in left], kind="stable")
    left = left[order]
    parts = np.full(len(left), -1)
    lacking = shares * len(left)  # number of images that each part still lacks
    lacking_of_label = shares[:, None] * left.sum(axis=0)  # the same for each label
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
    """Return the part that lacks most by the first criterion; later criteria break ties, then chance does."""
    candidates = np.arange(len(lacking[0]))
    for values in lacking:
        values = values[candidates]
        candidates = candidates[values > values.max() - 1e-6]  # sums of fractions carry rounding errors
    return int(candidates[0] if len(candidates) == 1 else candidates[int(rng.random() * len(candidates))])


def check_fractions(fractions: Sequence[float]) -> np.ndarray:
    """Return the fractions as an array; raise unless each is above 0 and their sum is 1."""
    if not isinstance(fractions, Sequence) or isinstance(fractions, str):
        raise TypeError(f"fractions must be a sequence of numbers, got {fractions!r}")
    for number, fraction in enumerate(fractions):
        check_positive(f"fractions[{number}]", fraction)
    if not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ValueError(f"fractions must add up to 1, got {fractions!r} with the sum {sum(fractions):g}")
    return np.array(fractions, dtype=float)
