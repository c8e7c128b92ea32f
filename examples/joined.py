"""The option --feature-weight: embeddings joined with principal components of the features of an archive."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, Subset
from tqdm import tqdm

from pml_macl.inference import JoinedEmbedder
from pml_macl.inference.batches import batches_of

PRETRAINED_WEIGHT = 0.5  # chosen on a validation split, see pretrained_head.md
SAMPLE = 1024  # number of images whose features give the axes


def add_feature_weight(add: Callable[..., Any]) -> None:
    """Add the option to a command line that has ``--pretrained``."""
    add(
        "--feature-weight",
        type=float,
        metavar="W",
        help="join the embeddings with principal components of the features of the archive, which count W in [0, 1] "
        f"(default: 0; {PRETRAINED_WEIGHT} with --pretrained)",
    )


def fit_components(network: nn.Sequential, dataset: Dataset[Any], args: argparse.Namespace) -> dict[str, Any] | None:
    """Compute the components of images that are spread evenly over an archive.

    Returns:
        The arguments of :class:`JoinedEmbedder` after the embedder; None if the features do not count.
    """
    weight = args.feature_weight
    if weight is None:
        weight = PRETRAINED_WEIGHT if args.pretrained else 0.0
    if weight == 0:
        return None
    rows = torch.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).long().tolist()
    if len(rows) < 2:
        raise ValueError("--feature-weight needs at least two images; give more images, or leave it out")
    batches = tqdm(batches_of(Subset(dataset, rows), batch_size=64), "features", leave=False, disable=None)
    with torch.no_grad():
        features = torch.cat([network.trunk(images.to(args.device)).cpu() for images, _ in batches])
    joined = JoinedEmbedder.fit(network.embedder, features, weight)
    return {"mean": joined.mean, "axes": joined.axes, "weight": joined.weight}


def make_embedder(network: nn.Sequential, joined: Mapping[str, Any] | None, device: torch.device | str) -> nn.Module:
    """The embedder of a network, joined with the components that :func:`fit_components` returned."""
    return network.embedder if joined is None else JoinedEmbedder(network.embedder, **joined).to(device)
