"""Features of a frozen backbone, kept in a folder for later runs on the same images."""

import hashlib
import json
import sys
from pathlib import Path

import torch
from checkpoint import load_file, save_file
from data import Split, extract_features
from process_group import gather, is_first
from run_settings import Settings
from torch import Tensor, nn
from torch.utils.data import TensorDataset


def cached_features(trunk: nn.Sequential, splits: dict[str, Split], settings: Settings) -> dict[str, Split]:
    """The splits with features of the frozen trunk instead of images.

    An entry of the cache holds the features of all images of an archive, so runs with other splits reuse it. Its name
    is a hash of everything that the features depend on: the backbone with its weights and normalisation, the image
    size, the versions of torch and torchvision, and the path, size and modification time of each image file. Synthetic
    images are not files, and their features are not kept.
    """
    paths = sorted({path for split in splits.values() for path in split.paths})
    file = settings.feature_cache / f"{cache_key(trunk, paths, settings)}.pth"
    features = read_features(file, len(paths)) if paths else None
    if all(gather(features is not None)):
        print(f"reusing features of {len(paths)} images from {file}")
        rows = {path: row for row, path in enumerate(paths)}
        return {name: with_features(split, features[[rows[p] for p in split.paths]]) for name, split in splits.items()}
    extracted = {
        name: extract_features(trunk, split, name, settings.batch_size, settings.device, settings.num_workers)
        for name, split in splits.items()
    }
    # If an image changed during the extraction, its features belong to neither version.
    if paths and is_first() and file.stem == cache_key(trunk, paths, settings):
        found = {}
        for split in extracted.values():
            found.update(zip(split.paths, split.dataset.tensors[0], strict=True))
        write_features(file, torch.stack([found[path] for path in paths]))
    return extracted


def with_features(split: Split, features: Tensor) -> Split:
    return Split(TensorDataset(features, split.labels), split.labels, split.paths)


def read_features(file: Path, num_images: int) -> Tensor | None:
    """The (N, D) features in ``file``, or None if it is missing or damaged."""
    try:
        features = load_file(file, ("features",))["features"]
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"warning: {error}; extracting the features again", file=sys.stderr)
        return None
    return features if len(features) == num_images else None


def write_features(file: Path, features: Tensor) -> None:
    """Write an entry of the cache; if that fails, warn and go on."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(file, {"features": features})
    except OSError as error:
        print(f"warning: the features are not kept for later runs: {error}", file=sys.stderr)


def cache_key(trunk: nn.Sequential, paths: list[Path], settings: Settings) -> str:
    """A hash of everything that the features depend on."""
    import torchvision

    digest = hashlib.sha256()
    files = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    normalisation = [trunk[0].mean.flatten().tolist(), trunk[0].std.flatten().tolist()]
    versions = [torch.__version__, torchvision.__version__]
    digest.update(json.dumps([settings.backbone, settings.image_size, normalisation, versions, files]).encode())
    for name, tensor in trunk.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
