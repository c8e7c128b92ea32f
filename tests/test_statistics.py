import pytest
import torch
from oracles import counts_of, naive_rarity

from pml_macl import LabelStatistics
from pml_macl import statistics as module


def test_counts_equal_a_loop_and_add_up_over_batches(generator, device):
    labels = (torch.rand(40, 6, generator=generator) < 0.3).to(device)
    statistics = LabelStatistics(6).to(device)
    for batch in labels.split(7):
        statistics.update(batch)
    expected = counts_of(labels)
    assert statistics.num_samples == 40
    assert statistics.cooccurrence.tolist() == expected
    assert statistics.counts.tolist() == [expected[k][k] for k in range(6)]
    once = LabelStatistics.from_labels(labels)
    assert torch.equal(once.cooccurrence, statistics.cooccurrence)
    assert once.counts.device == labels.device


def test_rarity_equals_a_loop(generator):
    labels = torch.rand(40, 6, generator=generator) < torch.tensor([0.9, 0.5, 0.3, 0.1, 0.05, 0.0])
    rarity = LabelStatistics.from_labels(labels).label_rarity()
    assert rarity.tolist() == pytest.approx(naive_rarity(counts_of(labels)), rel=1e-14)
    assert rarity[5] == 1
    assert rarity[0] == 0


@pytest.mark.parametrize(
    "labels", [torch.zeros(0, 3), torch.zeros(4, 3), torch.ones(4, 3), torch.eye(3), torch.ones(5, 1)]
)
def test_equally_frequent_labels_are_not_rare(labels):
    statistics = LabelStatistics.from_labels(labels)
    assert statistics.label_rarity().tolist() == [0.0] * labels.shape[1]
    assert statistics.inverse_frequency().tolist() == [1.0] * labels.shape[1]


def test_labels_and_pairs_without_images_count_as_one():
    statistics = LabelStatistics.from_labels(torch.tensor([[1, 1, 0]] * 3 + [[1, 0, 0]]))
    assert statistics.inverse_frequency().tolist() == [1, 4 / 3, 4]
    assert statistics.inverse_cooccurrence().tolist() == [[1, 4 / 3, 4], [4 / 3, 4 / 3, 4], [4, 4, 4]]


def test_state_dict_round_trip_is_exact():
    statistics = LabelStatistics.from_labels(torch.rand(9, 4) < 0.5)
    restored = LabelStatistics(4)
    restored.load_state_dict(statistics.state_dict())
    assert set(statistics.state_dict()) == {"num_samples", "counts", "cooccurrence"}
    for name, value in statistics.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)


def test_half_does_not_change_the_counts():
    statistics = LabelStatistics.from_labels(torch.ones(70000, 1, dtype=torch.bool)).half()
    assert statistics.counts.tolist() == [70000]


def test_a_bad_update_counts_nothing():
    statistics = LabelStatistics(3)
    for labels in (torch.ones(2, 4), torch.full((2, 3), 2), torch.ones(3)):
        with pytest.raises(ValueError, match="labels must"):
            statistics.update(labels)
    assert statistics.num_samples == 0
    assert statistics.counts.sum() == 0


@pytest.mark.parametrize(
    ("num_classes", "error"),
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), (None, TypeError)],
)
def test_bad_number_of_classes(num_classes, error):
    with pytest.raises(error, match="num_classes must be"):
        LabelStatistics(num_classes)


def test_synchronize_in_a_single_process_changes_no_counts(generator):
    labels = torch.rand(40, 6, generator=generator) < 0.3
    statistics = LabelStatistics.from_labels(labels, synchronize=True)
    statistics.update(labels)
    assert statistics.cooccurrence.tolist() == [[2 * n for n in row] for row in counts_of(labels)]
    assert statistics.num_samples == 80
    assert "synchronize=True" in repr(statistics)


def test_synchronize_is_a_bool():
    with pytest.raises(TypeError, match="synchronize must be True or False, got 1"):
        LabelStatistics(3, synchronize=1)


def test_counts_of_more_rows_than_float32_adds_exactly(monkeypatch, generator):
    monkeypatch.setattr(module, "_ROWS_EXACT_IN_FLOAT32", 7)
    labels = torch.rand(40, 4, generator=generator) < 0.4
    found = LabelStatistics.from_labels(labels)
    assert found.counts.tolist() == labels.sum(dim=0).tolist()
    assert found.cooccurrence.tolist() == counts_of(labels)
