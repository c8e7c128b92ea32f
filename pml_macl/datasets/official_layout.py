"""The folder of a published data set, as it comes out of the archive."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pml_macl.datasets.base_multi_label_image_dataset import check_paths
from pml_macl.datasets.image_files import EXTENSIONS, inner_parts


@dataclass(frozen=True)
class OfficialLayout:
    """What the root folder of a data set holds, and where to get it.

    Attributes:
        name: of the data set.
        source: where to get it.
        entries: what the root holds, as patterns such as ``Images/<scene>/<name>.tif``; their first parts are looked
            for, as folders where more parts follow and as files where not.
    """

    name: str
    source: str
    entries: tuple[str, ...]

    def find(self, root: str | os.PathLike[str]) -> list[Path]:
        """The path of each entry's first part; FileNotFoundError if one is not there."""
        check_paths(root=root)
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder} for {self.name}. {self.mend(folder)}")
        found = []
        for entry in self.entries:
            first, *inside = entry.split("/")
            path = folder / first
            if not (path.is_dir() if inside else path.is_file()):
                there = ", ".join(sorted(os.listdir(folder))[:5]) or "nothing"
                kind = "folder" if inside else "file"
                raise FileNotFoundError(f"no {kind} {path} for {self.name}; found {there}. {self.mend(folder)}")
            found.append(path)
        return found

    def mend(self, root: Path) -> str:
        """How to mend a root folder that lacks something."""
        return f"Get the data from {self.source}; {root} must then hold {', '.join(self.entries)}"


def list_tree(folder: Path, extensions: Sequence[str] = EXTENSIONS) -> dict[str, Path]:
    """The images in a folder and in the folders right inside it, sorted by folder and name.

    Args:
        folder: where to look; hidden files do not count.
        extensions: of the images, in lower case.

    Returns:
        The path of each image by its name without extension.

    Raises:
        ValueError: two images differ at most in folder, extension or case.
    """
    subfolders = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    found: dict[str, Path] = {}
    keys: dict[str, Path] = {}
    for parent in (folder, *subfolders):
        for name in sorted(os.listdir(parent)):
            stem, extension = os.path.splitext(name)
            if extension.lower() not in extensions or name.startswith("."):
                continue
            path = parent / name
            if stem.lower() in keys:
                raise ValueError(f"{keys[stem.lower()]} and {path} have one name; remove or rename one of them")
            found[stem] = keys[stem.lower()] = path
    return found


def find_in_tree(tree: dict[str, Path], ids: Sequence[str], missing_hint: str) -> list[Path]:
    """The image of each id of a label table.

    Args:
        tree: as ``list_tree`` returns it.
        ids: names of images with or without extension and folder, in any case.
        missing_hint: how to mend it if an image is missing.

    Returns:
        One path an id.

    Raises:
        FileNotFoundError: an id has no image.
        ValueError: an id is no inner path, or two ids mean the same image.
    """
    by_key = {name.lower(): path for name, path in tree.items()}
    found: dict[Path, str] = {}
    missing = []
    for image_id in ids:
        key = inner_parts(image_id)[-1].lower()
        stem, extension = os.path.splitext(key)
        path = by_key.get(stem if extension in EXTENSIONS else key)
        if path is None:
            missing.append(image_id)
        elif path in found:
            raise ValueError(f"ids {found[path]!r} and {image_id!r} both mean {path}; keep one of the rows")
        else:
            found[path] = image_id
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(ids)} label rows have no image, the first ones {missing[:3]}. {missing_hint}"
        )
    return list(found)
