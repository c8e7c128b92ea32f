"""The settings of train.py and its command line."""

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from models import BACKBONES

LOSSES = ("macl", "macl-weighted", "supcon-any")
# --resume may change these settings; all others stay as they were when the run started.
FREE_ON_RESUME = {"epochs", "device", "num_workers", "tensorboard", "images", "labels", "feature_cache"}
NOT_SAVED = {"output", "resume"}
PATHS = {"images", "labels", "feature_cache"}


@dataclass(frozen=True)
class Settings:
    """The settings of a run; ``train.py --help`` explains each of them."""

    dataset: str
    images: Path | None
    labels: Path | None
    id_column: str | None
    split_column: str | None
    ignore_columns: Sequence[str]
    image_size: int
    num_images: int
    data_seed: int
    backbone: str
    pretrained: bool
    freeze_trunk: bool
    feature_cache: Path
    hidden_size: int
    embedding_size: int
    dropout: float
    loss: str
    temperature: float
    hard_negatives: int | None
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
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


def number(convert: type, accepts: Callable[[Any], bool], expected: str) -> Callable[[str], Any]:
    """A ``type`` for argparse that converts a number and checks its range."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}")
        return value

    return parse


at_least_1 = number(int, lambda value: value >= 1, "a whole number of at least 1")
at_least_0 = number(int, lambda value: value >= 0, "a whole number of at least 0")
above_0 = number(float, lambda value: 0 < value < math.inf, "a number above 0")
not_negative = number(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
probability = number(float, lambda value: 0 <= value < 1, "a number in [0, 1)")


def device(text: str) -> torch.device:
    """A ``type`` for argparse that checks the name of a device."""
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"must be a device of torch, such as cpu or cuda:0, got {text!r}") from error


def check_device(device: torch.device) -> None:
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device} needs a GPU, and torch finds none; use --device cpu")


DEFAULTS = {
    "dataset": "synthetic",
    "images": None,
    "labels": None,
    "id_column": None,
    "split_column": None,
    "ignore_columns": [],
    "num_images": 2000,
    "data_seed": 0,
    "backbone": "small-cnn",
    "freeze_trunk": False,
    "hidden_size": 512,
    "embedding_size": 128,
    "loss": "macl",
    "temperature": 0.1,
    "hard_negatives": None,
    "batch_size": 128,
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "seed": 0,
    "num_workers": 0,
    "resume": False,
    "tensorboard": False,
}


def parse_args(argv: Sequence[str] | None, description: str | None) -> dict[str, Any]:
    """The settings that the command line gives, without defaults."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument_group("data").add_argument
    add(
        "--dataset",
        choices=("synthetic", "csv"),
        help="synthetic scenes, or your images with a label table (default: synthetic)",
    )
    add("--images", type=Path, metavar="DIR", help="image folder (csv)")
    add(
        "--labels",
        type=Path,
        metavar="FILE",
        help="label table: one row per image, a column of image ids and one 0/1 column per class (csv)",
    )
    add("--id-column", metavar="NAME", help="column of the image ids (default: the first column)")
    add(
        "--split-column",
        metavar="NAME",
        help="column that says train, val or test (default: split the images 60:20:20, stratified by label)",
    )
    add("--ignore-columns", nargs="*", metavar="NAME", help="columns that are not classes")
    add(
        "--image-size",
        type=at_least_1,
        metavar="PIXELS",
        help="side of the square input (default: 32 for synthetic; for csv 64 with small-cnn, otherwise 128)",
    )
    add("--num-images", type=at_least_1, metavar="N", help="number of training images (synthetic; default: 2000)")
    add("--data-seed", type=int, metavar="N", help="seed of the synthetic scenes, or of the split (default: 0)")
    add = parser.add_argument_group("model").add_argument
    add("--backbone", choices=BACKBONES, help="default: small-cnn")
    add(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        help="start from ImageNet weights (default: only with efficientnet-lite0)",
    )
    add(
        "--freeze-trunk",
        action="store_true",
        help="train only the head, on features that the backbone computes once",
    )
    add(
        "--feature-cache",
        type=Path,
        metavar="DIR",
        help="keep the features of a frozen backbone for later runs on the same images (csv); you may delete this "
        "folder at any time (default: feature-cache, beside the output folder)",
    )
    add("--hidden-size", type=at_least_1, metavar="N", help="width of the head's hidden layer (default: 512)")
    add("--embedding-size", type=at_least_1, metavar="N", help="default: 128")
    add(
        "--dropout",
        type=probability,
        metavar="P",
        help="before the last layer (default: 0.5 with --freeze-trunk, otherwise 0)",
    )
    add = parser.add_argument_group("loss").add_argument
    add(
        "--loss",
        choices=LOSSES,
        help="MACL, MACL with pairs also weighted by their Jaccard similarity, or the baseline SupCon, for which one "
        "shared label makes a positive pair (default: macl)",
    )
    add("--temperature", type=above_0, metavar="T", help="default: 0.1")
    add(
        "--hard-negatives",
        type=at_least_1,
        metavar="K",
        help="keep only the K most similar negatives of each anchor; our ablation found no gain from this "
        "(default: keep all negatives)",
    )
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=at_least_1, metavar="N", help="default: 40 with a frozen trunk, otherwise 10")
    add("--batch-size", type=at_least_1, metavar="N", help="default: 128")
    add("--lr", type=above_0, metavar="RATE", help="learning rate of AdamW (default: 0.001)")
    add("--weight-decay", type=not_negative, metavar="X", help="default: 0.0001")
    add("--seed", type=int, metavar="N", help="seed of the weights and of the order of the images (default: 0)")
    add("--device", type=device, help="default: cuda if there is a GPU, otherwise cpu")
    add(
        "--num-workers",
        type=at_least_0,
        metavar="N",
        help="processes that load and flip images (default: 0); the number changes which flips an image gets",
    )
    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, metavar="DIR", help="folder for the run (default: runs/<dataset>-<loss>-<time>)")
    add(
        "--resume",
        action="store_true",
        help="continue the run in --output with its settings; only "
        + ", ".join(map(flag, sorted(FREE_ON_RESUME)))
        + " may change",
    )
    add("--tensorboard", action="store_true", help="also write tensorboard records")
    given = vars(parser.parse_args(argv))
    if "resume" in given and "output" not in given:
        parser.error("--resume needs --output, the folder of the interrupted run")
    if "resume" not in given and given.get("dataset") == "csv" and not {"images", "labels"} <= given.keys():
        parser.error("--dataset csv needs --images DIR and --labels FILE")
    if given.get("pretrained") and given.get("backbone", DEFAULTS["backbone"]) == "small-cnn" and "resume" not in given:
        parser.error("--pretrained needs another --backbone; small-cnn has no pretrained weights")
    return given


def new_settings(given: Mapping[str, Any]) -> Settings:
    """The settings of a new run: what the command line gives, and defaults, some of which depend on other settings."""
    chosen = {**DEFAULTS, **given}
    small, frozen = chosen["backbone"] == "small-cnn", chosen["freeze_trunk"]
    chosen = {
        "image_size": 32 if chosen["dataset"] == "synthetic" else 64 if small else 128,
        "pretrained": chosen["backbone"] == "efficientnet-lite0",
        "dropout": 0.5 if frozen else 0.0,
        "epochs": 40 if frozen else 10,
        "device": torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        "output": Path("runs") / f"{chosen['dataset']}-{chosen['loss']}-{datetime.now():%Y%m%d-%H%M%S}",
        **chosen,
    }
    return Settings(**{"feature_cache": chosen["output"].parent / "feature-cache", **chosen})


def resumed_settings(given: Mapping[str, Any], saved: Mapping[str, Any]) -> Settings:
    """The settings of a resumed run: those of its checkpoint, except for what the command line may change.

    Raises:
        ValueError: the command line changes a setting that is fixed.
    """
    fixed = {name: plain(name, value) for name, value in given.items() if name not in FREE_ON_RESUME | NOT_SAVED}
    changed = [
        f"{flag(name)} is {saved[name]} in the run and {value} on the command line"
        for name, value in fixed.items()
        if value != saved[name]
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
    return shlex.join([python, sys.argv[0], "--output", str(output), "--resume"])


def plain(name: str, value: Any) -> Any:
    """A setting in a type that JSON knows; paths become absolute."""
    if isinstance(value, Path):
        return str(value.absolute())
    return str(value) if name == "device" else value


def flag(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"
