"""The base class of all data sets that read image files with multi-labels."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from pml_macl.checks import check_callable
from pml_macl.datasets.image_files import image_to_tensor, load_image
from pml_macl.labels import check_labels


class BaseMultiLabelImageDataset(Dataset[tuple[Any, Tensor]]):
    """Reads image files and pairs each with its label set; every data set of image files is a subclass.

    Indexing decodes one image. Without ``loader`` this needs Pillow (``pip install pillow``).

    Args:
        paths: the N image files.
        labels: (N, C) multi-hot label sets.
        ids: the N distinct image ids.
        classes: the C distinct label names.
        transform: called on each image; None makes a (3, H, W) float32 tensor in [0, 1], or with ``loader`` leaves the
            image as it is.
        loader: reads an image from its path, as in torchvision's ``ImageFolder``; None reads an RGB ``PIL.Image``.

    Attributes:
        classes: the C label names in the order of the label columns.
        labels: (N, C) ``torch.bool``.
        ids: the N image ids.
        paths: the N image files.

    Raises:
        TypeError: ``labels`` is not a tensor, or ``transform`` or ``loader`` cannot be called.
        ValueError: the labels are not multi-hot, the lengths differ, or an id or class appears twice.

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
        loader: Callable[[Path], Any] | None = None,
    ) -> None:
        check_callable("transform", transform)
        check_callable("loader", loader)
        labels = check_labels(labels, num_classes=len(classes))
        if not len(paths) == len(labels) == len(ids):
            raise ValueError(
                f"paths, ids and labels must have the same length, got {len(paths)} paths, {len(ids)} ids and "
                f"{len(labels)} rows of labels"
            )
        for name, values in (("ids", ids), ("classes", classes)):
            if len(set(values)) < len(values):
                twice = next(value for value in values if list(values).count(value) > 1)
                raise ValueError(f"{name} must be distinct, got {twice!r} twice; rename or remove one")
        self.transform = transform
        self.loader = loader
        self.classes = list(classes)
        self.labels = labels
        self.ids = list(ids)
        self.paths = [Path(path) for path in paths]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = self._read(self.paths[index])
        if self.transform is not None:
            image = self.transform(image)
        elif self.loader is None:
            image = image_to_tensor(image)
        return image, self.labels[index].clone()

    def _read(self, path: Path, preview: bool = False) -> Any:
        if self.loader is None:
            return load_image(path, preview)
        try:
            return self.loader(path)
        except Exception as error:  # loaders raise many types of errors, often without the path
            raise ValueError(f"loader cannot read {path} ({type(error).__name__}: {error})") from error

    def check_images(self) -> None:
        """Read every image once to find broken ones before training starts.

        Raises:
            ValueError: some images cannot be read; the message counts them and names the first ones.
        """
        broken = []
        for path in self.paths:
            try:
                self._read(path, preview=True)
            except (FileNotFoundError, ValueError) as error:
                broken.append(str(error))
        if broken:
            raise ValueError(
                f"{len(broken)} of {len(self)} images cannot be read, the first ones: {'; '.join(broken[:3])}"
            )
