"""Embeddings joined with principal components of the features of an archive, and the option --feature-weight."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from pml_macl.inference import JoinedEmbedder
from pml_macl.inference.batches import batches_of

RUN_WEIGHT = 0.2  # docs/results/index.md: the best mean rank for labels that the training has seen
PRETRAINED_HEAD_WEIGHT = 0.5  # chosen on a validation split, see pretrained_head.md
SAMPLE = 1024  # number of images whose features give the axes


def add_feature_weight(add: Callable[..., Any]) -> None:
    """Add the option to a command line that has ``--pretrained``."""
    add(
        "--feature-weight",
        type=float,
        metavar="W",
        help="join the embeddings with principal components of the features of the archive, which count W in [0, 1] "
        f"(default: {RUN_WEIGHT} if the backbone of the run started from pretrained weights, otherwise 0; "
        f"{PRETRAINED_HEAD_WEIGHT} with --pretrained)",
    )


def default_weight(settings: Mapping[str, Any]) -> float:
    """How much the features count for a run with these settings: 0 if there were no pretrained weights to remember."""
    return RUN_WEIGHT if settings["pretrained"] or settings.get("weights") else 0.0


def chosen_weight(args: argparse.Namespace, settings: Mapping[str, Any]) -> float:
    """The value of ``--feature-weight``, or its default for the pretrained head or for a run with these settings."""
    if args.feature_weight is not None:
        return args.feature_weight
    return PRETRAINED_HEAD_WEIGHT if args.pretrained else default_weight(settings)


def fit_components(
    trunk: nn.Module, embedder: nn.Module, dataset: Dataset[Any], weight: float, device: torch.device | str
) -> dict[str, Any] | None:
    """Compute the components of images that are spread evenly over an archive.

    Returns:
        The arguments of :class:`JoinedEmbedder` after the embedder; None if the features do not count.
    """
    if weight == 0:
        return None
    rows = torch.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).long().tolist()
    if len(rows) < 2:
        raise ValueError("--feature-weight needs at least two images; give more images, or --feature-weight 0")
    batches = tqdm(batches_of(Subset(dataset, rows), batch_size=64), "features", leave=False, disable=None)
    with torch.no_grad():
        features = torch.cat([trunk(images.to(device)).cpu() for images, _ in batches])
    joined = JoinedEmbedder.fit(embedder, features, weight)
    return {"mean": joined.mean, "axes": joined.axes, "weight": joined.weight}


def make_embedder(embedder: nn.Module, joined: Mapping[str, Any] | None, device: torch.device | str) -> nn.Module:
    """The embedder, joined with the components that :func:`fit_components` returned."""
    return embedder if joined is None else JoinedEmbedder(embedder, **joined).to(device)
