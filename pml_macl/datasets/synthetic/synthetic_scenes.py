"""A data set of small multi-label images that needs no files."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pml_macl.checks import check_callable, check_integer
from pml_macl.datasets.synthetic.scene_canvas import SceneCanvas
from pml_macl.datasets.synthetic.scene_types import GROUNDS, SMALLEST_SHARE, SURFACES, paint_scene


class SyntheticScenes(Dataset[tuple[Any, Tensor]]):
    """Paints aerial scenes with multi-labels, for examples and tests.

    Each image has a scene type (residential, farmland, harbour, airport, ...). The type sets which objects may appear
    and with what probability. Labels therefore co-occur as they do in real archives: a dock comes with water and often
    with ships, never with a field. The label frequencies have a long tail: two thirds of the images show trees, one in
    a hundred shows an airplane. An image gets a label if enough of the object is visible. Every image has at least one
    label. Colour alone does not identify the labels: light, hue and noise vary between images, a roof may be as blue
    as water, and a field as green as grass. Bare ground and concrete have no label but look like fields and roads.

    Image ``i`` depends only on ``seed``, ``i`` and ``image_size``, so a longer data set begins with the images of a
    shorter one. Use different seeds for training, validation and test. The constructor paints all images (about 2 ms
    each at 32 pixels) and keeps them as bytes.

    Args:
        num_images: number of images, >= 1.
        image_size: height and width in pixels, >= 16.
        seed: seed of the random numbers, >= 0.
        transform: called on each float32 image; None returns the image unchanged.

    Attributes:
        classes: the C = 12 label names in the order of the label columns.
        labels: (num_images, C) ``torch.bool``.

    Raises:
        TypeError: a number is not an integer, or ``transform`` cannot be called.
        ValueError: a number is out of range.

    Example:
        >>> scenes = SyntheticScenes(num_images=8)
        >>> image, labels = scenes[0]
        >>> image.shape, image.dtype, labels.shape, labels.dtype
        (torch.Size([3, 32, 32]), torch.float32, torch.Size([12]), torch.bool)
        >>> [name for name, seen in zip(scenes.classes, labels) if seen]
        ['buildings', 'grass', 'road', 'trees']
    """

    def __init__(
        self,
        num_images: int = 1000,
        image_size: int = 32,
        seed: int = 0,
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        check_integer("num_images", num_images)
        check_integer("image_size", image_size, 16)
        check_integer("seed", seed, 0)
        check_callable("transform", transform)
        self.transform = transform
        self.classes = list(SMALLEST_SHARE)
        images = np.empty((num_images, 3, image_size, image_size), dtype=np.uint8)
        labels = np.zeros((num_images, len(self.classes)), dtype=bool)
        for index in range(num_images):
            rng = np.random.default_rng([seed, index])
            while not labels[index].any():
                canvas = SceneCanvas(rng, image_size, SURFACES)
                paint_scene(canvas)
                labels[index] = canvas.seen()[len(GROUNDS) :] >= list(SMALLEST_SHARE.values())
            images[index] = canvas.photograph()
        self.labels = torch.from_numpy(labels)
        self._images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = self._images[index].float() / 255
        return image if self.transform is None else self.transform(image), self.labels[index].clone()
