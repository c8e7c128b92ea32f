"""Finding the images that a table names, and decoding them."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
FORMATS = ("JPEG", "PNG", "TIFF", "BMP")  # of Pillow's, some others run a program to decode a file


def find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    """The image of each id.

    An id is a file name, with or without its extension (jpg, jpeg, png, tif, tiff, bmp; in any case), and may stand
    in sub-folders (``a/b.jpg``; a backslash separates as well).

    Args:
        folder: where the images lie.
        ids: which ones; none may be absolute or contain ``..``.

    Returns:
        One path an id.

    Raises:
        FileNotFoundError: there is no such folder, or an id has no image.
        ValueError: an id leaves the folder, fits several images, or two ids mean the same image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no image folder at {folder}; check the path")
    listings: dict[Path, dict[str, list[str]]] = {}
    found: dict[Path, str] = {}
    missing = []
    for image_id in ids:
        *parents, name = inner_parts(image_id)
        parent = folder.joinpath(*parents)
        if parent not in listings:
            listings[parent] = list_images(parent)
        stem, extension = os.path.splitext(name)
        key = stem + extension.lower() if extension.lower() in EXTENSIONS else name
        names = listings[parent].get(key, [])
        if name in names:
            names = [name]
        if not names:
            missing.append(image_id)
            continue
        if len(names) > 1:
            raise ValueError(f"id {image_id!r} fits several images of {parent}: {names}; write the exact file name")
        path = parent / names[0]
        if path in found:
            raise ValueError(f"ids {found[path]!r} and {image_id!r} both mean {path}; keep one of the rows")
        found[path] = image_id
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(ids)} label rows have no image in {folder}, the first ones {missing[:3]}; "
            f"add the images (known extensions: {', '.join(EXTENSIONS)}), remove the rows, or check the folder"
        )
    return list(found)


def inner_parts(image_id: str) -> list[str]:
    """Folders and file name of an id; ValueError if it could leave the image folder."""
    parts = [part for part in re.split(r"[/\\]", image_id) if part not in ("", ".")]
    absolute = PurePosixPath(image_id).is_absolute() or bool(PureWindowsPath(image_id).anchor)
    if absolute or not parts or ".." in parts:
        raise ValueError(f"id {image_id!r} does not name a file in the image folder; ids are relative and without '..'")
    return parts


def list_images(folder: Path) -> dict[str, list[str]]:
    """The image files of a folder by name with lower-case extension, and by name without extension."""
    listing = defaultdict(list)
    if os.path.isdir(folder):  # unlike Path.is_dir, False for any text that no path can be
        for name in sorted(os.listdir(folder)):
            stem, extension = os.path.splitext(name)
            if extension.lower() in EXTENSIONS:
                listing[stem].append(name)
                listing[stem + extension.lower()].append(name)
    return listing


def load_image(path: Path, preview: bool = False) -> "Image.Image":
    """Decode an image to RGB.

    Args:
        path: the file.
        preview: decode a JPEG at an eighth of its size: all of the file is read, in less time.

    Raises:
        FileNotFoundError: the file is gone.
        ImportError: Pillow is not installed.
        ValueError: the file cannot be decoded, or its values have more than 8 bits.
    """

    def to_rgb(image: "Image.Image") -> "Image.Image":
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}, where 8 bits a channel are needed")
        if preview:
            image.draft(None, (1, 1))
        return image.convert("RGB")

    return decode(path, to_rgb)


def decode(path: Path, read: Callable[["Image.Image"], T]) -> T:
    """What ``read`` makes of the opened image; ValueError naming the file if it, or Pillow, cannot."""
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
    """(3, H, W) float32 in [0, 1] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
