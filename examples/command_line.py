"""The command line of train.py."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from models import BACKBONES, TIMM
from package_losses import LOSSES
from run_settings import DEFAULTS, FREE_ON_RESUME, flag

AUGMENTATIONS = ("none", "flips", "crops")
SCHEDULES = ("constant", "cosine")
EMPTY_CELLS = "what an empty cell of a class means: an error, or that the image lacks the label (default: error)"


def add_table_options(add: Callable[..., Any]) -> None:
    """Add the options that tell how to read a label table; train.py has some more."""
    add("--id-column", metavar="NAME", help="column of the image ids in a label table (default: the first column)")
    add("--ignore-columns", nargs="*", default=[], metavar="NAME", help="columns of it that are not classes")
    add("--empty-cells", choices=("error", "absent"), default="error", help=EMPTY_CELLS)


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


def backbone(text: str) -> str:
    """A ``type`` for argparse that checks the name of a backbone; timm checks its own names later."""
    if text not in BACKBONES and not text.startswith(TIMM):
        raise argparse.ArgumentTypeError(f"must be {', '.join(BACKBONES)} or {TIMM}NAME, got {text!r}")
    return text


def device(text: str) -> torch.device:
    """A ``type`` for argparse that checks the name of a device."""
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"must be a device of torch, such as cpu or cuda:0, got {text!r}") from error


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
        help="synthetic scenes, or your images with a label table (default: csv with --images, otherwise synthetic)",
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
    add("--group-column", metavar="NAME", help="column of the tile or scene; images of one tile stay in one split")
    add("--ignore-columns", nargs="*", metavar="NAME", help="columns that are not classes")
    add("--empty-cells", choices=("error", "absent"), help=EMPTY_CELLS)
    add(
        "--channels",
        type=at_least_1,
        metavar="N",
        help="read images of N channels: .npy files, TIFF files with tifffile, grey or RGBA images; normalise each "
        "channel with its mean and standard deviation in the training images (csv, with small-cnn or a timm model; "
        "default: RGB images of 8 bits)",
    )
    add(
        "--image-size",
        type=at_least_1,
        metavar="PIXELS",
        help="side of the square input (default: 32 for synthetic; for csv 64 with small-cnn, the size that a timm "
        "model was made for, otherwise 128)",
    )
    add(
        "--augment",
        choices=AUGMENTATIONS,
        help="random changes of the training images: none, flips and quarter turns, or these and crops of at least "
        "half the area (default: flips; none with --freeze-trunk)",
    )
    add("--num-images", type=at_least_1, metavar="N", help="number of training images (synthetic; default: 2000)")
    add("--data-seed", type=int, metavar="N", help="seed of the synthetic scenes, or of the split (default: 0)")
    add = parser.add_argument_group("model").add_argument
    add(
        "--backbone",
        type=backbone,
        metavar="NAME",
        help=f"{', '.join(BACKBONES)}, or {TIMM}NAME for a model of the library timm (default: small-cnn)",
    )
    add(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        help="start from ImageNet weights, which resnet18 and timm download (default: only with efficientnet-lite0)",
    )
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="start a timm backbone from this file: safetensors, or a state_dict that torch saved",
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
        help="MACL, MACL with a learnt proxy of each label (for fine-tuning a whole network), MACL with pairs also "
        "weighted by their Jaccard similarity, MACL in which rare labels also count more in the Jaccard similarity, or "
        "a baseline (default: macl)",
    )
    add("--temperature", type=above_0, metavar="T", help="default: 0.2")
    add(
        "--hard-negatives",
        type=at_least_1,
        metavar="K",
        help="keep only the K most similar negatives of each anchor; our ablation found no gain from this "
        "(default: keep all negatives)",
    )
    add(
        "--classifier-weight",
        type=not_negative,
        metavar="W",
        help="also train a linear classifier of the labels on the embeddings; W multiplies its binary cross-entropy, "
        "which is added to the loss (default: 0, no classifier)",
    )
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=at_least_1, metavar="N", help="default: 40 with a frozen trunk, otherwise 10")
    add(
        "--patience",
        type=at_least_1,
        metavar="N",
        help="stop when N epochs in a row are not better on the validation split (default: never)",
    )
    add("--batch-size", type=at_least_1, metavar="N", help="default: 128 with a frozen trunk, otherwise 64")
    add("--lr", type=above_0, metavar="RATE", help="learning rate of AdamW (default: 0.001)")
    add(
        "--schedule",
        choices=SCHEDULES,
        help="learning rate after the warm-up: constant, or half a cosine that ends at 0 with the last epoch; with "
        "cosine, --resume cannot change --epochs (default: constant)",
    )
    add(
        "--warmup-epochs",
        type=at_least_0,
        metavar="N",
        help="epochs in which the learning rate rises linearly (default: 0)",
    )
    add("--weight-decay", type=not_negative, metavar="X", help="default: 0.0001")
    add("--amp", action="store_true", help="compute the training embeddings in mixed precision (bfloat16)")
    add(
        "--sync-batch-norm",
        action="store_true",
        help="batch normalisation with the statistics of the joint batch of all processes (GPUs only)",
    )
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
    if "resume" not in given:
        if "images" in given or "labels" in given:
            given.setdefault("dataset", "csv")
        problem = find_conflict({**DEFAULTS, **given})
        if problem is not None:
            parser.error(problem)
    return given


def find_conflict(chosen: Mapping[str, Any]) -> str | None:
    """What is wrong with a combination of options, or None."""
    if chosen["dataset"] == "csv" and None in (chosen["images"], chosen["labels"]):
        return "--dataset csv needs --images DIR and --labels FILE"
    if chosen["dataset"] != "csv" and (chosen["images"] or chosen["labels"]):
        return "--images and --labels need --dataset csv"
    if None not in (chosen["group_column"], chosen["split_column"]):
        return "--group-column and --split-column both decide the split; leave one of them out"
    if chosen["channels"] is not None and chosen["dataset"] != "csv":
        return "--channels needs --dataset csv; synthetic scenes are RGB images"
    if chosen["channels"] is not None and chosen["backbone"] != "small-cnn" and not chosen["backbone"].startswith(TIMM):
        return (
            f"--channels needs --backbone small-cnn or {TIMM}NAME; {chosen['backbone']} takes RGB images of 8 bits, "
            "without --channels"
        )
    pretrained = chosen.get("pretrained")
    if pretrained and chosen["backbone"] == "small-cnn":
        return "--pretrained needs another --backbone; small-cnn has no pretrained weights"
    if chosen["weights"] is not None and not chosen["backbone"].startswith(TIMM):
        return f"--weights needs --backbone {TIMM}NAME, got {chosen['backbone']}"
    if chosen["weights"] is not None and pretrained:
        return "--weights and --pretrained both set the weights; leave one of them out"
    if chosen["freeze_trunk"] and chosen.get("augment", "none") != "none":
        return (
            f"--freeze-trunk embeds each image once, so it cannot --augment {chosen['augment']}; leave one of them out"
        )
    return None
