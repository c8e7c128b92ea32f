"""Label sets, their similarities, the counts of a training set, temperatures and splits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import counts_of, naive_rarity, naive_temperature
from properties.strategies import label_sets, orders_of, sets_of

from pml_macl import LabelSets, LabelStatistics
from pml_macl.datasets import read_split, stratified_split, write_split
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.labels import jaccard_similarity, shared_label_counts


@settings(max_examples=50)
@given(label_sets(min_rows=0), st.data())
def test_similarities_equal_python_sets(labels, data):
    ref_labels = data.draw(label_sets(0, 8, labels.shape[1]))
    shared, jaccard = shared_label_counts(labels, ref_labels), jaccard_similarity(labels, ref_labels)
    assert torch.equal(jaccard, jaccard_similarity(ref_labels, labels).T)
    for i, first in enumerate(sets_of(labels)):
        for j, second in enumerate(sets_of(ref_labels)):
            assert shared[i, j] == len(first & second)
            assert jaccard[i, j].item() == pytest.approx(len(first & second) / max(len(first | second), 1))


@settings(max_examples=50)
@given(label_sets(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.data())
def test_label_sets_are_equal_where_they_overlap(labels, threshold, data):
    sets, rows = LabelSets(labels, threshold), sets_of(labels)
    order = data.draw(orders_of(len(labels)))
    equal = sets[order].unsqueeze(1) == sets.unsqueeze(0)
    for i, row in enumerate(order.tolist()):
        for j, second in enumerate(rows):
            first = rows[row]
            overlaps = bool(first & second) and len(first & second) / len(first | second) >= threshold - 1e-9
            assert equal[i, j] == (overlaps or row == j)
    assert torch.equal(sets[order].multi_hot(), labels[order])


@settings(max_examples=50)
@given(label_sets(min_rows=0), st.data())
def test_statistics_are_exact_counts_in_any_order_and_portions(labels, data):
    order = data.draw(orders_of(len(labels)))
    borders = sorted(data.draw(st.lists(st.integers(0, len(labels)), max_size=3)))
    statistics = LabelStatistics(labels.shape[1])
    for part in torch.tensor_split(labels[order], borders):
        statistics.update(part)
    assert statistics.num_samples == len(labels)
    assert statistics.cooccurrence.tolist() == counts_of(labels)
    assert torch.equal(statistics.counts, statistics.cooccurrence.diagonal())
    assert statistics.label_rarity().tolist() == pytest.approx(naive_rarity(counts_of(labels)))
    assert (statistics.inverse_cooccurrence() >= statistics.inverse_frequency()[:, None] - 1e-12).all()


@settings(max_examples=50)
@given(label_sets(), st.data())
def test_temperatures(labels, data):
    options = {
        "temperature": data.draw(st.floats(0.01, 2)),
        "overlap_scale": data.draw(st.floats(0, 3)),
        "rarity_scale": data.draw(st.floats(0, 1)),
        "min_temperature": data.draw(st.floats(0.001, 0.5)),
    }
    ref_labels = data.draw(label_sets(1, 6, labels.shape[1]))
    found = TemperatureScheduledSimilarity(**options).temperatures(labels, ref_labels)
    highest = max(options["temperature"] * (1 + options["overlap_scale"]), options["min_temperature"])
    assert (found >= options["min_temperature"] * (1 - 1e-6)).all()
    assert (found <= highest * (1 + 1e-6)).all()
    rarity = naive_rarity(counts_of(labels))
    expected = [[naive_temperature(a, b, rarity, **options) for b in sets_of(ref_labels)] for a in sets_of(labels)]
    torch.testing.assert_close(found, torch.tensor(expected))


@settings(max_examples=40)
@given(label_sets(min_rows=0, max_rows=40), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_every_image_is_in_one_part_of_a_split(labels, parts_of, seed):
    fractions = [part / sum(parts_of) for part in parts_of]
    parts = stratified_split(labels, fractions, seed)
    assert torch.equal(parts, stratified_split(labels, fractions, seed))
    assert parts.shape == (len(labels),)
    assert ((parts >= 0) & (parts < len(fractions))).all()
    counts = labels.sum(dim=0)
    if counts.any():
        rarest = int(torch.where(counts > 0, counts, len(labels) + 1).argmin())
        for part, fraction in enumerate(fractions):
            assert abs(int(labels[parts == part, rarest].sum()) - fraction * int(counts[rarest])) < 1 + 1e-6


@settings(max_examples=50)
@given(label_sets(min_rows=2, max_rows=40), st.lists(st.integers(0, 9), max_size=38), st.integers(0, 99))
def test_no_group_is_in_two_parts_of_a_split(labels, numbers, seed):
    groups = torch.tensor([0, 1, *numbers] * 20)[: len(labels)]
    parts = stratified_split(labels, (0.7, 0.3), seed, groups)
    assert len(set(zip(groups.tolist(), parts.tolist(), strict=True))) == len(groups.unique())
    counts = labels.sum(dim=0)
    if counts.any():  # a part exceeds its share of the rarest label by less than one group
        rarest = int(torch.where(counts > 0, counts, len(labels) + 1).argmin())
        largest = groups[labels[:, rarest]].bincount().max()
        for part, fraction in enumerate((0.7, 0.3)):
            assert labels[parts == part, rarest].sum() < fraction * counts[rarest] + largest


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: text == text.strip() and len(text.splitlines()) == 1 and "\0" not in text
)


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=6, unique=True), TEXTS)
def test_a_split_file_gives_back_what_was_written(tmp_path_factory, ids, name):
    path = tmp_path_factory.mktemp("split") / "splits.csv"
    write_split(path, ids, torch.arange(len(ids)) % 2, (name, name + "2"))
    assert read_split(path) == {image_id: name + "2" * (row % 2) for row, image_id in enumerate(ids)}
