"""The data sets of the examples, split into train, val and test."""

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from channel_files import channel_loader
from models import make_transform
from process_group import gather, share
from run_settings import Settings
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from tqdm import tqdm

from pml_macl.datasets import MultiLabelImageDataset, SyntheticScenes, stratified_split

SPLITS = ("train", "val", "test")
FRACTIONS = (0.6, 0.2, 0.2)


@dataclass
class Split:
    """A split of a data set.

    Args:
        dataset: items (image, labels).
        labels: (N, C) labels of all items.
        paths: the N image files; empty if the images are not files.
    """

    dataset: Dataset
    labels: Tensor
    paths: Sequence[Path] = ()


def load_splits(settings: Settings) -> tuple[dict[str, Split], list[str]]:
    """The splits that the settings ask for, and the label names; ``settings.augment`` changes the training images."""
    if settings.dataset == "synthetic":
        return load_synthetic(settings)
    return load_csv(settings)


def load_synthetic(settings: Settings) -> tuple[dict[str, Split], list[str]]:
    splits = {}
    for number, (name, size) in enumerate(zip(SPLITS, (settings.num_images, 500, 500), strict=True)):
        transform = training_transform(settings) if name == "train" else None
        scenes = SyntheticScenes(size, settings.image_size, seed=3 * settings.data_seed + number, transform=transform)
        splits[name] = Split(scenes, scenes.labels)
    return splits, scenes.classes


def load_csv(settings: Settings) -> tuple[dict[str, Split], list[str]]:
    plain = make_transform(settings.image_size)

    def dataset(transform, split=None):
        return MultiLabelImageDataset(
            settings.images,
            settings.labels,
            split=split,
            split_column=settings.split_column,
            ignore_columns={*settings.ignore_columns, settings.group_column} - {None},
            transform=transform,
            id_column=settings.id_column,
            empty_cells=settings.empty_cells,
            loader=channel_loader(settings.channels),
        )

    transforms = {"train": training_transform(settings, plain), "val": plain, "test": plain}
    everything = dataset(plain)
    everything.check_images()
    if settings.split_column is not None:
        parts = {name: dataset(transforms[name], name) for name in SPLITS}
        if others := len(everything) - sum(map(len, parts.values())):
            print(f"{others} of {len(everything)} images have another split than {', '.join(SPLITS)}, and are left out")
        return {name: Split(part, part.labels, part.paths) for name, part in parts.items()}, everything.classes
    groups = everything.other_columns.get(settings.group_column)
    part = stratified_split(everything.labels, FRACTIONS, settings.data_seed, groups)
    splits = {}
    for number, name in enumerate(SPLITS):
        rows = (part == number).nonzero().flatten()
        subset = Subset(dataset(transforms[name]), rows.tolist())
        splits[name] = Split(subset, everything.labels[rows], [everything.paths[row] for row in rows.tolist()])
    return splits, everything.classes


def digest(split: Split) -> str:
    """A hash of the images of a split, by file name, and of their labels, whatever their order."""
    names = [Path(path).name for path in split.paths] or [""] * len(split.labels)
    rows = sorted(zip(names, split.labels.int().tolist(), strict=True))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def check_splits(splits: Mapping[str, Split], classes: list[str], checkpoint: Mapping[str, Any]) -> None:
    """Raise unless these are the images and labels of the run whose checkpoint it is."""
    sizes = {name: len(split.labels) for name, split in splits.items()}
    if (classes, sizes) != (checkpoint["classes"], checkpoint["num_images"]):
        raise ValueError(
            f"expected {len(checkpoint['classes'])} labels and {checkpoint['num_images']} images, found {len(classes)} "
            f"labels and {sizes} images"
        )
    digests = {name: digest(split) for name, split in splits.items()}
    if checkpoint.get("digests", digests) != digests:  # older runs have none
        raise ValueError("the splits have other images or labels; without --split-column, the order of the rows counts")


def load_archive(
    args: argparse.Namespace, transform: Callable[[Any], Tensor], classes: list[str] | None, channels: int | None
) -> Split:
    """All images that ``--images`` and ``--labels`` name; their classes must be ``classes``, unless it is None."""
    dataset = MultiLabelImageDataset(
        args.images,
        args.labels,
        ignore_columns=args.ignore_columns,
        transform=transform,
        id_column=args.id_column,
        empty_cells=args.empty_cells,
        loader=channel_loader(channels),
    )
    if classes is not None and dataset.classes != classes:
        raise ValueError(
            f"--labels must have the classes of the run, {classes}, got {dataset.classes}; use the same columns in the "
            "same order, and name other columns in --ignore-columns"
        )
    dataset.check_images()
    return Split(dataset, dataset.labels, dataset.paths)


def training_transform(settings: Settings, *plain: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """The transform of a training image: ``plain``, if given, and the changes that ``settings.augment`` asks for."""
    steps = [*plain] if settings.augment == "none" else [*plain, random_flip]
    if settings.augment == "crops":
        from torchvision.transforms import v2

        # A crop of less than half the area would often lose an object that the labels name.
        steps = [v2.ToImage(), v2.RandomResizedCrop(settings.image_size, scale=(0.5, 1.0), antialias=True), *steps]
    return partial(apply_steps, steps)


def apply_steps(steps: Sequence[Callable[[Any], Any]], image: Any) -> Any:
    for step in steps:
        image = step(image)
    return image


def random_flip(image: Tensor) -> Tensor:
    """Apply one of the eight flips and quarter turns of a square; images from above have no upright side."""
    choice = int(torch.randint(8, ()))
    image = image.transpose(1, 2) if choice & 1 else image
    return image.flip([dim + 1 for dim in range(2) if choice >> (dim + 1) & 1])


@torch.no_grad()
def extract_features(
    backbone: nn.Module,
    split: Split,
    name: str,
    batch_size: int,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
) -> Split:
    """The split with features of the frozen backbone instead of images; the progress bar shows ``name``.

    Each process computes its share of the features.
    """
    backbone.eval().to(device)
    own = Subset(split.dataset, share(len(split.labels)))
    loader = DataLoader(own, batch_size, num_workers=num_workers)
    features = [backbone(images.to(device)).cpu() for images, _ in tqdm(loader, desc=f"features of {name}")]
    features = torch.cat([batch for part in gather(features) for batch in part])
    return Split(TensorDataset(features, split.labels), split.labels, split.paths)
