"""The questions of the generalisation benchmark: what is trained on, and what is then searched for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from from_examples import Split
from protocols import load_features
from settings import Settings
from torch import Tensor
from torch.utils.data import TensorDataset

from pml_macl.datasets.label_table import read_label_table

QUESTIONS = {
    "unseen labels": (
        "The labels are split at random into three thirds. Training leaves out the columns of one third. The test "
        "images are then searched by exactly these columns."
    ),
    "seen labels": "The same runs, but the test images are searched by the columns that training has seen.",
    "unseen scenes": (
        "The scene categories are split at random into five fifths. Training leaves out the images of one fifth. These "
        "images, without those of the validation split, are then the queries and the references."
    ),
    "other archive": (
        "Training sees the other data set, which has the same labels. The test images of this data set are then "
        "searched."
    ),
    "10 % of the images": (
        "Training sees a random tenth of the training images, for about as many steps as with all of them."
    ),
    "20 % of the images": "The same with a fifth of the training images.",
    "50 % of the images": "The same with half of the training images.",
    "incomplete labels": (
        "Each positive label of a training image is deleted with probability 0.3. The labels of the test images are "
        "complete."
    ),
}


@dataclass(frozen=True)
class Archive:
    """A data set on frozen features; ``splits`` and ``scenes`` have a name for each row."""

    features: Tensor
    labels: Tensor
    splits: list[str]
    scenes: list[str]

    def rows(self, split: str) -> Tensor:
        """Mask of the rows in this split."""
        return torch.tensor([name == split for name in self.splits])


@dataclass(frozen=True)
class Case:
    """One training and its tests.

    Args:
        answer: tells the cases of a question apart, such as the number of a fold.
        train: features and labels to train on.
        tests: features and labels of the queries, which are also the references, by question.
        epochs: factor for the number of epochs.
        source: the data set of the training images, if it is not the one that is searched.
    """

    answer: str
    train: Split
    tests: Mapping[str, tuple[Tensor, Tensor]]
    epochs: float = 1.0
    source: str = ""


def read_archive(folder: Path, settings: Settings, scene_column: str) -> Archive:
    """Read the features, labels, splits and scenes of a data set."""
    path = folder / "labels.csv"
    ignored = {*settings.ignore_columns, scene_column}
    table = read_label_table(path, settings.split_column, ignored)
    others = {*ignored, settings.split_column} - {scene_column}
    scenes = read_label_table(path, scene_column, others).splits
    return Archive(load_features(folder, table, settings), table.labels, table.splits, scenes)


def labelled(features: Tensor, labels: Tensor) -> Split:
    """The images that carry at least one label, to train on."""
    known = labels.any(dim=1)
    return Split(TensorDataset(features[known], labels[known]), labels[known])


def cases(archives: Mapping[str, Archive], data: str, seed: int) -> Iterator[Case]:
    """All cases whose tests are on the data set ``data``; the seed draws labels and images, seed 0 also scenes."""
    archive = archives[data]
    train, test = archive.rows("train"), archive.rows("test")
    images, labels = archive.features[train], archive.labels[train]
    queries, wanted = archive.features[test], archive.labels[test]
    generator = torch.Generator().manual_seed(seed)

    columns = torch.randperm(labels.shape[1], generator=generator)
    for number, third in enumerate(columns.tensor_split(3)):
        unseen = torch.zeros(labels.shape[1], dtype=torch.bool).index_fill_(0, third, value=True)
        tests = {"unseen labels": (queries, wanted[:, unseen]), "seen labels": (queries, wanted[:, ~unseen])}
        yield Case(f"third {number}", labelled(images, labels[:, ~unseen]), tests)

    names = sorted(set(archive.scenes))
    order = torch.randperm(len(names), generator=generator)
    for fold, members in enumerate(order.tensor_split(5) if seed == 0 else ()):
        held_out = {names[number] for number in members.tolist()}
        out = torch.tensor([scene in held_out for scene in archive.scenes])
        rows = out & ~archive.rows("val")
        tests = {"unseen scenes": (archive.features[rows], archive.labels[rows])}
        yield Case(f"fold {fold}", labelled(archive.features[train & ~out], archive.labels[train & ~out]), tests)

    for name, other in archives.items():
        if name != data:
            rows = other.rows("train")
            known = labelled(other.features[rows], other.labels[rows])
            yield Case(name, known, {"other archive": (queries, wanted)}, source=name)

    for percent in (10, 20, 50):
        few = torch.randperm(len(images), generator=generator)[: round(len(images) * percent / 100)]
        tests = {f"{percent} % of the images": (queries, wanted)}
        yield Case(f"{percent} %", labelled(images[few], labels[few]), tests, epochs=100 / percent)

    kept = labels & (torch.rand(labels.shape, generator=generator) >= 0.3)
    yield Case("incomplete", labelled(images, kept), {"incomplete labels": (queries, wanted)})
