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
