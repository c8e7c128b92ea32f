"""The output folder of train.py: what is in it before a run, and whether it can be written."""

import tempfile
from pathlib import Path
from typing import Any

from checkpoint import load_file
from run_settings import Settings, resume_command

CHECKPOINT_KEYS = (
    "epoch",
    "settings",
    "classes",
    "num_images",
    "before",
    "records",
    "models",
    "optimizers",
    "lr_schedulers",
)


def find_checkpoint(given: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of the run to resume, or None for a new run.

    Raises:
        ValueError: ``--resume`` finds no usable checkpoint, or a new run would overwrite another one.
    """
    folder = given.get("output")
    if given.get("resume"):
        try:
            return load_file(folder / "checkpoint.pth", CHECKPOINT_KEYS)
        except FileNotFoundError as error:
            raise ValueError(
                f"nothing to resume: {folder} has no checkpoint.pth; start a run without --resume"
            ) from error
        except ValueError as error:
            raise ValueError(f"cannot resume: {error}; start a new run with another --output") from error
    if folder is not None and (folder / "checkpoint.pth").exists():
        raise ValueError(f"{folder} already holds a run; continue it with --resume, or choose another --output")
    if folder is not None and (folder / "best.pth").exists():
        raise ValueError(f"{folder} already holds the model of a run (best.pth); choose another --output")
    return None


def check_output(folder: Path) -> None:
    """Make the output folder and write a test file, so that a folder without write access fails before the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
        for leftover in folder.glob("*.pth.*.partial"):  # of a process that was killed while it saved
            leftover.unlink()
    except OSError as error:
        raise OSError(f"cannot write to --output {folder} ({error.strerror}); choose another folder") from error


def describe_interruption(settings: Settings) -> str:
    """One line for a person who pressed Ctrl-C: what is saved, and how to continue."""
    try:
        epoch = load_file(settings.output / "checkpoint.pth", CHECKPOINT_KEYS)["epoch"]
    except (OSError, ValueError):
        return "interrupted before the first checkpoint; nothing is saved, so start the run again"
    return (
        f"interrupted; {epoch} of {settings.epochs} epochs are saved in {settings.output}; "
        f"continue with: {resume_command(settings.output)}"
    )
