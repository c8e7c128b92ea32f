"""Reading a label table: one row per image, one column of 0 and 1 per class."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pml_macl.checks import check_choice

CELLS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
EMPTY = ("", "nan")


@dataclass(frozen=True)
class LabelTable:
    """A valid label table.

    Attributes:
        ids: the image id of each row.
        classes: the names of the label columns.
        labels: (rows, classes) ``torch.bool``.
        splits: the split of each row; empty without a split column.
        other_columns: the cells of each column that is not a class, by the name of the column.
    """

    ids: list[str]
    classes: list[str]
    labels: Tensor
    splits: list[str]
    other_columns: dict[str, list[str]]


def read_label_table(
    path: Path,
    split_column: str | None = None,
    ignore_columns: Collection[str] = (),
    id_column: str | None = None,
    empty_cells: str = "error",
) -> LabelTable:
    """Read and check a label table.

    The table is UTF-8 text, with or without byte order mark and with any line ends. Tabs separate the columns if the
    first line contains a tab; otherwise commas do. The first line names the columns. Spaces around a cell and blank
    lines are ignored.

    Args:
        path: the table.
        split_column: name of the column that holds the split of each row.
        ignore_columns: names of further columns that are not classes.
        id_column: name of the column that holds the image ids; None is the first column. An unnamed first column,
            such as the row index that pandas writes, is ignored if this names another column.
        empty_cells: what an empty cell or NaN in a label column means: ``"error"`` or ``"absent"``.

    Returns:
        The table. Every other column is a class; its cells are 0, 1, 0.0, 1.0, True or False (in any case), or empty.

    Raises:
        FileNotFoundError: the table does not exist.
        ValueError: the table is empty, is not text of this format, has only one column, has unnamed or duplicated
            columns, lacks a column of a given name, has no class, has rows of different lengths, has empty or
            duplicated ids or the row index of pandas as ids, or has cells other than those above; ``empty_cells`` is
            unknown.
    """
    check_choice("empty_cells", empty_cells, ("error", "absent"))
    values = CELLS if empty_cells == "error" else {**CELLS, **dict.fromkeys(EMPTY, False)}
    (_, columns), *rows = read_rows(path)
    id_position = check_columns(path, columns, split_column, ignore_columns, id_column)
    not_classes = {"", columns[id_position], split_column, *ignore_columns}
    classes = [name for name in columns if name not in not_classes]
    if not classes:
        raise ValueError(
            f"{path} must have a label column, got only {columns}; add one column per class, or name fewer columns in "
            "ignore_columns"
        )
    if not rows:
        raise ValueError(f"{path} has a header but no rows; write one row per image below it")
    if id_column is None and not columns[0]:
        check_row_index(path, columns, [cells[0] for _, cells in rows])
    first_lines: dict[str, int] = {}
    labels: list[list[bool]] = []
    splits: list[str] = []
    other_columns: dict[str, list[str]] = {name: [] for name in ignore_columns}
    for line, cells in rows:
        if len(cells) != len(columns):
            raise ValueError(
                f"{path}, line {line}: a row must have one cell per column ({len(columns)}), got {len(cells)} cells; "
                "correct that row"
            )
        row = dict(zip(columns, cells, strict=True))
        image_id = cells[id_position]
        if not image_id:
            raise ValueError(f"{path}, line {line}: the image id is empty; correct that row")
        if image_id in first_lines:
            first = first_lines[image_id]
            raise ValueError(f"{path}, line {line}: id {image_id!r} is already in line {first}; keep one of the rows")
        first_lines[image_id] = line
        labels.append([read_cell(row[name], values, f"{path}, line {line}, column {name!r}") for name in classes])
        splits.append("" if split_column is None else row[split_column])
        for name, column in other_columns.items():
            column.append(row[name])
    return LabelTable(list(first_lines), classes, torch.tensor(labels), splits, other_columns)


def read_cell(cell: str, values: dict[str, bool], where: str) -> bool:
    """Read the label in a cell; ``where`` names the cell in the error message."""
    label = values.get(cell.lower())
    if label is not None:
        return label
    if cell.lower() in EMPTY:
        found = "an empty cell" if cell == "" else repr(cell)
        raise ValueError(
            f"{where}: a label must be known, got {found}; write 1 if the image has this label and 0 if not, set "
            "empty_cells='absent' (--empty-cells absent) if every empty cell means 0, or name the column in "
            "ignore_columns if it is not a class"
        )
    if cell in ("-1", "-1.0"):
        raise ValueError(
            f"{where}: a label must be 0 or 1, got {cell!r}; if -1 means that the image lacks the label, replace -1 "
            "by 0 in the whole table"
        )
    raise ValueError(
        f"{where}: a label must be 0, 1, True or False, got {cell!r}; name the column in ignore_columns if it is "
        "not a class, or in id_column if it holds the image ids"
    )


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Read the line number and the cells of the header and of every row that is not blank."""
    if not path.is_file():
        raise FileNotFoundError(f"no label table at {path}; correct the path")
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


def check_columns(
    path: Path, columns: list[str], split_column: str | None, ignore_columns: Collection[str], id_column: str | None
) -> int:
    """Check that the columns have distinct names and include the requested ones.

    Returns:
        The position of the column that holds the image ids.

    Raises:
        ValueError: a column has no name, a name appears twice, or a requested column is missing.
    """
    if len(columns) == 1:
        raise ValueError(f"{path} has only one column, {columns[0][:80]!r}; separate the columns with commas or tabs")
    for number, name in enumerate(columns[1:], start=2):
        if not name:
            raise ValueError(f"{path}: column {number} of {len(columns)} has no name; name it in the first line")
        if name in columns[: number - 1]:
            raise ValueError(
                f"{path} has two columns {name!r} (spaces around a name are ignored); rename or remove one"
            )
    if id_column is not None and id_column not in columns:
        raise ValueError(f"id_column must name a column of {path}, got {id_column!r}; its columns are {columns}")
    id_position = 0 if id_column is None else columns.index(id_column)
    others = [name for position, name in enumerate(columns) if position != id_position and name]
    for name in (*ignore_columns, *([] if split_column is None else [split_column])):
        if name not in others:
            raise ValueError(f"{path} has no column {name!r} besides the image ids; the other columns are {others}")
    return id_position


def check_row_index(path: Path, columns: list[str], ids: list[str]) -> None:
    """Raise ValueError if the ids of an unnamed column count the rows from 0, as the index that pandas writes does."""
    if ids == [str(number) for number in range(len(ids))]:
        raise ValueError(
            f"the first column of {path} has no name and counts the rows from 0, as the row index of pandas does; set "
            f"id_column to the column that holds the image ids, one of {columns[1:]}, or write the table with "
            "to_csv(path, index=False); if the images are really named 0, 1, ..., set id_column=''"
        )
