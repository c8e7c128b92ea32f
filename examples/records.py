"""The records of a run, brought back to where a checkpoint found them, so that no epoch is recorded twice."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

Marks = dict[str, dict[str, int]]


def mark_records(folder: Path) -> Marks:
    """How far record-keeper's files have come: bytes of each csv, last row of each table of the database."""
    with closing(sqlite3.connect(folder / "logs.db")) as database:
        rows = {name: database.execute(f'SELECT max(id) FROM "{name}"').fetchone()[0] or 0 for name in tables(database)}
    return {"bytes": {path.name: path.stat().st_size for path in folder.glob("*.csv")}, "rows": rows}


def trim_records(folder: Path, marks: Marks) -> None:
    """Take away what was recorded after the marks; without marks, all of it."""
    for path in folder.glob("*.csv"):
        size = marks.get("bytes", {}).get(path.name, 0)
        if size == 0:
            path.unlink()
        elif size < path.stat().st_size:
            os.truncate(path, size)
    with closing(sqlite3.connect(folder / "logs.db")) as database, database:
        for name in tables(database):
            last = marks.get("rows", {}).get(name, 0)
            database.execute(f'DELETE FROM "{name}" WHERE id > ?', (last,))
            database.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last, name))


def tables(database: sqlite3.Connection) -> list[Any]:
    """Names of record-keeper's tables."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in database.execute(query)]
