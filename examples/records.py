"""Copies of record-keeper's files, which a checkpoint holds.

A run may die after record-keeper has written an epoch and before that epoch is in a checkpoint. A resumed run trains
the epoch again. It first restores the files of the checkpoint, so that no epoch is recorded twice.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def copy_records(folder: Path) -> dict[str, Tensor]:
    """The bytes of each of record-keeper's files by file name."""
    return {path.name: torch.from_numpy(np.fromfile(path, np.uint8)) for path in record_files(folder)}


def restore_records(folder: Path, records: dict[str, Tensor]) -> None:
    """Replace record-keeper's files by those that :func:`copy_records` returned."""
    for path in record_files(folder):
        path.unlink()
    for name, content in records.items():
        content.numpy().tofile(folder / name)


def record_files(folder: Path) -> list[Path]:
    """The tables, the database and, after a crash, the journal of the database."""
    return [*folder.glob("*.csv"), *folder.glob("logs.db*")]
