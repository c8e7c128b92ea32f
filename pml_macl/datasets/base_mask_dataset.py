"""Data sets whose multi-labels come from a mask of each image."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pml_macl.checks import check_range
from pml_macl.datasets.base_multi_label_image_dataset import BaseMultiLabelImageDataset, check_transform
from pml_macl.datasets.image_files import decode
from pml_macl.datasets.official_layout import OfficialLayout, list_tree
from pml_macl.datasets.split_file import select_rows

if TYPE_CHECKING:
    from PIL import Image


class BaseMaskDataset(BaseMultiLabelImageDataset, ABC):
    """Images in ``Images`` and a png mask of each, of the same name and size, in ``Labels``.

    Args:
        root: the folder that holds both.
        split: keep the images of this split; None keeps all.
        min_fraction: a label counts where it covers at least one pixel and this share of the mask, in [0, 1].
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].
        split_file: says which image is in which split; None reads ``splits.csv`` in ``root``.
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
        check_transform(transform)
        check_range("min_fraction", min_fraction, 0, 1)
        image_folder, mask_folder = self.LAYOUT.find(root)
        images, masks = list_tree(image_folder), list_tree(mask_folder, extensions=(".png",))
        mask_of = {name.lower(): path for name, path in masks.items()}
        image_keys = {name.lower() for name in images}
        lone = [str(path) for name, path in images.items() if name.lower() not in mask_of]
        lone += [str(path) for name, path in masks.items() if name.lower() not in image_keys]
        if lone or not images:
            problem = f"{len(lone)} files lack their image or mask, the first ones {lone[:3]}" if lone else "no images"
            raise FileNotFoundError(f"{problem} in {root}. {self.LAYOUT.mend(Path(root))}")
        names = list(images)
        ids = [names[row] for row in select_rows(names, split, split_file, Path(root))]
        shares = np.stack([self._shares(images[name], mask_of[name.lower()]) for name in ids])
        labels = torch.from_numpy((shares > 0) & (shares >= min_fraction))
        super().__init__([images[name] for name in ids], labels, ids, self.CLASSES, transform)

    def _shares(self, image_path: Path, mask_path: Path) -> NDArray[np.float64]:
        """(C,) share of the mask's pixels in each class."""
        mask = decode(mask_path, lambda image: image.copy())
        size = decode(image_path, lambda image: image.size)
        if mask.size != size:
            raise ValueError(f"mask {mask_path} has {mask.size} pixels, but {image_path} has {size}; replace one")
        try:
            counts = self.count_pixels(mask)
        except ValueError as error:
            raise ValueError(f"mask {mask_path} has {error}") from None
        shares: NDArray[np.float64] = counts / counts.sum()
        return shares

    @staticmethod
    @abstractmethod
    def count_pixels(mask: "Image.Image") -> NDArray[np.int64]:
        """(C,) pixels of each class; ValueError that says what the mask has if a pixel is of no class."""
