"""What all sets of image files with multi-labels share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from pml_macl.datasets.image_files import image_to_tensor, load_image
from pml_macl.labels import check_labels


class BaseMultiLabelImageDataset(Dataset[tuple[Any, Tensor]]):
    """Image files with multi-labels; the base of every data set that reads files.

    An image is decoded when it is asked for, which needs Pillow (``pip install pml_macl[examples]``).

    Args:
        paths: the N image files.
        labels: (N, C) multi-hot label sets.
        ids: the N image ids, all different.
        classes: the C label names, all different.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].

    Attributes:
        classes: the C label names in the order of the label columns.
        labels: (N, C) ``torch.bool``.
        ids: the N image ids.
        paths: the N image files.

    Raises:
        TypeError: ``labels`` is not a tensor, or ``transform`` cannot be called.
        ValueError: the labels are not multi-hot, the lengths differ, or a name comes twice.

    Example:
        >>> import torch
        >>> dataset = BaseMultiLabelImageDataset(["pier.png"], torch.tensor([[1, 0]]), ["pier"], ["ship", "trees"])
        >>> len(dataset), dataset.labels, dataset.paths[0].name
        (1, tensor([[ True, False]]), 'pier.png')
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Tensor,
        ids: Sequence[str],
        classes: Sequence[str],
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        check_transform(transform)
        labels = check_labels(labels, num_classes=len(classes))
        if not len(paths) == len(labels) == len(ids):
            raise ValueError(
                f"need one path and one id a row of labels, got {len(paths)} paths, {len(ids)} ids and "
                f"{len(labels)} rows"
            )
        for name, values in (("ids", ids), ("classes", classes)):
            if len(set(values)) < len(values):
                twice = next(value for value in values if list(values).count(value) > 1)
                raise ValueError(f"{name} must all be different, got {twice!r} twice; rename or remove one")
        self.transform = transform
        self.classes = list(classes)
        self.labels = labels
        self.ids = list(ids)
        self.paths = [Path(path) for path in paths]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = load_image(self.paths[index])
        return image_to_tensor(image) if self.transform is None else self.transform(image), self.labels[index].clone()

    def check_images(self) -> None:
        """Read every image once, so that a broken one is found before a run and not in the middle of it.

        Raises:
            ValueError: some images cannot be decoded; the message counts them and names the first ones.
        """
        broken = []
        for path in self.paths:
            try:
                load_image(path, preview=True)
            except (FileNotFoundError, ValueError) as error:
                broken.append(str(error))
        if broken:
            raise ValueError(
                f"{len(broken)} of {len(self)} images cannot be read, the first ones: {'; '.join(broken[:3])}"
            )


def check_transform(transform: Callable[[Any], Any] | None) -> None:
    """Raise TypeError unless this can be called or is None."""
    if transform is not None and not callable(transform):
        raise TypeError(f"transform must be callable or None, got {transform!r}")


def check_paths(**paths: str | os.PathLike[str]) -> None:
    """Raise TypeError unless every argument, given by its name, is a path."""
    for name, path in paths.items():
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"{name} must be a path, got {path!r}")
