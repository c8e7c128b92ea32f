import hashlib
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from pml_macl.datasets import SyntheticScenes


@pytest.fixture(scope="module")
def scenes():
    return SyntheticScenes(num_images=1000)


def column(dataset, name):
    return dataset.labels[:, dataset.classes.index(name)]


def share_given(dataset, name, given):
    """Share of the images with label ``given`` that also have label ``name``."""
    return column(dataset, name)[column(dataset, given)].float().mean().item()


def test_items_keep_the_label_contract(scenes):
    image, labels = scenes[7]
    assert image.shape == (3, 32, 32)
    assert image.dtype is torch.float32
    assert 0 <= image.min() < image.max() <= 1
    assert labels.dtype is torch.bool
    assert labels.equal(scenes.labels[7])
    assert len(scenes) == len(scenes.labels) == 1000
    assert scenes.labels.shape[1] == len(scenes.classes) == len(set(scenes.classes)) == 12


def test_the_labels_never_change(scenes):
    digest = hashlib.sha256(scenes.labels[:200].numpy().tobytes()).hexdigest()
    assert digest == "ccd9a706e6c5f23ac7e298bf238b34bd852ec59a5e3e1c4fc126e0a174c7118c"


@pytest.mark.parametrize(
    ("num_images", "image_size", "seed", "expected"),
    [
        (60, 32, 0, "ca925eac1fdd27092cd2bb78afa8e3fdd937a91c54ff2ec57de9554cb6572b45"),
        (60, 32, 3, "f7b801e82877dca31a89500a925e492946c6de16cb099866118d8a5c2104ae3f"),
        (6, 64, 0, "0308b63571ebb4ddf2198664ba1b0ce09a659289116101946ce3f626bf58e5b6"),
    ],
)
def test_the_pixels_never_change(num_images, image_size, seed, expected):
    images = torch.stack([image for image, _ in SyntheticScenes(num_images, image_size, seed)])
    digest = hashlib.sha256((images * 255).round().to(torch.uint8).numpy().tobytes()).hexdigest()
    assert digest == expected


def test_an_image_depends_on_seed_and_index_only(scenes):
    shorter = SyntheticScenes(num_images=20)
    for (image, labels), (expected_image, expected_labels) in zip(shorter, scenes, strict=False):
        assert image.equal(expected_image)
        assert labels.equal(expected_labels)


def test_seeds_have_no_image_in_common(scenes):
    def images(dataset):
        return {image.numpy().tobytes() for image, _ in dataset}

    seeds = [scenes, SyntheticScenes(100, seed=1), SyntheticScenes(100, seed=2)]
    assert len(set().union(*map(images, seeds))) == 1200


def test_labels_have_a_long_tail(scenes):
    frequency, order = scenes.labels.float().mean(dim=0).sort(descending=True)
    assert frequency[0] > 0.55
    assert scenes.classes[order[0]] == "trees"
    assert 0.008 < frequency[-1] < 0.02
    assert scenes.classes[order[-1]] == "airplane"
    assert 1 / 3 < (frequency < 0.1).float().mean() < 2 / 3
    assert scenes.labels.any(dim=1).all()
    assert 2.5 < frequency.sum() < 3.5
    assert len(scenes.labels.unique(dim=0)) > 80


def test_labels_co_occur_as_in_real_scenes(scenes):
    assert share_given(scenes, "water", given="ship") > 0.9
    assert share_given(scenes, "ship", given="dock") > 8 * column(scenes, "ship").float().mean()
    assert share_given(scenes, "road", given="cars") > 0.75
    assert share_given(scenes, "grass", given="airplane") > 0.6
    assert share_given(scenes, "field", given="dock") == 0
    assert share_given(scenes, "airplane", given="water") == 0
    assert share_given(scenes, "field", given="buildings") < column(scenes, "field").float().mean() / 2


def test_mean_colour_does_not_tell_the_labels(scenes):
    """Fewer than one image in four has the same label set as the image with the most similar colours."""
    images = torch.stack([image for image, _ in scenes])
    colours = torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)
    distances = torch.cdist(colours, colours).fill_diagonal_(torch.inf)
    nearest = distances.argmin(dim=1)
    assert (scenes.labels == scenes.labels[nearest]).all(dim=1).float().mean() < 0.25


def test_the_image_size_hardly_changes_the_labels():
    small, large = SyntheticScenes(50, image_size=32), SyntheticScenes(50, image_size=64)
    assert large[0][0].shape == (3, 64, 64)
    assert (small.labels == large.labels).float().mean() > 0.95
    assert SyntheticScenes(1, image_size=16)[0][0].shape == (3, 16, 16)


def test_transform_sees_the_image():
    plain, flipped = SyntheticScenes(3), SyntheticScenes(3, transform=lambda image: image.flip(-1))
    assert flipped[1][0].equal(plain[1][0].flip(-1))


def test_a_changed_item_does_not_change_the_set(scenes):
    image, labels = scenes[0]
    expected_image, expected_labels = image.clone(), labels.clone()
    image.zero_()
    labels.zero_()
    assert scenes[0][0].equal(expected_image)
    assert scenes[0][1].equal(expected_labels)


def test_pickle_and_worker_processes():
    scenes = pickle.loads(pickle.dumps(SyntheticScenes(24)))
    batches = list(DataLoader(scenes, batch_size=10, num_workers=2))
    assert torch.cat([labels for _, labels in batches]).equal(scenes.labels)
    assert torch.cat([images for images, _ in batches])[5].equal(scenes[5][0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_images": 0}, ValueError, "num_images must be at least 1, got 0"),
        ({"num_images": 10.0}, TypeError, "num_images must be an integer, got 10.0"),
        ({"image_size": 8}, ValueError, "image_size must be at least 16, got 8"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        ({"seed": True}, TypeError, "seed must be an integer, got True"),
        ({"transform": "flip"}, TypeError, "transform must be callable or None, got 'flip'"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        SyntheticScenes(**{"num_images": 1, **arguments})


def test_index_out_of_range(scenes):
    with pytest.raises(IndexError):
        scenes[1000]
