"""Miniature data sets in their official layouts, and their labels."""

import numpy as np
import pytest
from PIL import Image

from pml_macl.datasets.whdld import COLOURS

UCM_TABLE = (
    "IMAGE\\LABEL\tsand\tsea\ttrees\r\n"
    "beach00\t1\t1\t0\r\nforest00\t0\t0\t1\r\nforest01\t0\t0\t1\r\nbeach01\t1\t1\t1\r\n"
)
AID_TABLE = UCM_TABLE.replace("\t", ",").replace("beach0", "beach_").replace("forest0", "forest_")
BEACH = [[12, 12, 12, 12], [12, 12, 12, 12], [13, 13, 13, 13], [13, 13, 13, 16]]
DLRSD_MASKS = {"beach00": BEACH, "forest00": [[16] * 4] * 4, "forest01": [[16, 16, 16, 17]] * 4}
WHDLD_MASKS = {"wh0001": ["water"] * 15 + ["road"], "wh0002": ["vegetation"] * 16, "wh0003": [*COLOURS, *COLOURS] * 2}


@pytest.fixture
def save():
    """Returns a function that saves an image of the given pixels, or a grey image."""

    def save_image(path, pixels=None, size=(4, 4), mode=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", size, "grey") if pixels is None else Image.fromarray(np.array(pixels, dtype=np.uint8))
        (image if mode is None else image.convert(mode)).save(path)
        return path

    return save_image


@pytest.fixture
def uc_merced(tmp_path, save):
    for name in ("beach00", "beach01", "forest00", "forest01"):
        save(tmp_path / "Images" / name[:-2] / f"{name}.tif")
    (tmp_path / "LandUse_Multilabeled.txt").write_bytes(UCM_TABLE.encode())
    return tmp_path


@pytest.fixture
def mlaid(tmp_path, save):
    for name in ("tr/Beach/beach_0", "tr/Forest/forest_0", "tr/Forest/forest_1", "test/Beach/beach_1"):
        save(tmp_path / f"images_{name}.jpg")
    (tmp_path / "multilabel.csv").write_bytes(AID_TABLE.encode())
    return tmp_path


@pytest.fixture
def dlrsd(tmp_path, save):
    for name, mask in DLRSD_MASKS.items():
        save(tmp_path / "Images" / name[:-2] / f"{name}.tif")
        save(tmp_path / "Labels" / name[:-2] / f"{name}.png", mask)
    return tmp_path


@pytest.fixture
def whdld(tmp_path, save):
    for name, mask in WHDLD_MASKS.items():
        pixels = np.array([COLOURS[label] for label in mask]).reshape(4, -1, 3)
        save(tmp_path / "Images" / f"{name}.jpg", size=pixels.shape[1::-1])
        save(tmp_path / "Labels" / f"{name}.png", pixels)
    return tmp_path


@pytest.fixture
def names():
    """Returns a function that lists the label names of each image of a data set."""

    def label_names(dataset):
        return [{dataset.classes[column] for column in row.nonzero().flatten().tolist()} for row in dataset.labels]

    return label_names
