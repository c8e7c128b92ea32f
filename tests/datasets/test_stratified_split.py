import csv
import random
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

from pml_macl.datasets import MultiLabelImageDataset, stratified_split

FRACTIONS = torch.tensor([0.6, 0.2, 0.2], dtype=torch.float64)


def long_tail(num_images, num_classes, seed=0):
    """Draw random labels; about one image in 300 has the rarest label, and some images have no label."""
    chance = torch.logspace(-2.5, -0.5, num_classes)
    return torch.rand(num_images, num_classes, generator=torch.Generator().manual_seed(seed)) < chance


def deviation(labels, parts, fractions=FRACTIONS):
    """(parts, C) difference between the number of images of each label in a part and its exact share."""
    counts = torch.stack([labels[parts == part].sum(dim=0) for part in range(len(fractions))])
    return counts - fractions[:, None] * labels.sum(dim=0)


@pytest.mark.parametrize("seed", range(5))
def test_every_step_is_one_of_the_algorithm(seed):
    """Oracle: replay the paper's loop; each image must be in a part that was allowed at its turn.

    The algorithm does not fix the order of the images of one label, and that order does not affect the next label.
    """
    labels = long_tail(60, 4, seed)
    parts = stratified_split(labels, (0.5, 0.3, 0.2), seed)
    fractions = (0.5, 0.3, 0.2)
    rows = {row: set(labels[row].nonzero().flatten().tolist()) for row in range(60)}
    lacking = [share * 60 for share in fractions]
    lacking_of_label = [[share * int(labels[:, c].sum()) for c in range(4)] for share in fractions]
    while any(rows.values()):
        counts = [sum(c in row for row in rows.values()) for c in range(4)]
        label = min((c for c in range(4) if counts[c]), key=lambda c: counts[c])
        waiting = [row for row, present in rows.items() if label in present]
        while waiting:
            keys = [(round(lacking_of_label[part][label], 6), round(lacking[part], 6)) for part in range(3)]
            allowed = {part for part in range(3) if keys[part] == max(keys)}
            row = next((row for row in waiting if int(parts[row]) in allowed), None)
            assert row is not None, f"label {label}: no image went to {allowed}, which lacked most"
            part = int(parts[row])
            lacking[part] -= 1
            for present in rows.pop(row):
                lacking_of_label[part][present] -= 1
            waiting.remove(row)


def random_groups(num_images, num_groups, seed):
    """Names of groups in random order, some much larger than others."""
    generator = torch.Generator().manual_seed(seed)
    numbers = (torch.rand(num_images, generator=generator) ** 2 * num_groups).long()
    return [f"tile {number}" for number in numbers.tolist()]


def naive_group_split(labels, groups, fractions, seed):
    """The algorithm as a loop over groups, in exact arithmetic, with the random numbers of ``stratified_split``."""
    images = {}
    for group, row in zip(groups, labels.tolist(), strict=True):
        images.setdefault(group, []).append([label for label, present in enumerate(row) if present])
    rng = random.Random(seed)
    turn = {group: rng.random() for group in images}
    waiting = {group: images[group] for group in sorted(images, key=turn.get)}
    shares = [Fraction(str(fraction)) for fraction in fractions]
    lacking = [share * len(labels) for share in shares]
    lacking_of_label = [[share * int(count) for count in labels.sum(dim=0)] for share in shares]
    chosen = {}

    def assign(group, *criteria):
        needs = [tuple(criterion[part] for criterion in criteria) for part in range(len(shares))]
        best = [part for part in range(len(shares)) if needs[part] == max(needs)]
        chosen[group] = part = best[0] if len(best) == 1 else best[int(rng.random() * len(best))]
        for present in waiting.pop(group):
            lacking[part] -= 1
            for label in present:
                lacking_of_label[part][label] -= 1

    while any(any(rows) for rows in waiting.values()):
        counts = Counter(label for rows in waiting.values() for present in rows for label in present)
        rarest = min(counts, key=lambda label: (counts[label], label))
        for group in [group for group, rows in waiting.items() if any(rarest in present for present in rows)]:
            assign(group, [needs[rarest] for needs in lacking_of_label], lacking)
    for group in list(waiting):
        assign(group, lacking)
    return [chosen[group] for group in groups]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_groups", [6, 20])
def test_groups_are_split_as_by_a_loop(seed, num_groups):
    labels, groups, fractions = long_tail(60, 4, seed), random_groups(60, num_groups, seed), (0.5, 0.3, 0.2)
    parts = stratified_split(labels, fractions, seed, groups)
    assert parts.tolist() == naive_group_split(labels, groups, fractions, seed)
    assert len(set(zip(groups, parts.tolist(), strict=True))) == len(set(groups))


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_one_image_give_the_split_without_groups(seed):
    labels = long_tail(200, 8, seed)
    expected = stratified_split(labels, seed=seed)
    for groups in (range(200), torch.arange(200).flip(0), np.arange(200) + 7, [f"tile {n}" for n in range(200)]):
        assert stratified_split(labels, seed=seed, groups=groups).equal(expected)


def test_the_names_of_the_groups_do_not_matter():
    labels, groups = long_tail(300, 6), random_groups(300, 40, 0)
    numbers = [-int(group.split()[1]) for group in groups]
    expected = stratified_split(labels, groups=groups)
    for same in (numbers, tuple(groups), np.array(groups), np.array(numbers), torch.tensor(numbers)):
        assert stratified_split(labels, groups=same).equal(expected)
    assert not stratified_split(labels, groups=groups, seed=1).equal(expected)


def test_groups_are_closer_to_their_shares_than_at_random():
    """125 tiles of unequal size and content."""
    ours, chance = [], []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        sizes = (torch.randn(125, generator=generator).exp() * 8).long() + 1
        tiles = torch.arange(125).repeat_interleave(sizes)
        content = torch.logspace(-2, -0.3, 12) * torch.randn(125, 12, generator=generator).exp()
        labels = torch.rand(len(tiles), 12, generator=generator) < content[tiles]
        at_random = torch.multinomial(FRACTIONS, 125, replacement=True, generator=generator)[tiles]
        for found, parts in ((ours, stratified_split(labels, groups=tiles)), (chance, at_random)):
            found.append(float((deviation(labels, parts).abs() / labels.sum(dim=0)).mean()))
    assert sum(ours) < 0.8 * sum(chance)


@pytest.mark.parametrize("seed", range(20))
def test_the_rarest_label_is_within_one_image(seed):
    labels = long_tail(500, 12, seed)
    counts = labels.sum(dim=0)
    rarest = counts.masked_fill(counts == 0, 501).argmin()
    assert deviation(labels, stratified_split(labels, seed=seed))[:, rarest].abs().max() < 1


@pytest.mark.parametrize("count", range(1, 12))
def test_one_label_alone_is_within_one_image(count):
    labels = torch.ones(count, 1)
    parts = stratified_split(labels)
    assert deviation(labels, parts).abs().max() < 1
    if count == 1:
        assert parts.tolist() == [0]


def test_much_closer_than_a_random_split():
    labels = long_tail(3000, 20)
    ours = deviation(labels, stratified_split(labels)).abs()
    random = torch.arange(3000)[torch.randperm(3000, generator=torch.Generator().manual_seed(0))]
    chance = deviation(labels, (random >= 1800).long() + (random >= 2400).long()).abs()
    rare = labels.sum(dim=0).argsort()[:10]
    assert ours[:, rare].max() <= 2
    assert ours.mean() < chance.mean() / 4


def test_a_partition_of_about_the_right_sizes():
    labels = long_tail(3000, 20)
    parts = stratified_split(labels)
    assert parts.dtype is torch.long
    assert parts.shape == (3000,)
    assert set(parts.tolist()) == {0, 1, 2}
    assert torch.allclose(parts.bincount() / 3000, FRACTIONS.float(), atol=0.02)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_images_without_labels(num_classes):
    parts = stratified_split(torch.zeros(10, num_classes), (0.7, 0.3))
    assert parts.bincount().tolist() == [7, 3]


def test_equal_arguments_give_equal_splits():
    labels = long_tail(200, 5)
    before = labels.clone()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = stratified_split(labels)
    assert stratified_split(labels.int()).equal(first)
    assert stratified_split(labels.double(), list(FRACTIONS.tolist())).equal(first)
    assert not stratified_split(labels, seed=1).equal(first)
    assert torch.get_rng_state().equal(state)
    assert labels.equal(before)


def test_the_split_never_changes():
    parts = stratified_split(torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]] * 2))
    assert "".join(map(str, parts.tolist())) == "010010202020"


def test_nothing_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stratified_split(long_tail(50, 3))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_one_and_of_many():
    labels = long_tail(50, 3)
    assert stratified_split(labels, (1.0,)).unique().tolist() == [0]
    assert stratified_split(labels, [0.1] * 10).bincount().tolist() == [5] * 10


def test_fast_for_large_sets():
    labels = long_tail(30_000, 100)
    start = time.perf_counter()
    stratified_split(labels)
    assert time.perf_counter() - start < 6  # it takes 0.6 s on an idle machine


@pytest.mark.parametrize("name", ["ucm_multilabel", "ml_aid"])
def test_real_labels(shared_data, name):
    folder = shared_data / name
    labels = MultiLabelImageDataset(
        folder / "images", folder / "labels.csv", split_column="aitlas_split", ignore_columns=["scene"]
    ).labels
    parts = stratified_split(labels)
    off, counts = deviation(labels, parts).abs().amax(dim=0), labels.sum(dim=0)
    assert (off < 1).sum() >= 16
    assert off.argmax() == counts.argmax() or (off < 1).all()  # the most frequent label takes the rest
    assert off.max() < 0.015 * counts.max()
    assert torch.allclose(parts.bincount() / len(parts), FRACTIONS.float(), atol=0.02)
    with open(folder / "labels.csv", newline="") as file:
        published = [row["aitlas_split"] for row in csv.DictReader(file)]
    shares = torch.tensor([published.count(part) for part in ("train", "val", "test")], dtype=torch.double) / len(parts)
    theirs = torch.tensor([("train", "val", "test").index(part) for part in published])
    ours = stratified_split(labels, shares.tolist())
    assert deviation(labels, ours, shares).abs().mean() < deviation(labels, theirs, shares).abs().mean()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": [[1, 0]]}, TypeError, "labels must be a multi-hot torch.Tensor"),
        ({"labels": torch.tensor([1, 0])}, ValueError, "labels must be 2-D multi-hot"),
        ({"labels": torch.tensor([[2, 0]])}, ValueError, "labels must hold only 0 and 1, got 2"),
        ({"fractions": (0.5, 0.4)}, ValueError, r"fractions must add up to 1, got \(0.5, 0.4\) with the sum 0.9"),
        ({"fractions": (1.2, -0.2)}, ValueError, r"fractions\[1\] must be above 0 and finite, got -0.2"),
        ({"fractions": (1.0, 0)}, ValueError, r"fractions\[1\] must be above 0 and finite, got 0"),
        ({"fractions": (float("nan"), 1.0)}, ValueError, r"fractions\[0\] must be above 0 and finite, got nan"),
        ({"fractions": ()}, ValueError, r"fractions must add up to 1, got \(\)"),
        ({"fractions": 0.5}, TypeError, "fractions must be a sequence of numbers, got 0.5"),
        ({"fractions": "1"}, TypeError, "fractions must be a sequence of numbers, got '1'"),
        ({"fractions": (True,)}, TypeError, r"fractions\[0\] must be a number, got bool"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": 0.0}, TypeError, "seed must be an integer, got 0.0"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        ({"groups": "tile"}, TypeError, "groups must be a sequence of strings or integers, got 'tile'; convert it"),
        ({"groups": 4}, TypeError, "groups must be a sequence of strings or integers, got 4"),
        ({"groups": torch.tensor(4)}, TypeError, "groups must be a sequence of strings or integers"),
        ({"groups": [1, 2, 3]}, ValueError, r"groups must have one entry per row of labels \(4\), got 3"),
        ({"groups": [1, 2, 3, None]}, TypeError, "groups must be strings or integers, got None in row 3; name the"),
        ({"groups": torch.rand(4)}, TypeError, "groups must be strings or integers, got 0.* in row 0"),
        ({"groups": torch.ones(4, 1)}, TypeError, r"groups must be strings or integers, got \[1.0\] in row 0"),
        ({"groups": [True] * 4}, TypeError, "groups must be strings or integers, got True in row 0"),
        ({"groups": ["a", "b", "", "c"]}, ValueError, "groups must not be empty, got '' in row 2"),
        (
            {"groups": ["a", "b", "b", "a"]},
            ValueError,
            r"at least one group per part \(3\), got 2: \['a', 'b'\]; use smaller groups or fewer fractions",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        stratified_split(**{"labels": torch.ones(4, 2), **arguments})
