"""Splitting a data set so that each part gets its share of every label."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pml_macl.checks import check_integer, check_positive
from pml_macl.labels import check_labels


def stratified_split(
    labels: Tensor,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    groups: Sequence[str] | Sequence[int] | NDArray[Any] | Tensor | None = None,
) -> Tensor:
    """Split a data set by iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011).

    The algorithm assigns the images of one label at a time and starts with the rarest label. It always continues with
    the label that has the fewest unassigned images. Each image goes to the part that lacks the most images of the
    label; on a tie, to the part that lacks the most images overall; on a further tie, to a random one of these parts.
    Images without labels are assigned last.

    Every image is in exactly one part. Without ``groups``, the count of the rarest label in each part differs by less
    than one image from its exact share. The other labels and the sizes of the parts come close to their shares; not
    all of them can be met at once. Equal arguments give equal splits on every machine. The function saves nothing:
    pass its result to ``write_split``.

    With ``groups``, the algorithm assigns whole groups instead of single images. A group of n images counts as n
    images, and for each label as the number of its images with that label. The larger the groups, the further the parts
    can be from their shares.

    Args:
        labels: (N, C) multi-hot label sets.
        fractions: share of the images in each part, each above 0; they must add up to 1.
        seed: seed of the random order of the images and of the random choice on ties, >= 0.
        groups: the group of each image, as N strings or N integers, such as the tile that a patch was cut from. All
            images of a group go to the same part. None makes each image a group of its own.

    Returns:
        (N,) int64: the part of each image as an index into ``fractions``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the labels are not multi-hot, a fraction or the seed is out of range, the fractions do not add up
            to 1, or ``groups`` has a wrong length, an empty name or fewer groups than there are parts.

    Example:
        >>> labels = torch.tensor([[1, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
        >>> parts = stratified_split(labels, fractions=(0.5, 0.5))
        >>> labels[parts == 0].sum(dim=0), labels[parts == 1].sum(dim=0)
        (tensor([2, 1]), tensor([2, 1]))
        >>> stratified_split(labels, fractions=(0.5, 0.5), groups=["a", "b", "b", "a", "c", "d"])
        tensor([1, 0, 0, 1, 0, 1])
    """
    shares = check_fractions(fractions)
    seed = check_integer("seed", seed, 0)
    labels = check_labels(labels).cpu()
    group_of = np.arange(len(labels)) if groups is None else number_groups(groups, len(labels), len(shares))
    sizes = np.bincount(group_of)
    zeros = torch.zeros(len(sizes), labels.shape[1], dtype=torch.long)
    left = zeros.index_add_(0, torch.from_numpy(group_of), labels.long()).numpy()  # images per group and label
    rng = random.Random(seed)  # random() gives the same numbers in all Python versions; numpy's generators may change
    order = np.argsort([rng.random() for _ in left], kind="stable")
    left, sizes = left[order], sizes[order]
    parts = np.full(len(left), -1)
    lacking = shares * len(labels)  # number of images that each part still lacks
    counts = left.sum(axis=0)
    lacking_of_label = shares[:, None] * counts  # the same for each label
    while counts.any():
        label = np.where(counts > 0, counts, len(labels) + 1).argmin()
        for group in np.flatnonzero((left[:, label] > 0) & (parts < 0)):
            parts[group] = part = neediest(rng, lacking_of_label[:, label], lacking)
            lacking[part] -= sizes[group]
            lacking_of_label[part] -= left[group]
            counts -= left[group]
    for group in np.flatnonzero(parts < 0):
        parts[group] = part = neediest(rng, lacking)
        lacking[part] -= sizes[group]
    result = np.empty_like(parts)
    result[order] = parts
    return torch.from_numpy(result[group_of])


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


def number_groups(groups: Any, num_images: int, num_parts: int) -> NDArray[np.int64]:
    """Number the groups in the order of their first images and return the number of each image's group.

    Raises:
        TypeError: ``groups`` are not strings or integers.
        ValueError: there is not one group per image, a group has no name, or there are fewer groups than parts.
    """
    names = groups.tolist() if isinstance(groups, (Tensor, np.ndarray)) else groups
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"groups must be a sequence of strings or integers, got {groups!r}; convert it with list()")
    if len(names) != num_images:
        raise ValueError(f"groups must have one entry per row of labels ({num_images}), got {len(names)}")
    numbers: dict[Any, int] = {}
    for row, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int, np.integer)):
            raise TypeError(
                f"groups must be strings or integers, got {name!r} in row {row}; name the group of each image"
            )
        if name == "":
            raise ValueError(f"groups must not be empty, got '' in row {row}; name the group of each image")
        numbers.setdefault(name, len(numbers))
    if len(numbers) < num_parts:
        raise ValueError(
            f"groups must have at least one group per part ({num_parts}), got {len(numbers)}: {list(numbers)}; use "
            "smaller groups or fewer fractions"
        )
    return np.array([numbers[name] for name in names])
