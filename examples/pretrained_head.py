"""Train the pretrained head of the examples again, and write it to a file.

The head maps features of EfficientNet-Lite0 to embeddings. search.py --pretrained uses it. pretrained_head.md says how
good it is, and on which data it was trained:

    python examples/pretrained_head.py --images DIR --labels FILE --output FOLDER
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import make_backbone, read_run, rebuild
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

HEAD = Path(__file__).with_suffix(".safetensors")
# A new option of train.py is not in this list, so the file stays the same.
NETWORK = ("backbone", "image_size", "hidden_size", "embedding_size", "dropout")
TRAINING = ("loss", "temperature", "batch_size", "lr", "weight_decay", "seed")


def load_pretrained(device: torch.device | str = "cpu") -> tuple[nn.Sequential, Callable[[Any], Tensor], list[str]]:
    """The pretrained head behind its trunk, EfficientNet-Lite0 with ImageNet weights from an installed package.

    Returns:
        What :func:`models.load_run` returns: the model, the transform, and the 17 label names of the training images.
    """
    return rebuild(pretrained_run(), device)


def pretrained_run() -> dict[str, Any]:
    """The pretrained head and its trunk as the content of a ``best.pth``; see :func:`models.save_run`."""
    with safe_open(HEAD, "pt") as file:
        run = json.loads(file.metadata()["run"])
        embedder = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (file is no mapping)
    trunk, _ = make_backbone(run["settings"]["backbone"], pretrained=True)
    return {**run, "models": {"trunk": trunk.state_dict(), "embedder": embedder}}


def save_head(run: dict[str, Any], path: Path) -> None:
    """Write the head of a run in half precision, and its classes, settings, normalisation and epoch as JSON.

    Args:
        run: what :func:`models.read_run` returned.
        path: a safetensors file.
    """
    settings = {name: run["settings"][name] for name in NETWORK + TRAINING}
    metadata = {"settings": settings, **{name: run[name] for name in ("classes", "mean", "std", "epoch")}}
    embedder = {name: tensor.half() for name, tensor in run["models"]["embedder"].items()}
    save_file(embedder, path, {"run": json.dumps(metadata, sort_keys=True)})


def main(argv: list[str] | None = None) -> None:
    import train  # only this function trains

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, metavar="DIR", help="images of UC Merced")
    parser.add_argument("--labels", required=True, metavar="FILE", help="label table with the column aitlas_split")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the run and the head")
    args = parser.parse_args(argv)
    # The order in which threads add numbers changes the last bits.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = ["--dataset", "csv", "--images", args.images, "--labels", args.labels, "--split-column", "aitlas_split"]
    settings = ["--ignore-columns", "scene", "--backbone", "efficientnet-lite0", "--freeze-trunk", "--device", "cpu"]
    settings += ["--temperature", "0.1"]  # the default when the head was trained
    output = ["--output", str(args.output), "--feature-cache", str(args.output / "features")]
    train.main([*data, *settings, *output])
    path = args.output / HEAD.name
    save_head(read_run(args.output), path)
    print(f"head: {path}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
