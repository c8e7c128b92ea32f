"""The settings of train.py: their defaults, how a checkpoint holds them, and what a resumed run may change."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from models import default_image_size
from process_group import num_processes

# --resume may change these settings; all others stay as they were when the run started.
FREE_ON_RESUME = {"epochs", "patience", "device", "num_workers", "tensorboard", "images", "labels", "feature_cache"}
NOT_SAVED = {"output", "resume"}
PATHS = {"images", "labels", "weights", "feature_cache"}
DEFAULTS = {
    "dataset": "synthetic",
    "images": None,
    "labels": None,
    "id_column": None,
    "split_column": None,
    "group_column": None,
    "ignore_columns": [],
    "empty_cells": "error",
    "channels": None,
    "num_images": 2000,
    "data_seed": 0,
    "backbone": "small-cnn",
    "weights": None,
    "freeze_trunk": False,
    "hidden_size": 512,
    "embedding_size": 128,
    "loss": "macl",
    "temperature": 0.2,
    "hard_negatives": None,
    "classifier_weight": 0.0,
    "patience": None,
    "lr": 1e-3,
    "schedule": "constant",
    "warmup_epochs": 0,
    "weight_decay": 1e-4,
    "amp": False,
    "sync_batch_norm": False,
    "seed": 0,
    "num_workers": 0,
    "resume": False,
    "tensorboard": False,
}


@dataclass(frozen=True)
class Settings:
    """The settings of a run; ``train.py --help`` explains each of them."""

    dataset: str
    images: Path | None
    labels: Path | None
    id_column: str | None
    split_column: str | None
    group_column: str | None
    ignore_columns: Sequence[str]
    empty_cells: str
    channels: int | None
    image_size: int
    augment: str
    num_images: int
    data_seed: int
    backbone: str
    pretrained: bool
    weights: Path | None
    freeze_trunk: bool
    feature_cache: Path
    hidden_size: int
    embedding_size: int
    dropout: float
    loss: str
    temperature: float
    hard_negatives: int | None
    classifier_weight: float
    epochs: int
    patience: int | None
    batch_size: int
    lr: float
    schedule: str
    warmup_epochs: int
    weight_decay: float
    amp: bool
    sync_batch_norm: bool
    seed: int
    device: torch.device
    num_workers: int
    output: Path
    resume: bool
    tensorboard: bool

    def to_save(self) -> dict[str, Any]:
        """The settings that a checkpoint holds, in types that JSON knows and with absolute paths."""
        return {
            field.name: plain(field.name, getattr(self, field.name))
            for field in fields(self)
            if field.name not in NOT_SAVED
        }

    def fixed_on_resume(self) -> dict[str, Any]:
        """The settings that a resumed run shares with the interrupted one, in types that JSON knows."""
        return {name: value for name, value in self.to_save().items() if name not in FREE_ON_RESUME}


def new_settings(given: Mapping[str, Any]) -> Settings:
    """The settings of a new run: what the command line gives, and defaults, some of which depend on other settings."""
    chosen = {**DEFAULTS, **given}
    frozen = chosen["freeze_trunk"]
    chosen = {
        "augment": "none" if frozen else "flips",
        "pretrained": chosen["backbone"] == "efficientnet-lite0",
        "dropout": 0.5 if frozen else 0.0,
        "epochs": 40 if frozen else 10,
        "batch_size": 128 if frozen else 64,
        "device": torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        "output": new_folder(f"{chosen['dataset']}-{chosen['loss']}"),
        **chosen,
    }
    if chosen["warmup_epochs"] and chosen["warmup_epochs"] >= chosen["epochs"]:
        raise ValueError(f"--warmup-epochs must be below --epochs ({chosen['epochs']}), got {chosen['warmup_epochs']}")
    if "image_size" not in chosen:
        chosen["image_size"] = 32 if chosen["dataset"] == "synthetic" else default_image_size(chosen["backbone"])
    return Settings(**{"feature_cache": chosen["output"].parent / "feature-cache", **chosen})


def new_folder(name: str) -> Path:
    """A folder in ``runs`` for the results of this process; runs that start in the same second have different ones."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


def resumed_settings(given: Mapping[str, Any], saved: Mapping[str, Any]) -> Settings:
    """The settings of a resumed run: those of its checkpoint, except for what the command line may change.

    Raises:
        ValueError: the command line changes a setting that is fixed.
    """
    free = FREE_ON_RESUME - {"epochs"} if saved.get("schedule") == "cosine" else FREE_ON_RESUME
    fixed = {name: plain(name, value) for name, value in given.items() if name not in free | NOT_SAVED}
    changed = [
        f"{flag(name)} is {before} in the run and {value} on the command line"
        for name, value in fixed.items()
        if value != (before := saved.get(name, DEFAULTS.get(name)))  # an older run lacks newer settings
    ]
    if changed:
        raise ValueError(
            f"--resume cannot change these settings of the run in {given['output']}: {'; '.join(changed)}. "
            "Leave them out, or start a new run with another --output"
        )
    restored = {name: Path(value) if name in PATHS and value is not None else value for name, value in saved.items()}
    return new_settings({**restored, "device": torch.device(saved["device"]), **given})


def resume_command(output: Path) -> str:
    """The shell command that continues the run in ``output``."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    start = [python]
    if num_processes() > 1:
        torchrun = ["torchrun"] if python == "python" else [python, "-m", "torch.distributed.run"]
        start = [*torchrun, "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]
    return shlex.join([*start, sys.argv[0], "--output", str(output), "--resume"])


def plain(name: str, value: Any) -> Any:
    """A setting in a type that JSON knows; paths become absolute."""
    if isinstance(value, Path):
        return str(value.absolute())
    return str(value) if name == "device" else value


def flag(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def check_device(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device} needs a GPU, and torch finds none; use --device cpu")
