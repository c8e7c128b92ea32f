"""Tests that hold for every data set with an official layout."""

import pickle
import shutil

import pytest
import torch
from torch.utils.data import DataLoader

from pml_macl.datasets import (
    DLRSD,
    MLAID,
    WHDLD,
    BaseMultiLabelImageDataset,
    UCMercedMultiLabel,
    stratified_split,
    write_split,
)

LOADERS = {"uc_merced": UCMercedMultiLabel, "mlaid": MLAID, "dlrsd": DLRSD, "whdld": WHDLD}
FIRST_FOLDER = {"uc_merced": "Images", "mlaid": "images_test", "dlrsd": "Labels", "whdld": "Images"}


@pytest.fixture(params=LOADERS)
def name(request):
    return request.param


@pytest.fixture
def loader(name):
    return LOADERS[name]


@pytest.fixture
def root(name, request):
    return request.getfixturevalue(name)


def test_attributes_and_items(loader, root):
    dataset = loader(str(root))
    assert isinstance(dataset, BaseMultiLabelImageDataset)
    assert dataset.labels.dtype is torch.bool
    assert dataset.labels.shape == (len(dataset), len(dataset.classes))
    assert len(dataset.ids) == len(dataset.paths) == len(dataset)
    for row, (image, labels) in enumerate(dataset):
        assert image.shape[0] == 3
        assert image.dtype is torch.float32
        assert labels.equal(dataset.labels[row])
        assert dataset.paths[row].stem == dataset.ids[row]
    dataset.check_images()
    assert loader(root, transform=lambda image: image.mode)[0][0] == "RGB"


def test_pickle_and_worker_processes(loader, root):
    dataset = pickle.loads(pickle.dumps(loader(root, transform=width)))
    batches = DataLoader(dataset, batch_size=2, num_workers=1)
    assert torch.cat([labels for _, labels in batches]).equal(dataset.labels)


def width(image):
    return image.width


def test_the_folder_is_missing(loader, root):
    for folder in (root / "nowhere", next(root.rglob("*.*"))):
        with pytest.raises(FileNotFoundError, match=r"no folder .* for .*\. Get the data from .*; .* must then hold "):
            loader(folder)
    with pytest.raises(TypeError, match="root must be a path, got 3"):
        loader(3)


def test_a_part_of_the_layout_is_missing(loader, root, name):
    shutil.rmtree(root / FIRST_FOLDER[name])
    (root / FIRST_FOLDER[name]).write_text("a file, not a folder")
    with pytest.raises(FileNotFoundError, match=rf"no folder .*{FIRST_FOLDER[name]} for .*; found .*Get the data from"):
        loader(root)
    with pytest.raises(FileNotFoundError, match="Get the data from"):
        loader(root.parent)  # the parent folder


def test_images_are_missing(loader, root):
    for path in [*root.rglob("*.tif"), *root.rglob("*.jpg")]:
        path.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"(have no matching image or mask|label rows have no image).*Get the data from"
    ):
        loader(root)


def test_two_images_with_the_same_name(loader, root, save):
    dataset = loader(root)
    path = dataset.paths[0]
    save(path.with_name(f"{path.stem.upper()}.bmp"))
    with pytest.raises(ValueError, match=r"have the same name; remove or rename one of them"):
        loader(root)


def test_hidden_and_other_files_do_not_matter(loader, root):
    path = loader(root).paths[0]
    path.with_name(f"._{path.name}").write_text("left by an archive program")
    path.with_name("Thumbs.db").write_text("left by a file manager")
    loader(root).check_images()


def test_a_split_from_a_file(loader, root):
    everything = loader(root)
    parts = torch.arange(len(everything)) % 3
    write_split(root / "chosen.csv", everything.ids, parts)
    found = []
    for number, part in enumerate(("train", "val", "test")):
        dataset = loader(root, split=part, split_file=root / "chosen.csv")
        assert dataset.ids == [everything.ids[row] for row in (parts == number).nonzero().flatten().tolist()]
        assert dataset.labels.equal(everything.labels[parts == number])
        assert [path.stem for path in dataset.paths] == dataset.ids
        found += dataset.ids
    assert sorted(found) == sorted(everything.ids)


def test_the_split_file_next_to_the_data(loader, root, name):
    if name == "mlaid":
        pytest.skip("the split of ML-AID is published")
    with pytest.raises(FileNotFoundError, match=r"no split file at .*splits.csv; make one with write_split\("):
        loader(root, split="train")
    everything = loader(root)
    write_split(root / "splits.csv", everything.ids, stratified_split(everything.labels, (0.5, 0.5)))
    assert len(loader(root, "train")) + len(loader(root, "val")) == len(everything)
    with pytest.raises(ValueError, match=r"splits.csv has no split 'test'; it has train, val"):
        loader(root, "test")


def test_images_that_the_split_file_does_not_name_are_in_no_split(loader, root):
    ids = loader(root).ids
    write_split(root / "one.csv", ids[1:2], torch.tensor([0]))
    assert loader(root, "train", split_file=root / "one.csv").ids == ids[1:2]


def test_a_split_file_of_other_data(loader, root):
    write_split(root / "other.csv", ["a", "b", "../c"], torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match=r"2 of 2 ids of split 'train' in .*other.csv are not among .*\['a', 'b'\]"):
        loader(root, "train", split_file=root / "other.csv")
    with pytest.raises(ValueError, match=r"\['../c'\]"):
        loader(root, "val", split_file=root / "other.csv")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": 1}, TypeError, "split must be a string or None, got 1"),
        ({"transform": 3}, TypeError, "transform must be callable or None, got 3"),
        ({"split": "train", "split_file": 3}, TypeError, "split_file must be a path, got 3"),
        (
            {"split_file": "splits.csv"},
            ValueError,
            "split_file was given without split; set split to one of the splits in splits.csv",
        ),
        ({"split": "train", "split_file": "nothing.csv"}, FileNotFoundError, "no split file at nothing.csv"),
    ],
)
def test_bad_arguments(loader, root, options, error, message):
    with pytest.raises(error, match=message):
        loader(root, **options)
