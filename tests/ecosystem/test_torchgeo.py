"""torchgeo's own BigEarthNet class on a tiny archive in its layout."""

import json
from operator import itemgetter

import numpy as np
import pytest
import torch
from dict_samples import BigEarthNetSamples, train_test_search

datasets = pytest.importorskip("torchgeo.datasets", reason="needs torchgeo: pip install torchgeo")
rasterio = pytest.importorskip("rasterio", reason="needs rasterio, which torchgeo installs")

pytestmark = pytest.mark.filterwarnings("default")  # rasterio and affine warn about each other
BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
NAMES = datasets.BigEarthNet.class_sets[43]
LABELS = [NAMES[index] for index in (0, 11, 17, 22, 42)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve training patches of 12 Sentinel-2 bands in three resolutions."""
    root = tmp_path_factory.mktemp("bigearthnet")
    metadata, generator = datasets.BigEarthNet.metadata, np.random.default_rng(0)
    for sensor in ("s1", "s2"):
        (root / metadata[sensor]["directory"]).mkdir()
    patches = [f"S2A_MSIL2A_20170613T101031_{number}_57" for number in range(12)]
    for number, patch in enumerate(patches):
        folder = root / metadata["s2"]["directory"] / patch
        folder.mkdir()
        labels = {"labels": [LABELS[number % 5], LABELS[(number // 2) % 5]]}
        (folder / f"{patch}_labels_metadata.json").write_text(json.dumps(labels))
        for band in BANDS:
            size = {"B01": 20, "B09": 20, "B02": 120, "B03": 120, "B04": 120, "B08": 120}.get(band, 60)
            values = generator.integers(0, 10_000, (1, size, size), dtype=np.uint16)
            transform = rasterio.transform.from_origin(0, 0, 1200 / size, 1200 / size)
            profile = {"driver": "GTiff", "height": size, "width": size, "count": 1, "dtype": "uint16"}
            with rasterio.open(
                folder / f"{patch}_{band}.tif", "w", crs="EPSG:32633", transform=transform, **profile
            ) as file:
                file.write(values)
    for split in datasets.BigEarthNet.splits_metadata.values():
        (root / split["filename"]).write_text("".join(f"{patch},S1_{patch}\n" for patch in patches))
    return root


def test_bigearthnet_in_trainer_tester_and_inference_model(root):
    dataset = datasets.BigEarthNet(root, bands="s2")
    sample, stand_in = dataset[0], BigEarthNetSamples(1)[0]
    assert {key: (value.dtype, value.shape) for key, value in sample.items()} == {
        key: (value.dtype, value.shape) for key, value in stand_in.items()
    }
    accuracies, ids, labels = train_test_search(dataset, itemgetter("image", "label"))
    assert all(0 <= value <= 1 for name, value in accuracies.items() if name != "epoch")
    assert [found[0] for found in ids] == list(range(12))  # each image finds itself first
    assert torch.equal(labels, torch.stack([dataset[row]["label"] for row in range(12)]).bool())
    assert labels.any(dim=1).all()
