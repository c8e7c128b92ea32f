"""Image files with any number of channels: .npy files, TIFF files of many bands or 16 bits, grey and RGBA images."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pml_macl.datasets.image_files import decode, loses_bits


def channel_loader(channels: int | None) -> Callable[[Path], Tensor] | None:
    """:func:`read_channels` for a run with ``--channels``; None for RGB images, which the data sets read themselves."""
    return None if channels is None else partial(read_channels, channels=channels)


def read_channels(path: Path, channels: int) -> Tensor:
    """The (channels, H, W) float32 values of an image file, in the units of the file.

    Args:
        path: the file: .npy for numpy, .tif or .tiff for tifffile, anything else for Pillow. Its channels are the first
            or the last dimension. An image with one channel may lack this dimension.
        channels: the number of channels.

    Raises:
        ImportError: the file is a TIFF, and tifffile is not installed.
        ValueError: the file has another shape, holds no real numbers, or holds NaN or infinity.
    """
    array = read_array(path)
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 3 and len(array) != channels:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or len(array) != channels or array.dtype.kind not in "biuf":
        raise ValueError(
            f"--channels {channels} needs images of {channels} numbers per pixel, got shape {shape} and type "
            f"{array.dtype} in {path}; correct --channels or the file"
        )
    image = torch.from_numpy(array.astype(np.float32, order="C"))
    if not image.isfinite().all():
        raise ValueError(f"{path} must be finite, got NaN or infinity; replace missing values, for example by 0")
    return image


def read_array(path: Path) -> np.ndarray:
    """The array in an image file."""
    extension = path.suffix.lower()
    if extension == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise ValueError(f"cannot read {path} ({error}); replace it") from error
    if extension not in (".tif", ".tiff"):
        return decode(path, all_bits)
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            'TIFF files with --channels need tifffile; install it with: pip install -e ".[tiff]"'
        ) from error
    return tifffile.imread(path)


def all_bits(image: Image.Image) -> np.ndarray:
    """The array of an opened image."""
    if loses_bits(image):
        raise ValueError("Pillow reads only 8 of the 16 bits of each channel; save it as .npy or TIFF")
    return np.asarray(image)


def channel_statistics(paths: Sequence[Path], channels: int) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each channel, in which each image counts the same, whatever its size.

    The standard deviation of a channel with a single value is 1, so that it can divide.
    """
    images = (read_channels(path, channels).double() for path in paths)
    moments = [torch.stack([image.mean((1, 2)), image.var((1, 2), correction=0)]) for image in images]
    means, variances = torch.stack(moments).unbind(1)
    mean = means.mean(0)
    std = (variances + (means - mean) ** 2).mean(0).sqrt()
    constant = std <= 1e-6 * mean.abs()  # float32 has seven digits
    return mean.tolist(), std.masked_fill(constant, 1).tolist()


def preview(image: Tensor) -> Tensor:
    """A picture of an image of :func:`read_channels`, in [0, 1].

    It has the first three channels as red, green and blue, or the first one of two in grey. Each channel is stretched
    from its 2nd to its 98th percentile.
    """
    shown = image[: 3 if len(image) >= 3 else 1]
    low, high = torch.from_numpy(np.percentile(shown, (2, 98), axis=(1, 2), keepdims=True)).float()
    return ((shown - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
