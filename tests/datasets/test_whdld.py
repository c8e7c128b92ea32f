import numpy as np
import pytest
from PIL import Image

from pml_macl.datasets import WHDLD
from pml_macl.datasets.whdld import COLOURS


def test_labels_from_masks(whdld, names):
    dataset = WHDLD(whdld)
    assert dataset.ids == ["wh0001", "wh0002", "wh0003"]
    assert dataset.classes == ["building", "road", "pavement", "vegetation", "bare soil", "water"]
    assert names(dataset) == [{"water", "road"}, {"vegetation"}, set(COLOURS)]
    assert names(WHDLD(whdld, min_fraction=0.1)) == [{"water"}, {"vegetation"}, set(COLOURS)]
    assert names(WHDLD(whdld, min_fraction=0.2)) == [{"water"}, {"vegetation"}, set()]


def test_masks_with_transparency(whdld):
    expected = WHDLD(whdld).labels
    for path in (whdld / "Labels").iterdir():
        with Image.open(path) as image:
            mask = image.copy()
        mask.putalpha(7)
        mask.save(path)
    assert WHDLD(whdld).labels.equal(expected)


def test_masks_with_a_palette(whdld, names):
    mask = Image.fromarray(np.array([[4, 4, 5, 5]] * 4, dtype=np.uint8))
    mask.putpalette([value for colour in COLOURS.values() for value in colour])
    mask.save(whdld / "Labels" / "wh0001.png")
    assert names(WHDLD(whdld))[0] == {"bare soil", "water"}


@pytest.mark.parametrize("colour", [(254, 0, 0), (0, 0, 0), (255, 255, 255), (0, 255, 255), (128, 128, 127)])
def test_unknown_colours(whdld, save, colour):
    pixels = np.full((4, 4, 3), COLOURS["bare soil"])
    pixels[2, 1] = colour
    save(whdld / "Labels" / "wh0002.png", pixels)
    with pytest.raises(ValueError, match=rf"mask .*wh0002.png has the unknown colour \({colour[0]}, {colour[1]}, "):
        WHDLD(whdld)


def test_a_mask_of_another_size(whdld, save):
    save(whdld / "Labels" / "wh0002.png", np.full((2, 2, 3), COLOURS["road"]))
    with pytest.raises(
        ValueError, match=r"mask .*wh0002.png must have the size of .*wh0002.jpg, \(4, 4\), got \(2, 2\)"
    ):
        WHDLD(whdld)


def test_a_truncated_mask(whdld):
    path = whdld / "Labels" / "wh0001.png"
    path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(ValueError, match=rf"cannot decode image {path} \("):
        WHDLD(whdld)
