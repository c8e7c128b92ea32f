"""Settings that all runs of a retrieval benchmark or an ablation share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

# Defaults of each protocol. Seeds, epochs and image size are small, because everything runs on a CPU.
DEFAULTS = {
    "head": {"seeds": 5, "epochs": 20, "batch_size": 128, "lr": 1e-3, "dropout": 0.5, "image_size": 128},
    "finetune": {"seeds": 5, "epochs": 10, "batch_size": 64, "lr": 1e-3, "dropout": 0.0, "image_size": 96},
}
RECORDED = {"head": ("protocol", "epochs", "batch_size", "lr", "dropout")}
RECORDED["finetune"] = (*RECORDED["head"], "image_size", "backbone", "pretrained")


@dataclass(frozen=True)
class Settings:
    """Where a benchmark writes its runs, how it reads a data set, and how it trains.

    Args:
        output: folder of ``runs.jsonl``, the records and extracted features.
        protocol: "head" trains a head on frozen features, "finetune" trains the whole network.
        seeds: number of seeds.
        epochs: epochs of each run, without early stopping.
        batch_size: images per batch.
        lr: learning rate of the head.
        dropout: probability of dropout before the last layer of the head, in [0, 1).
        image_size: side of the square images in pixels.
        backbone: a name of ``from_examples.BACKBONES``; protocol "finetune" only.
        pretrained: whether the backbone starts from ImageNet weights.
        split_column: column of the label table with train, val or test.
        ignore_columns: columns of the label table that are not classes.
    """

    output: Path
    protocol: str
    seeds: int
    epochs: int
    batch_size: int
    lr: float
    dropout: float
    image_size: int
    backbone: str = "efficientnet-lite0"
    pretrained: bool = True
    split_column: str = "aitlas_split"
    ignore_columns: Sequence[str] = ("scene",)

    @classmethod
    def of_protocol(cls, protocol: str, given: Mapping[str, Any]) -> "Settings":
        """The defaults of a protocol, with the values that a command line changes.

        Args:
            protocol: a key of ``DEFAULTS``.
            given: values by name; None keeps the default, and names that are not settings are ignored.
        """
        names = {field.name for field in fields(cls)}
        chosen = {name: value for name, value in given.items() if name in names and value is not None}
        return cls(**{**DEFAULTS[protocol], **chosen, "protocol": protocol})

    def recorded(self) -> dict[str, Any]:
        """The settings that each line of ``runs.jsonl`` contains."""
        return {name: getattr(self, name) for name in RECORDED[self.protocol]}
