"""Reading and writing the file that names the split of each image."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pml_macl.checks import check_path, check_string_or_none
from pml_macl.datasets.label_table import read_rows

HEADER = ["id", "split"]


def write_split(
    path: str | os.PathLike[str], ids: Sequence[str], parts: Tensor, names: Sequence[str] = ("train", "val", "test")
) -> None:
    """Save which split each image belongs to, as a CSV file with the columns ``id`` and ``split``.

    The function never replaces an existing file, because results on different splits cannot be compared.

    Args:
        path: the file; its folder must exist.
        ids: the N image ids, all different.
        parts: (N,) integers, the part of each image as an index into ``names``, such as the result of
            ``stratified_split``.
        names: the name of each part.

    Raises:
        FileExistsError: the file exists already.
        FileNotFoundError: the folder of the file does not exist.
        TypeError: an argument has the wrong type.
        ValueError: the lengths differ, a part has no name, or an id or name is empty, occurs twice, begins or ends with
            a space, or contains a line break.

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
    check_path("path", path)
    check_texts("ids", ids)
    check_texts("names", names)
    if not isinstance(parts, Tensor) or parts.is_floating_point() or parts.is_complex():
        raise TypeError(f"parts must be a tensor of integers, as stratified_split returns it, got {parts!r}")
    if parts.shape != (len(ids),):
        raise ValueError(f"parts must hold one part per id, shape ({len(ids)},), got shape {tuple(parts.shape)}")
    numbers = parts.tolist()
    for number in (min(numbers, default=0), max(numbers, default=0)):
        if not 0 <= number < len(names):
            raise ValueError(
                f"names must name every part, got part {number} and {len(names)} names; give one name per part"
            )
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for the split file {path.name}; create it first")
    if path.exists():
        raise FileExistsError(
            f"{path} already exists; read it with read_split, or remove it if no result depends on that split"
        )
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")  # a truncated file would pass as a complete split
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows((image_id, names[number]) for image_id, number in zip(ids, numbers, strict=True))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_split(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a split file that ``write_split`` wrote.

    Args:
        path: the file: UTF-8 text with the first line ``id,split`` and commas or tabs between the two columns.

    Returns:
        A dictionary from image id to split, in the order of the file.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: ``path`` is not a path.
        ValueError: the file is malformed; the message names the line.
    """
    check_path("path", path)
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
            raise ValueError(
                f"{path}, line {line}: a row must have an id and a split, got {cells[:3]}; correct that row"
            )
        if cells[0] in splits:
            raise ValueError(f"{path}, line {line}: id {cells[0]!r} appears twice; keep one of the rows")
        splits[cells[0]] = cells[1]
    if not splits:
        raise ValueError(f"{path} has a header but no rows; write one row per image below it")
    return splits


def select_rows(
    ids: Sequence[str], split: str | None, split_file: str | os.PathLike[str] | None, root: Path
) -> list[int]:
    """Find the images that belong to a split.

    An image that the split file does not name belongs to no split. Every image that the file names for the split must
    exist.

    Args:
        ids: the image ids of a data set.
        split: name of the split to keep; None keeps all rows.
        split_file: the file that names the splits; None reads ``splits.csv`` in ``root``.
        root: the folder of the data set.

    Returns:
        The positions of these images in ``ids``, ascending.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: an argument has the wrong type.
        ValueError: the file is malformed, lacks the split or names unknown ids, or ``split_file`` is given without
            ``split``.
    """
    check_string_or_none("split", split)
    if split is None:
        if split_file is not None:
            raise ValueError(f"split_file was given without split; set split to one of the splits in {split_file}")
        return list(range(len(ids)))
    path = root / "splits.csv" if split_file is None else split_file
    check_path("split_file", path)
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
    """Raise unless ``texts`` are distinct strings that a CSV file preserves."""
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a sequence of strings, got {texts!r}")
    seen = set()
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} must be strings, got {text!r}")
        if not text or text != text.strip() or len(text.splitlines()) != 1:
            raise ValueError(
                f"{name} must not be empty, begin or end with a space, or contain line breaks, got {text!r}"
            )
        if text in seen:
            raise ValueError(f"{name} must be distinct, got {text!r} twice")
        seen.add(text)
