"""Small multi-label images that are painted on the fly: no files, no downloads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pml_macl.datasets.synthetic.scene_canvas import SceneCanvas
from pml_macl.datasets.synthetic.scene_types import GROUNDS, SMALLEST_SHARE, SURFACES, paint_scene


class SyntheticScenes(Dataset[tuple[Any, Tensor]]):
    """Painted aerial scenes with multi-labels, for examples and tests.

    A scene type (residential, farmland, harbour, airport, ...) decides which things may stand together and with what
    probability, so labels co-occur as they do in real archives: a dock comes with water and often with ships, never
    with a field. The labels have a long tail, from trees in two thirds of the images to airplanes in one of a hundred.
    A label is set where enough of the thing is seen, and every image has at least one. Colour alone does not tell the
    labels apart: light, hue and noise change from image to image, and roofs may be as blue as water, fields as green
    as grass, bare ground and concrete (which are no labels) as brown as fields and as grey as roads.

    Image ``i`` depends on ``seed``, ``i`` and ``image_size`` only: a longer set begins with the shorter one. Other
    seeds give other images, so take three of them for training, validation and test. All images are painted when the
    set is made (about 2 ms each at 32 pixels) and kept as bytes.

    Args:
        num_images: how many images, >= 1.
        image_size: height and width in pixels, >= 16.
        seed: >= 0.
        transform: called on each float32 image; None returns the image as it is.

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
        for name, value, smallest in (("num_images", num_images, 1), ("image_size", image_size, 16), ("seed", seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {value}")
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be callable or None, got {transform!r}")
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
