"""The settings of train.py and its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from models import BACKBONES

LOSSES = ("macl", "macl-weighted", "supcon-any")
# A resumed run must have the settings of the interrupted one, except for these.
FREE_ON_RESUME = {"epochs", "output", "resume", "device", "num_workers", "tensorboard", "images", "labels"}


@dataclass(frozen=True)
class Settings:
    """What a run is made with; ``train.py --help`` explains each."""

    dataset: str
    images: Path | None
    labels: Path | None
    split_column: str | None
    ignore_columns: Sequence[str]
    image_size: int
    num_images: int
    data_seed: int
    backbone: str
    pretrained: bool
    freeze_trunk: bool
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

    def fixed_on_resume(self) -> dict[str, Any]:
        """What a resumed run must have in common with the interrupted one, in types that JSON knows."""
        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in FREE_ON_RESUME}
        return {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}


def parse_args(argv: list[str] | None, description: str | None) -> Settings:
    """The settings that a command line gives, with the defaults that depend on others filled in."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument_group("data").add_argument
    add("--dataset", choices=("synthetic", "csv"), default="synthetic")
    add("--images", type=Path, help="image folder (csv)")
    add("--labels", type=Path, help="label table: an id column, then one 0/1 column a class (csv)")
    add(
        "--split-column",
        help="column that says train, val or test; without it they are split 60:20:20, by label",
    )
    add("--ignore-columns", nargs="*", default=[], metavar="NAME", help="columns that are no classes")
    add("--image-size", type=int, help="side in pixels (default: 32 synthetic; csv 64 with small-cnn, else 128)")
    add("--num-images", type=int, default=2000, help="training images (synthetic)")
    add("--data-seed", type=int, default=0, help="seed of the scenes, or of the split")
    add = parser.add_argument_group("model").add_argument
    add("--backbone", choices=BACKBONES, default="small-cnn")
    add(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        help="ImageNet weights (default: efficientnet-lite0 only)",
    )
    add("--freeze-trunk", action="store_true", help="train the head only, on features that are computed once")
    add("--hidden-size", type=int, default=512)
    add("--embedding-size", type=int, default=128)
    add("--dropout", type=float, help="before the last layer (default: 0.5 with a frozen trunk, else 0)")
    add = parser.add_argument_group("loss").add_argument
    add("--loss", choices=LOSSES, default="macl")
    add("--temperature", type=float, default=0.1)
    add(
        "--hard-negatives",
        type=int,
        metavar="K",
        help="keep the K most similar negatives of each anchor (default: all)",
    )
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=int, help="default: 10, and 40 with a frozen trunk")
    add("--batch-size", type=int, default=128)
    add("--lr", type=float, default=1e-3)
    add("--weight-decay", type=float, default=1e-4)
    add("--seed", type=int, default=0)
    add("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--num-workers", type=int, default=0, help="processes that load and flip images (another number, other flips)")
    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, help="folder for the run (default: runs/<dataset>-<loss>-<time>)")
    add("--resume", action="store_true", help="go on with the run in --output")
    add("--tensorboard", action="store_true", help="also write tensorboard records")
    args = parser.parse_args(argv)

    if args.dataset == "csv" and (args.images is None or args.labels is None):
        parser.error("--dataset csv needs --images DIR and --labels FILE")
    if args.resume and args.output is None:
        parser.error("--resume needs --output, the folder of the interrupted run")
    csv_size = 64 if args.backbone == "small-cnn" else 128
    args.image_size = args.image_size or (32 if args.dataset == "synthetic" else csv_size)
    args.epochs = args.epochs or (40 if args.freeze_trunk else 10)
    args.dropout = (0.5 if args.freeze_trunk else 0.0) if args.dropout is None else args.dropout
    args.pretrained = args.backbone == "efficientnet-lite0" if args.pretrained is None else args.pretrained
    args.output = args.output or Path("runs") / f"{args.dataset}-{args.loss}-{datetime.now():%Y%m%d-%H%M%S}"
    return Settings(**vars(args))
