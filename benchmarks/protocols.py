"""Load the data and make the networks of each protocol: a head on frozen features, or the whole network."""

import sys
from pathlib import Path

import numpy as np
import torch
from from_examples import SPLITS, Split, extract_features, make_backbone, make_head, random_flip
from settings import Settings
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from pml_macl.datasets import MultiLabelImageDataset
from pml_macl.datasets.label_table import LabelTable, read_label_table

FEATURES = "features_efficientnet_lite0.npz"


class CachedImages(Dataset):
    """Images in memory, uint8 of shape (N, 3, S, S). Items are floats in [0, 1]; ``augment`` flips and turns them."""

    def __init__(self, images: Tensor, labels: Tensor, augment: bool) -> None:
        self.images, self.labels, self.augment = images, labels, augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index].float() / 255
        return random_flip(image) if self.augment else image, self.labels[index]


def load(folder: Path, settings: Settings) -> dict[str, Split]:
    """Load the splits of a data set: features for the protocol "head", images for "finetune"."""
    try:
        table = read_label_table(folder / "labels.csv", settings.split_column, settings.ignore_columns)
        if settings.protocol == "finetune":
            return split_rows(table, load_images(folder, settings), augment="train")
        return split_rows(table, load_features(folder, table, settings))
    except (FileNotFoundError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")


def split_rows(table: LabelTable, inputs: Tensor, augment: str | None = None) -> dict[str, Split]:
    """Split the inputs and their labels by the split column of the table."""
    rows, splits = np.array(table.splits), {}
    for name in SPLITS:
        mask = torch.from_numpy(rows == name)
        part, labels = inputs[mask], table.labels[mask]
        is_image = inputs.dtype == torch.uint8
        splits[name] = Split(
            CachedImages(part, labels, name == augment) if is_image else TensorDataset(part, labels), labels
        )
    return splits


def load_images(folder: Path, settings: Settings) -> Tensor:
    """Load and resize all images of a data set: uint8 of shape (N, 3, S, S)."""
    from torchvision.transforms import v2

    size = (settings.image_size, settings.image_size)
    dataset = MultiLabelImageDataset(
        folder / "images",
        folder / "labels.csv",
        split_column=settings.split_column,
        ignore_columns=settings.ignore_columns,
        transform=v2.Compose([v2.ToImage(), v2.Resize(size, antialias=True)]),
    )
    return torch.stack([image for image, _ in dataset])


def load_features(folder: Path, table: LabelTable, settings: Settings) -> Tensor:
    """Load the features beside the label table, or extract them once and keep them in the output folder."""
    given, kept = folder / FEATURES, settings.output / f"{folder.resolve().name}-{FEATURES}"
    if not given.is_file() and not kept.is_file():
        backbone, _ = make_backbone("efficientnet-lite0", pretrained=True)
        images = CachedImages(load_images(folder, settings), table.labels, augment=False)
        features = extract_features(backbone, Split(images, table.labels), folder.name, batch_size=64)
        np.savez(kept, X=features.dataset.tensors[0].numpy().astype(np.float16))
    path = given if given.is_file() else kept
    features = np.load(path, allow_pickle=False)["X"]
    if len(features) != len(table.ids):
        raise ValueError(
            f"{path} must have one row per image of {folder}/labels.csv ({len(table.ids)}), got {len(features)}"
        )
    return torch.from_numpy(features).float()


def make_models(
    settings: Settings, splits: dict[str, Split], num_outputs: int
) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    """Make trunk, embedder and their optimizers, under the names that PML's trainers expect.

    A pretrained trunk has a third of the head's learning rate, because large steps would undo its weights.
    """
    if settings.protocol == "head":
        trunk, num_features = nn.Identity(), splits["train"].dataset[0][0].numel()
    else:
        trunk, num_features = make_backbone(settings.backbone, settings.pretrained)
        trunk = trunk.to(memory_format=torch.channels_last)  # its convolutions are faster on a CPU
    head = make_head(num_features, 512, num_outputs, settings.dropout)
    rates = {"trunk": settings.lr / 3 if settings.pretrained else settings.lr, "embedder": settings.lr}
    models = {"trunk": trunk, "embedder": head}
    optimizers = {
        f"{name}_optimizer": torch.optim.AdamW(model.parameters(), lr=rates[name], weight_decay=1e-4)
        for name, model in models.items()
        if not isinstance(model, nn.Identity)
    }
    return models, optimizers
