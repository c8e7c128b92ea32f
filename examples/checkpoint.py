"""Checkpoints of a whole training run: the last one and, should it be damaged, the one before."""

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(
    path: Path, checkpoint: dict[str, Any], state: dict[str, dict[str, Any]], keep_previous: bool = False
) -> None:
    """Write a checkpoint, all of it or nothing: whenever the process dies, a complete one is there.

    Args:
        path: the file; it is replaced in one step.
        checkpoint: what to save as it is: numbers, strings, and lists and dictionaries of them.
        state: groups (models, optimizers, ...) of named objects, whose ``state_dict`` is saved.
        keep_previous: keep the checkpoint that is replaced, for :func:`load_checkpoint` to fall back on.

    Raises:
        OSError: the file cannot be written; the checkpoints that are there stay.
    """
    groups = {group: {name: part.state_dict() for name, part in parts.items()} for group, parts in state.items()}
    content = io.BytesIO()  # torch hides what is wrong with a disk that it writes to itself
    torch.save({**checkpoint, **groups}, content)
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"cannot write a checkpoint: {error.strerror}", str(path)) from error
    if keep_previous and path.exists():
        os.replace(path, previous(path))
    os.replace(partial, path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The last complete checkpoint that :func:`save_checkpoint` wrote, or None where there never was one.

    A damaged file is renamed to ``.damaged``, with a warning, and the one before it is taken.

    Raises:
        ValueError: there are damaged files only.
    """
    damaged = []
    for candidate in (path, previous(path)):
        if not candidate.is_file():
            continue
        if is_complete(candidate):
            checkpoint: dict[str, Any] = torch.load(candidate, map_location=device, weights_only=True)
            return checkpoint
        damaged.append(candidate.with_suffix(".damaged"))
        os.replace(candidate, damaged[-1])
        print(f"warning: {candidate} is damaged and now called {damaged[-1].name}", file=sys.stderr)
    if damaged:
        raise ValueError(
            f"no complete checkpoint is left beside {', '.join(map(str, damaged))}; begin anew with another --output"
        )
    return None


def is_complete(path: Path) -> bool:
    """Whether all of the file is there and as it was written; ``torch.load`` does not look at the checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):  # what damaged headers give
        return False


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_suffix(".previous.pth")
