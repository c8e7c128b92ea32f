"""Finding the image file that belongs to each image id."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
Candidates = Callable[[list[str]], list[Path]]  # maps the parts of an id (folders, file name) to the images that fit


def match_images(ids: Sequence[str], candidates: Candidates, how_to_fix: str) -> list[Path]:
    """Find the image of each id.

    Args:
        ids: the image ids, as the label table writes them.
        candidates: :func:`by_path` or :func:`by_name`.
        how_to_fix: the end of the error message that reports missing images.

    Returns:
        One path per id, in the order of the ids.

    Raises:
        FileNotFoundError: an id has no image.
        ValueError: an id could name a file outside the image folder or fits several images, or two ids mean the same
            image.
    """
    found: dict[Path, str] = {}
    missing = []
    for image_id in ids:
        paths = candidates(inner_parts(image_id))
        if not paths:
            missing.append(image_id)
            continue
        if len(paths) > 1:
            names = [path.name for path in paths]
            raise ValueError(
                f"id {image_id!r} fits several images of {paths[0].parent}: {names}; write the exact file name"
            )
        if paths[0] in found:
            raise ValueError(f"ids {found[paths[0]]!r} and {image_id!r} both mean {paths[0]}; keep one of the rows")
        found[paths[0]] = image_id
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(ids)} label rows have no image, the first ids are {missing[:3]}. {how_to_fix}"
        )
    return list(found)


def by_path(folder: Path, any_name: bool = False) -> Candidates:
    """Match ids that are paths relative to a folder, such as ``a/b.jpg`` or ``a/b``.

    An id may lack the extension or write it in another case. A file whose name equals the id wins over the others.

    Args:
        folder: the image folder.
        any_name: also match the exact names of files with other extensions and of folders.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no image folder at {folder}; check the path")
    listings: dict[Path, dict[str, list[str]]] = {}  # lists each folder only once

    def candidates(parts: list[str]) -> list[Path]:
        parent, name = folder.joinpath(*parts[:-1]), parts[-1]
        if parent not in listings:
            listings[parent] = list_folder(parent, any_name)
        stem, extension = split_extension(name)
        names = listings[parent].get(stem + extension, [])
        return [parent / found for found in ([name] if name in names else names)]

    return candidates


def by_name(tree: dict[str, Path]) -> Candidates:
    """Match ids by file name only; case, folders and extension do not matter.

    Args:
        tree: the images, as :func:`list_tree` returns them.
    """
    by_key = {name.lower(): path for name, path in tree.items()}

    def candidates(parts: list[str]) -> list[Path]:
        path = by_key.get(split_extension(parts[-1])[0].lower())
        return [] if path is None else [path]

    return candidates


def inner_parts(image_id: str) -> list[str]:
    """Split an id into folders and file name; raise ValueError if it could name a file outside the image folder."""
    parts = [part for part in re.split(r"[/\\]", image_id) if part not in ("", ".")]
    absolute = PurePosixPath(image_id).is_absolute() or bool(PureWindowsPath(image_id).anchor)
    if absolute or not parts or ".." in parts:
        raise ValueError(
            f"id {image_id!r} does not name a file in the image folder; ids must be relative and without '..'"
        )
    return parts


def split_extension(name: str) -> tuple[str, str]:
    """Split a file name into stem and lower-case extension; an unknown extension stays in the stem.

    The characters are composed (NFC), because a Mac decomposes the accents of file names.
    """
    stem, extension = os.path.splitext(unicodedata.normalize("NFC", name))
    return (stem, extension.lower()) if extension.lower() in EXTENSIONS else (stem + extension, "")


def list_folder(folder: Path, any_name: bool = False) -> dict[str, list[str]]:
    """List the images of a folder by stem, and by stem with lower-case extension; ``any_name`` lists all by name."""
    listing = defaultdict(list)
    if os.path.isdir(folder):  # unlike Path.is_dir, it returns False for text that cannot be a path
        for name in sorted(os.listdir(folder)):
            stem, extension = split_extension(name)
            if extension or any_name:
                for key in {stem, stem + extension}:
                    listing[key].append(name)
    return listing


def list_tree(folder: Path, extensions: Sequence[str] = EXTENSIONS) -> dict[str, Path]:
    """List the images in a folder and in its direct sub-folders, sorted by folder, then by name.

    Args:
        folder: the folder; hidden files are skipped.
        extensions: the extensions to list, a subset of ``EXTENSIONS``.

    Returns:
        A dictionary from each image's name without extension to its path.

    Raises:
        ValueError: the names of two images differ only in folder, extension or case.
    """
    subfolders = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    found: dict[str, Path] = {}
    keys: dict[str, Path] = {}
    for parent in (folder, *subfolders):
        for name in sorted(os.listdir(parent)):
            stem, extension = split_extension(name)
            if extension not in extensions or name.startswith("."):
                continue
            path = parent / name
            if stem.lower() in keys:
                raise ValueError(f"{keys[stem.lower()]} and {path} have the same name; remove or rename one of them")
            found[stem] = keys[stem.lower()] = path
    return found
