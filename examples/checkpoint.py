"""Checkpoints of a whole training run, in one file that is complete or not there."""

import os
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(path: Path, checkpoint: dict[str, Any], state: dict[str, dict[str, Any]]) -> None:
    """Write a checkpoint.

    Args:
        path: the file; it is replaced in one step, so an interruption leaves the one before.
        checkpoint: what to save as it is: numbers, strings, and lists and dictionaries of them.
        state: groups (models, optimizers, ...) of named objects, whose ``state_dict`` is saved.
    """
    groups = {group: {name: part.state_dict() for name, part in parts.items()} for group, parts in state.items()}
    partial = path.with_suffix(".partial")
    torch.save({**checkpoint, **groups}, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What :func:`save_checkpoint` wrote, or None where there is no file."""
    if not path.is_file():
        return None
    checkpoint: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return checkpoint
