"""Backbones from the library timm, for ``--backbone timm/NAME``."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor, nn


def make_timm_model(
    name: str, pretrained: bool, weights: Path | None, image_size: int | None, channels: int | None = None
) -> tuple[nn.Module, int, Sequence[float], Sequence[float]]:
    """A timm model without its classifier, the number of its features, and mean and standard deviation of its input.

    Args:
        name: name of the model in timm.
        pretrained: let timm download its weights.
        weights: file of weights for this model, with or without a classifier.
        image_size: side of the images, for a model that takes one size only; None means the model's own size.
        channels: number of channels of the images; None means 3. timm repeats weights of 3 channels for any number.

    Raises:
        ImportError: timm is not installed.
        FileNotFoundError: there is no file ``weights``.
        ValueError: timm has no such model, or the weights do not fit it.
    """
    config = find_config(name)  # says how to install timm if it is missing
    import timm

    options: dict[str, Any] = {"num_classes": 0, "pretrained": pretrained or weights is not None}
    if config.fixed_input_size and image_size is not None:
        options["img_size"] = image_size
    if channels is not None:
        options["in_chans"] = channels
    if weights is not None:
        # timm adapts the weights to the image size. As it knows of no classifier, it accepts only weights that all fit.
        # As it knows no address, it never downloads.
        changes = {"classifier": None, "custom_load": False, "url": None, "hf_hub_id": None}
        state = read_weights(weights, config.classifier)
        if channels is not None:
            found = first_channels(state, config.first_conv)
            # Older versions of timm replace weights that they cannot repeat by random ones.
            if found == {channels}:
                changes["first_conv"] = None  # nothing to repeat
            elif found != {3}:
                raise ValueError(
                    f"--weights {weights} does not fit --backbone timm/{name}: its first layer must take 3 channels or "
                    f"those of --channels ({channels}), got {', '.join(map(str, sorted(found))) or 'no such layer'}"
                )
        options["pretrained_cfg_overlay"] = {"state_dict": state, **changes}
    try:
        network = timm.create_model(name, **options)
    except RuntimeError as error:
        if weights is None:
            raise
        raise ValueError(f"--weights {weights} does not fit --backbone timm/{name}: {one_line(error)}") from error
    data = timm.data.resolve_model_data_config(network)
    return network, network.head_hidden_size, data["mean"], data["std"]


def input_size(name: str) -> int:
    """The side of the images that a timm model was made for."""
    return int(find_config(name).input_size[-1])


def find_config(name: str) -> Any:
    """What timm knows of a model; see :func:`make_timm_model` for the errors."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ImportError('--backbone timm/NAME needs timm; install it with: pip install -e ".[timm]"') from error
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        similar = get_close_matches(name, timm.list_pretrained()) or ["the names that timm.list_models() returns"]
        raise ValueError(
            f"--backbone timm/{name}: timm {timm.__version__} has no such model; try {', '.join(similar)}"
        ) from error


def read_weights(file: Path, classifier: str | Sequence[str]) -> dict[str, Tensor]:
    """The weights in a safetensors file or a file of torch, without the classifier. Loading runs no code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no weights.
    """
    from timm.models import load_state_dict

    if not file.is_file():
        raise FileNotFoundError(f"--weights {file}: there is no such file")
    try:
        weights = load_state_dict(str(file))
    except Exception as error:  # torch and safetensors raise errors of many types for a file of another format
        raise ValueError(
            f"--weights {file} must be a safetensors file or a state_dict that torch saved: {one_line(error)}"
        ) from error
    classifiers = tuple(f"{part}." for part in ([classifier] if isinstance(classifier, str) else classifier))
    return {key: value for key, value in weights.items() if not key.startswith(classifiers)}


def first_channels(weights: dict[str, Tensor], layers: str | Sequence[str] | None) -> set[int]:
    """The numbers of channels that the first layers of a network take."""
    names = [f"{layer}.weight" for layer in ([layers] if isinstance(layers, str) else layers or [])]
    return {weights[name].shape[1] for name in names if name in weights}


def one_line(error: Exception) -> str:
    """The first sentence of a message, or its beginning, as it may list hundreds of weights."""
    text = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
