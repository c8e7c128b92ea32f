"""Batches of the images that the inference model embeds."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def batches_of(
    images: Any, batch_size: int, data_and_label_getter: Callable[[Any], tuple[Any, Any]] | None = None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield batches of images, with the labels of a data set.

    Args:
        images: a tensor, a NumPy array, a list of tensors, or a data set.
        batch_size: number of images per batch.
        data_and_label_getter: takes a batch of the data set and returns its images and labels; None takes batches of
            images or of (image, label set) pairs.

    Raises:
        TypeError: ``images`` is of another type, or the items of a data set are dictionaries without a getter.
    """
    if isinstance(images, Dataset):
        for batch in DataLoader(images, batch_size=batch_size):
            if data_and_label_getter is not None:
                batch = data_and_label_getter(batch)
            elif isinstance(batch, dict):
                raise TypeError(
                    "the items of a data set must be images or (image, label set) pairs, got dictionaries with the "
                    f"keys {list(batch)}; pass data_and_label_getter=itemgetter(IMAGE_KEY, LABEL_KEY) to the model"
                )
            parts = batch if isinstance(batch, (tuple, list)) else [batch]
            yield parts[0], parts[1] if len(parts) > 1 else None
    elif isinstance(images, (Tensor, np.ndarray, list)):
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            if isinstance(batch, list):
                batch = torch.stack(batch)
            elif isinstance(batch, np.ndarray):
                batch = torch.from_numpy(np.array(batch))  # a copy, since memory-mapped files can be read-only
            yield batch, None
    else:
        raise TypeError(
            f"images must be a tensor, an array, a list of tensors or a data set, got {type(images).__name__}"
        )
