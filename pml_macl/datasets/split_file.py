"""Files that say which image belongs to which split."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pml_macl.datasets.base_multi_label_image_dataset import check_paths
from pml_macl.datasets.label_table import read_rows

HEADER = ["id", "split"]


def write_split(
    path: str | os.PathLike[str], ids: Sequence[str], parts: Tensor, names: Sequence[str] = ("train", "val", "test")
) -> None:
    """Write a split to a csv of two columns, ``id`` and ``split``.

    An existing file is never replaced: results on another split do not compare with those on this one.

    Args:
        path: the file; its folder exists.
        ids: the N image ids, all different.
        parts: (N,) integers, the part of each image, as ``stratified_split`` returns them.
        names: the name of each part.

    Raises:
        FileExistsError: there is such a file.
        FileNotFoundError: there is no such folder.
        TypeError: an argument has the wrong type.
        ValueError: the lengths differ, a part has no name, or an id or name is empty, repeated, or has spaces around
            it or line breaks in it.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "splits.csv")
        ...     write_split(path, ["beach01", "beach02", "river01"], torch.tensor([0, 2, 1]))
        ...     print(path.read_text())
        ...     read_split(path)
        id,split
        beach01,train
        beach02,test
        river01,val
        <BLANKLINE>
        {'beach01': 'train', 'beach02': 'test', 'river01': 'val'}
    """
    check_paths(path=path)
    check_texts("ids", ids)
    check_texts("names", names)
    if not isinstance(parts, Tensor) or parts.is_floating_point() or parts.is_complex():
        raise TypeError(f"parts must be a tensor of integers, as stratified_split returns it, got {parts!r}")
    if parts.shape != (len(ids),):
        raise ValueError(f"parts must have the shape ({len(ids)},) of one part an id, got {tuple(parts.shape)}")
    numbers = parts.tolist()
    for number in (min(numbers, default=0), max(numbers, default=0)):
        if not 0 <= number < len(names):
            raise ValueError(f"part {number} has no name among the {len(names)} of names; give one name a part")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the split file {path.name}; make it first")
    if path.exists():
        raise FileExistsError(f"{path} exists; read it, or remove it first if no result depends on that split")
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")  # a split that is cut off would look whole
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows((image_id, names[number]) for image_id, number in zip(ids, numbers, strict=True))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a split that ``write_split``, or anything that writes such a table, has written.

    Args:
        path: the file: UTF-8 text with commas or tabs, whose first line is ``id,split``.

    Returns:
        The split of each image id, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: ``path`` is no path.
        ValueError: the file is malformed; the message names the line.
    """
    check_paths(path=path)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no split file at {path}; make one with write_split(path, dataset.ids, stratified_split(dataset.labels))"
        )
    (_, columns), *rows = read_rows(path)
    if columns != HEADER:
        raise ValueError(f"{path} must begin with the line {','.join(HEADER)!r}, got {','.join(columns)[:80]!r}")
    splits: dict[str, str] = {}
    for line, cells in rows:
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"{path}, line {line}: need an id and a split, got {cells[:3]}; mend that row")
        if cells[0] in splits:
            raise ValueError(f"{path}, line {line}: id {cells[0]!r} comes a second time; keep one of the rows")
        splits[cells[0]] = cells[1]
    if not splits:
        raise ValueError(f"{path} has a header but no rows; write one row an image below it")
    return splits


def select_rows(
    ids: Sequence[str], split: str | None, split_file: str | os.PathLike[str] | None, root: Path
) -> list[int]:
    """Rows of the ids that are in a split.

    Images that the split file does not name are in no split, but those that it names must be there.

    Args:
        ids: the image ids of a data set.
        split: which rows to keep; None keeps all.
        split_file: the file; None takes ``splits.csv`` in ``root``.
        root: the folder of the data set.

    Returns:
        The rows, ascending.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: an argument has the wrong type.
        ValueError: the file is malformed, has no such split, or names other ids; or it is given without a split.
    """
    if not isinstance(split, str | None):
        raise TypeError(f"split must be a string or None, got {split!r}")
    if split is None:
        if split_file is not None:
            raise ValueError(f"split_file {split_file} needs split, the name of the part to keep")
        return list(range(len(ids)))
    path = root / "splits.csv" if split_file is None else split_file
    check_paths(split_file=path)
    splits = read_split(path)
    wanted = {image_id for image_id, found in splits.items() if found == split}
    if not wanted:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(sorted(set(splits.values()))[:10])}")
    rows = [row for row, image_id in enumerate(ids) if image_id in wanted]
    if len(rows) < len(wanted):
        missing = sorted(wanted.difference(ids))
        raise ValueError(
            f"{len(missing)} of {len(wanted)} ids of split {split!r} in {path} are not among the images, the first "
            f"ones {missing[:3]}; add the images, or use a split file of this data set (its ids are like {ids[0]!r})"
        )
    return rows


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Raise unless these are different texts that a csv gives back as they are."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a sequence of strings, got {texts!r}")
    seen = set()
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} must be strings, got {text!r}")
        if not text or text != text.strip() or len(text.splitlines()) != 1:
            raise ValueError(f"{name} must not be empty, nor have spaces around or line breaks, got {text!r}")
        if text in seen:
            raise ValueError(f"{name} must all be different, got {text!r} twice")
        seen.add(text)
