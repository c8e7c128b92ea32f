"""Decoding image files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
FORMATS = ("JPEG", "PNG", "TIFF", "BMP")  # Pillow decodes some of the others by running a program


def load_image(path: Path, preview: bool = False) -> "Image.Image":
    """Decode an image to RGB.

    Args:
        path: the file.
        preview: decode a JPEG at an eighth of its size, which reads the whole file in less time.

    Raises:
        FileNotFoundError: the file is gone.
        ImportError: Pillow is not installed.
        ValueError: the file cannot be decoded, or its values have more than 8 bits.
    """

    def to_rgb(image: "Image.Image") -> "Image.Image":
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}, expected 8 bits per channel")
        if preview:
            image.draft(None, (1, 1))
        return image.convert("RGB")

    return decode(path, to_rgb)


def decode(path: Path, read: Callable[["Image.Image"], T]) -> T:
    """Open an image and return what ``read`` makes of it; raise ValueError with the path if that fails."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("decoding images needs Pillow; install it with: pip install pml_macl[examples]") from error
    try:
        with Image.open(path, formats=FORMATS) as image:
            return read(image)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises errors of many types on broken files
        raise ValueError(f"cannot decode image {path} ({error}); replace or re-encode it") from error


def image_to_tensor(image: "Image.Image") -> Tensor:
    """Convert an RGB image to a (3, H, W) float32 tensor in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
