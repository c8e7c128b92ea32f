"""Makes an archive to train on, and compares the checkpoints of two runs."""

import struct
import zlib

import torch
from PIL import Image

from pml_macl.datasets import SyntheticScenes


def write_archive(folder, num_images, image_size, seed):
    """Write synthetic scenes as an image folder and a label table, whose column ``part`` holds the split."""
    scenes = SyntheticScenes(num_images, image_size, seed=seed)
    (folder / "images").mkdir()
    lines = ["image,part," + ",".join(scenes.classes)]
    for row, (image, labels) in enumerate(scenes):
        pixels = (255 * image).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "images" / f"{row:02}.png")
        part = ("train", "train", "train", "val", "test")[row % 5]
        lines.append(f"{row:02},{part}," + ",".join(str(int(x)) for x in labels))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_untrained_run(folder, classes, pretrained=False):
    """Write the output folder of a run whose small network has random weights, whatever its settings say."""
    from models import make_model, save_run

    settings = {"backbone": "small-cnn", "pretrained": pretrained, "image_size": 32}
    settings |= {"hidden_size": 16, "embedding_size": 8, "dropout": 0.0}
    torch.manual_seed(0)
    folder.mkdir()
    save_run(folder, make_model(settings), settings, classes, epoch=1)


def flat(state, prefix=""):
    """The leaves of nested dictionaries and lists, by path."""
    if isinstance(state, (dict, list)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for name, part in items for k, v in flat(part, f"{prefix}/{name}").items()}
    return {prefix: state}


def assert_same_state(first, second, ignore=()):
    """Two checkpoints hold the same leaves; ``ignore`` names leaves, such as "/settings/images", that may differ."""
    first, second = (flat(torch.load(path, weights_only=True)) for path in (first, second))
    assert first.keys() == second.keys()
    for name in ignore:
        del first[name]
    for name, value in first.items():
        other = second[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else repr(value) == repr(other), name


def write_png_of_16_bits(path, pixels):
    """Write an (H, W, 3) array as an RGB PNG with 16 bits per channel, which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)  # each row begins with its filter, none
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
