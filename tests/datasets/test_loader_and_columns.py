"""MultiLabelImageDataset with a loader, with empty cells, and with columns that are not classes."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch.utils.data import DataLoader

from pml_macl.datasets import BaseMultiLabelImageDataset, MultiLabelImageDataset

TABLE = "patch,tile,split,forest,water\nn1.tif,32TMT,train,1,0\nn2,33UWP,val,0,1\nn3.npy,32TMT,train,1,1\n"


def bands_of_tiff(path):
    """Read a TIFF file of one 16-bit page per band."""
    with Image.open(path) as pages:
        return np.stack([np.array(page) for page in ImageSequence.Iterator(pages)])


def read_bands(path):
    return np.load(path) if path.suffix == ".npy" else bands_of_tiff(path)


@pytest.fixture
def bands(tmp_path):
    """(3, 12, 5, 4) values of three patches: 12 bands of 16 bits."""
    values = np.random.default_rng(0).integers(0, 2**16, (3, 12, 5, 4), dtype=np.uint16)
    for name, patch in zip(("n1.tif", "n2.TIF"), values, strict=False):
        first, *others = [Image.fromarray(band) for band in patch]
        first.save(tmp_path / name, save_all=True, append_images=others)
    np.save(tmp_path / "n3.npy", values[2])
    return values


@pytest.fixture
def build(bands, tmp_path):
    def build_dataset(table=TABLE, **options):
        (tmp_path / "labels.csv").write_text(table)
        options = {"split_column": "split", "ignore_columns": ["tile"], "loader": read_bands, **options}
        return MultiLabelImageDataset(tmp_path, tmp_path / "labels.csv", **options)

    return build_dataset


def to_float(image):
    return torch.from_numpy(image.astype(np.float32)) / 10_000


def test_twelve_bands_of_16_bits(build, bands):
    dataset = build()
    dataset.check_images()
    for row in range(3):
        image, labels = dataset[row]
        assert image.dtype == np.uint16
        assert np.array_equal(image, bands[row])
        assert labels.tolist() == dataset.labels[row].tolist()
    assert [path.name for path in dataset.paths] == ["n1.tif", "n2.TIF", "n3.npy"]
    images, labels = next(iter(DataLoader(build(transform=to_float), batch_size=3, num_workers=1)))
    assert images.dtype is torch.float32
    assert np.array_equal((images * 10_000).round().numpy(), bands)
    assert labels.tolist() == [[True, False], [False, True], [True, True]]


def test_without_loader_other_extensions_and_16_bits_are_refused(build):
    with pytest.raises(FileNotFoundError, match=r"\['n3.npy'\]. .*; with loader also any exact name"):
        build(loader=None)
    with pytest.raises(
        ValueError, match=r"must have 8 bits per channel, .* or pass a loader to MultiLabelImageDataset"
    ):
        build(TABLE.replace("n3.npy", "n1"), loader=None, split="val")[0]


def test_an_id_may_name_a_folder_of_band_files(build, tmp_path):
    (tmp_path / "S2A_patch.v2").mkdir()
    dataset = build(TABLE.replace("n1.tif", "S2A_patch.v2"), loader=lambda path: path.name)
    assert [dataset[row][0] for row in range(3)] == ["S2A_patch.v2", "n2.TIF", "n3.npy"]
    for name in ("n3", "N3.npy", "s2a_patch.v2"):  # other files need their exact name
        with pytest.raises(FileNotFoundError, match="1 of 3 label rows have no image"):
            build(TABLE.replace("n3.npy", name))


def test_errors_of_the_loader_name_the_file(build):
    dataset = build(loader=bands_of_tiff)
    with pytest.raises(ValueError, match=r"loader cannot read .*n3.npy \(UnidentifiedImageError: .*\)$"):
        dataset[2]
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be read, .* loader cannot read .*n3.npy"):
        dataset.check_images()
    for make in (build, lambda loader: BaseMultiLabelImageDataset([], torch.zeros(0, 1), [], ["a"], loader=loader)):
        with pytest.raises(TypeError, match="loader must be callable or None, got 'rasterio'"):
            make(loader="rasterio")


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN"])
def test_empty_cells_are_refused_or_absent(build, cell):
    table = TABLE.replace("n1.tif,32TMT,train,1,0", f"n1.tif,32TMT,train,1,{cell}")
    assert build(table, empty_cells="absent").labels.tolist() == [[True, False], [False, True], [True, True]]
    for options in ({}, {"empty_cells": "error"}):
        with pytest.raises(ValueError, match=r"line 2, column 'water': a label must be known, .* empty_cells='absent'"):
            build(table, **options)
    with pytest.raises(ValueError, match="column 'water': a label must be 0, 1, True or False, got '2'"):
        build(TABLE.replace("train,1,0", "train,1,2"), empty_cells="absent")
    with pytest.raises(ValueError, match="empty_cells must be one of 'error', 'absent', got 'zero'"):
        build(empty_cells="zero")


def test_other_columns_keep_the_cells_of_the_split(build):
    assert build().other_columns == {"tile": ["32TMT", "33UWP", "32TMT"]}
    assert build(split="train").other_columns == {"tile": ["32TMT", "32TMT"]}
    assert build(TABLE.replace("tile", "area"), ignore_columns=("water", "area")).other_columns == {
        "water": ["0", "1", "1"],
        "area": ["32TMT", "33UWP", "32TMT"],
    }
    assert build(TABLE.replace("tile", "patch2"), ignore_columns=["patch2"], id_column="patch").classes == [
        "forest",
        "water",
    ]
