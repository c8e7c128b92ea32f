"""Reading a table of multi-labels: one row per image, one column of 0 and 1 per class."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

CELLS = {"0": False, "0.0": False, "1": True, "1.0": True}


@dataclass(frozen=True)
class LabelTable:
    """A valid label table.

    Attributes:
        ids: the image id of each row.
        classes: the names of the label columns.
        labels: (rows, classes) ``torch.bool``.
        splits: the split of each row; empty without a split column.
    """

    ids: list[str]
    classes: list[str]
    labels: Tensor
    splits: list[str]


def read_label_table(path: Path, split_column: str | None = None, ignore_columns: Collection[str] = ()) -> LabelTable:
    """Read and check a label table.

    The table is UTF-8 text (with or without byte order mark, any line ends). Tabs separate the columns; if the first
    line has none, commas do. The first line names the columns. The first column holds the image ids, whatever its
    name. Spaces around a cell and blank lines are ignored.

    Args:
        path: the table.
        split_column: name of the column that holds the split of each row.
        ignore_columns: names of further columns that are not classes.

    Returns:
        The table. Every column that is not named above is a class; its cells are 0 or 1 (or 0.0 or 1.0).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the table is empty, is not text of this format, has only one column, unnamed or duplicated columns,
            no column of a given name, no class, ragged rows, empty or duplicated ids, or cells other than 0 and 1.
    """
    (_, columns), *rows = read_rows(path)
    check_columns(path, columns, split_column, ignore_columns)
    classes = [name for name in columns[1:] if name != split_column and name not in ignore_columns]
    if not classes:
        raise ValueError(f"{path} has no label column left among {columns}; name fewer columns to ignore")
    if not rows:
        raise ValueError(f"{path} has a header but no rows; write one row per image below it")
    first_lines: dict[str, int] = {}
    labels: list[list[bool]] = []
    splits: list[str] = []
    for line, cells in rows:
        if len(cells) != len(columns):
            raise ValueError(f"{path}, line {line}: {len(cells)} cells under {len(columns)} columns; correct that row")
        row = dict(zip(columns, cells, strict=True))
        image_id = cells[0]
        if not image_id:
            raise ValueError(f"{path}, line {line}: the image id in the first column is empty; correct that row")
        if image_id in first_lines:
            first = first_lines[image_id]
            raise ValueError(f"{path}, line {line}: id {image_id!r} was already in line {first}; keep one of the rows")
        first_lines[image_id] = line
        for name in classes:
            if row[name] not in CELLS:
                raise ValueError(
                    f"{path}, line {line}, column {name!r}: a label must be 0 or 1, got {row[name]!r}; "
                    "name the column in ignore_columns if it is not a class"
                )
        labels.append([CELLS[row[name]] for name in classes])
        splits.append("" if split_column is None else row[split_column])
    return LabelTable(list(first_lines), classes, torch.tensor(labels), splits)


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the line number and the cells of every row that is not blank, the header first."""
    if not path.is_file():
        raise FileNotFoundError(f"no label table at {path}; check labels_file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if "\t" in next((line for line in file if line.strip()), "") else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a comma- or tab-separated UTF-8 text ({error}); export it as one") from error
    rows = [(line, cells) for line, cells in rows if cells not in ([], [""])]
    if not rows:
        raise ValueError(f"{path} is empty; its first line must name the columns")
    return rows


def check_columns(path: Path, columns: list[str], split_column: str | None, ignore_columns: Collection[str]) -> None:
    """Raise ValueError unless the columns have distinct names and include the requested ones."""
    if len(columns) == 1:
        raise ValueError(f"{path} has one column, {columns[0][:80]!r}; separate the columns with commas or tabs")
    for number, name in enumerate(columns[1:], start=2):
        if not name:
            raise ValueError(f"{path}: column {number} of {len(columns)} has no name; name it in the first line")
        if name in columns[: number - 1]:
            raise ValueError(f"{path} has two columns {name!r}; rename or remove one")
    for name in (*ignore_columns, *([] if split_column is None else [split_column])):
        if name not in columns[1:]:
            raise ValueError(f"{path} has no column {name!r} besides the ids; it has {columns[1:]}")
