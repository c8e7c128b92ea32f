"""MultiLabelImageDataset reads a multispectral TIFF file with tifffile."""

import numpy as np
import pytest
import torch

from pml_macl.datasets import MultiLabelImageDataset

tifffile = pytest.importorskip("tifffile", reason="needs tifffile: pip install tifffile")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_twelve_bands_of_16_bits(tmp_path, planar):
    values = np.random.default_rng(0).integers(0, 2**16, (6, 5, 12), dtype=np.uint16)
    bands = values if planar == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "patch.tif", bands, photometric="minisblack", planarconfig=planar)
    (tmp_path / "labels.csv").write_text("id,forest\npatch,1\n")
    dataset = MultiLabelImageDataset(tmp_path, tmp_path / "labels.csv", loader=tifffile.imread)
    dataset.check_images()
    image, label = dataset[0]
    assert image.dtype == np.uint16
    assert np.array_equal(image, bands)
    assert torch.equal(label, torch.tensor([True]))


def test_train_py_with_twelve_bands_of_16_bits(tmp_path):
    """A new image is embedded by what the folder of the run holds."""
    import train  # not at the top: the other test needs no example
    from channel_files import read_channels
    from models import load_run

    values = np.random.default_rng(0).integers(0, 2**16, (16, 12, 16, 16), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    lines = ["patch,part,forest,water"]
    for row, bands in enumerate(values):
        tifffile.imwrite(tmp_path / "images" / f"{row}.tif", bands, photometric="minisblack", planarconfig="separate")
        lines.append(f"{row},{('train', 'train', 'val', 'test')[row % 4]},{row // 4 % 2},{row // 8}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    paths = ["--images", tmp_path / "images", "--labels", tmp_path / "labels.csv", "--output", tmp_path / "run"]
    options = "--dataset csv --channels 12 --split-column part --batch-size 8 --epochs 1 --device cpu"
    train.main([*options.split(), *map(str, paths)])
    model, transform, _ = load_run(tmp_path / "run")
    image = read_channels(tmp_path / "images" / "3.tif", 12)
    assert np.array_equal(image.numpy(), values[3])
    assert model(transform(image)[None]).shape == (1, 128)
