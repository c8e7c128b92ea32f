"""Decoding image files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
FORMATS = ("JPEG", "PNG", "TIFF", "BMP")  # Pillow runs a program to decode some other formats
TO_8_BITS = (
    "Image.fromarray(np.interp(np.asarray(Image.open(path)), (low, high), (0, 255)).astype(np.uint8)).save(new_path)"
)


def load_image(path: Path, preview: bool = False) -> "Image.Image":
    """Decode an image to RGB.

    Args:
        path: the file.
        preview: decode a JPEG at an eighth of its size; this reads the whole file too, but takes less time.

    Returns:
        The image in mode RGB.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: Pillow is not installed.
        ValueError: the file cannot be decoded, or its channels have more than 8 bits.
    """

    def to_rgb(image: "Image.Image") -> "Image.Image | str":
        if image.mode.startswith(("I", "F")):  # 16 or 32 bits per pixel, whose range Pillow does not know
            return f"mode {image.mode}"
        if loses_bits(image):
            return f"16 bits in mode {image.mode}"
        if preview:
            image.draft(None, (1, 1))
        return image.convert("RGB")

    image = decode(path, to_rgb)
    if isinstance(image, str):
        raise ValueError(
            f"image {path} must have 8 bits per channel, got {image}; convert it with {TO_8_BITS}, where low and high "
            "are the range of the values in your data set, or pass a loader to MultiLabelImageDataset"
        )
    return image


def loses_bits(image: "Image.Image") -> bool:
    """Whether Pillow would drop the low byte of each channel: it has no mode for several channels of 16 bits."""
    tiles = str(getattr(image, "tile", ()))  # how Pillow decodes the file
    return not image.mode.startswith("I") and re.search(r";16[BLN]", tiles) is not None


def decode(path: Path, read: Callable[["Image.Image"], T]) -> T:
    """Open an image and return the result of ``read``; raise ValueError with the path if either fails."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("decoding images needs Pillow; install it with: pip install pillow") from error
    try:
        with Image.open(path, formats=FORMATS) as image:
            return read(image)
    except FileNotFoundError:
        raise
    except Exception as error:  # broken files make Pillow raise many types of errors
        raise ValueError(f"cannot decode image {path} ({error}); replace or re-encode it") from error


def image_to_tensor(image: "Image.Image") -> Tensor:
    """Convert an RGB image to a (3, H, W) float32 tensor in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
