"""The base class of data sets that compute the labels of an image from its mask."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pml_macl.checks import check_callable, check_range
from pml_macl.datasets.base_multi_label_image_dataset import BaseMultiLabelImageDataset
from pml_macl.datasets.image_files import decode
from pml_macl.datasets.image_matching import list_tree
from pml_macl.datasets.official_layout import OfficialLayout
from pml_macl.datasets.split_file import select_rows

if TYPE_CHECKING:
    from PIL import Image


class BaseMaskDataset(BaseMultiLabelImageDataset, ABC):
    """Reads the images in the folder ``Images`` and computes their labels from the masks in ``Labels``.

    Each image has a PNG mask of the same name and size.

    Args:
        root: the folder that holds both folders.
        split: keep the images of this split; None keeps all.
        min_fraction: smallest share of the mask that a label must cover, in [0, 1]. At 0, one pixel is enough.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].
        split_file: a file from ``write_split`` that names the split of each image; None reads ``splits.csv`` in
            ``root``.
    """

    LAYOUT: ClassVar[OfficialLayout]
    CLASSES: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        min_fraction: float = 0.0,
        transform: Callable[[Any], Any] | None = None,
        split_file: str | os.PathLike[str] | None = None,
    ) -> None:
        check_callable("transform", transform)
        check_range("min_fraction", min_fraction, 0, 1)
        image_folder, mask_folder = self.LAYOUT.find(root)
        images, masks = list_tree(image_folder), list_tree(mask_folder, extensions=(".png",))
        mask_of = {name.lower(): path for name, path in masks.items()}
        image_keys = {name.lower() for name in images}
        unpaired = [str(path) for name, path in images.items() if name.lower() not in mask_of]
        unpaired += [str(path) for name, path in masks.items() if name.lower() not in image_keys]
        if unpaired or not images:
            problem = f"no images in {root}"
            if unpaired:
                problem = (
                    f"{len(unpaired)} files in {root} have no matching image or mask, the first are {unpaired[:3]}"
                )
            raise FileNotFoundError(f"{problem}. {self.LAYOUT.how_to_fix(Path(root))}")
        names = list(images)
        ids = [names[row] for row in select_rows(names, split, split_file, Path(root))]
        shares = np.stack([self._shares(images[name], mask_of[name.lower()]) for name in ids])
        labels = torch.from_numpy((shares > 0) & (shares >= min_fraction))
        super().__init__([images[name] for name in ids], labels, ids, self.CLASSES, transform)

    def _shares(self, image_path: Path, mask_path: Path) -> NDArray[np.float64]:
        """Compute the (C,) share of the mask that each class covers."""
        mask = decode(mask_path, lambda image: image.copy())
        size = decode(image_path, lambda image: image.size)
        if mask.size != size:
            raise ValueError(
                f"mask {mask_path} must have the size of {image_path}, {size}, got {mask.size}; replace one of the two"
            )
        try:
            counts = self.count_pixels(mask)
        except ValueError as error:
            raise ValueError(f"mask {mask_path} has {error}") from None
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    @staticmethod
    @abstractmethod
    def count_pixels(mask: "Image.Image") -> NDArray[np.int64]:
        """Count the (C,) pixels of each class.

        Raises:
            ValueError: the mask has wrong pixels; the message continues the sentence "mask PATH has ...".
        """
