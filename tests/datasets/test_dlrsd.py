import numpy as np
import pytest
from PIL import Image

from pml_macl.datasets import DLRSD, MultiLabelImageDataset, UCMercedMultiLabel


def test_labels_from_masks(dlrsd, names):
    dataset = DLRSD(dlrsd)
    assert dataset.ids == ["beach00", "forest00", "forest01"]
    assert names(dataset) == [{"sand", "sea", "trees"}, {"trees"}, {"trees", "water"}]
    assert len(dataset.classes) == 17


@pytest.mark.parametrize(
    ("min_fraction", "expected"),
    [
        (1 / 16, [{"sand", "sea", "trees"}, {"trees"}, {"trees", "water"}]),
        (0.07, [{"sand", "sea"}, {"trees"}, {"trees", "water"}]),
        (7 / 16, [{"sand", "sea"}, {"trees"}, {"trees"}]),
        (0.5, [{"sand"}, {"trees"}, {"trees"}]),
        (0.8, [set(), {"trees"}, set()]),
        (1, [set(), {"trees"}, set()]),
    ],
)
def test_min_fraction(dlrsd, names, min_fraction, expected):
    assert names(DLRSD(dlrsd, min_fraction=min_fraction)) == expected


def test_every_value_against_a_loop(dlrsd, save):
    """Oracle: a loop that counts the pixels one by one."""
    rng = np.random.default_rng(0)
    mask = rng.choice(np.arange(1, 18), size=(13, 7), p=rng.dirichlet(np.ones(17)))
    save(dlrsd / "Images" / "beach" / "beach00.tif", size=(7, 13))
    save(dlrsd / "Labels" / "beach" / "beach00.png", mask)
    for min_fraction in (0, 0.03, 0.1, 0.3):
        expected = []
        for value in range(1, 18):
            count = sum(pixel == value for row in mask.tolist() for pixel in row)
            expected.append(count > 0 and count / 91 >= min_fraction)
        assert DLRSD(dlrsd, min_fraction=min_fraction).labels[0].tolist() == expected


def test_masks_with_a_palette(dlrsd):
    path = dlrsd / "Labels" / "forest" / "forest01.png"
    with Image.open(path) as image:
        mask = image.copy()
    expected = DLRSD(dlrsd).labels
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert mask.mode == "P"
    mask.save(path)
    assert DLRSD(dlrsd).labels.equal(expected)


def test_only_the_masks_of_the_split_are_read(dlrsd):
    (dlrsd / "splits.csv").write_text("id,split\nbeach00,train\nforest00,test\n")
    (dlrsd / "Labels" / "forest" / "forest00.png").write_text("no image")
    assert DLRSD(dlrsd, "train").ids == ["beach00"]
    with pytest.raises(ValueError, match=r"cannot decode image .*Labels.*forest00.png"):
        DLRSD(dlrsd, "test")


@pytest.mark.parametrize("value", [0, 18, 19, 255])
def test_unknown_values(dlrsd, save, value):
    save(dlrsd / "Labels" / "beach" / "beach00.png", [[1, 1, 1, 1]] * 3 + [[1, 1, value, 255 * (value > 0) or 1]])
    with pytest.raises(
        ValueError, match=rf"mask .*beach00.png has the unknown value {value}; the values must be from 1 "
    ):
        DLRSD(dlrsd)


def test_a_mask_of_another_size(dlrsd, save):
    save(dlrsd / "Labels" / "beach" / "beach00.png", [[1, 1, 1]] * 4)
    with pytest.raises(
        ValueError, match=r"mask .*beach00.png must have the size of .*beach00.tif, \(4, 4\), got \(3, 4\)"
    ):
        DLRSD(dlrsd)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
def test_masks_of_another_kind(dlrsd, save, mode):
    Image.new(mode, (4, 4), 1).save(dlrsd / "Labels" / "beach" / "beach00.png")
    seen = mode.replace(";16", "(;16)?")  # old releases of Pillow read it as I
    with pytest.raises(ValueError, match=rf"mask .*beach00.png has mode {seen}; it must have one channel \(L\) or a"):
        DLRSD(dlrsd)


def test_a_missing_mask_and_a_missing_image(dlrsd):
    (dlrsd / "Labels" / "forest" / "forest00.png").unlink()
    (dlrsd / "Images" / "forest" / "forest01.tif").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2 files in .* have no matching .*Images.*forest00.tif.*Labels.*forest01.png.*Get the"
    ):
        DLRSD(dlrsd)


def test_empty_folders(tmp_path):
    for name in ("Images", "Labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in .*Get the data from"):
        DLRSD(tmp_path)


@pytest.mark.parametrize(("value", "error"), [(-0.1, ValueError), (1.1, ValueError), ("0.1", TypeError)])
def test_min_fraction_out_of_range(dlrsd, value, error):
    with pytest.raises(error, match="min_fraction must be"):
        DLRSD(dlrsd, min_fraction=value)


def test_a_split_file_fits_uc_merced_too(dlrsd):
    (dlrsd / "LandUse_Multilabeled.txt").write_text("id\tsea\nbeach00\t1\nforest00\t0\nforest01\t0\n")
    (dlrsd / "splits.csv").write_text("id,split\nbeach00,train\nforest01,train\n")
    assert DLRSD(dlrsd, "train").ids == UCMercedMultiLabel(dlrsd, "train").ids == ["beach00", "forest01"]


def test_the_classes_are_in_the_order_of_the_uc_merced_table(shared_data):
    folder = shared_data / "ucm_multilabel"
    official = MultiLabelImageDataset(folder / "images", folder / "LandUse_Multilabeled.txt").classes
    assert list(DLRSD.CLASSES) == sorted(DLRSD.CLASSES) == [name.replace("-", " ") for name in official]
