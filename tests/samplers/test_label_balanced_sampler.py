import random
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning.trainers import MetricLossOnly
from torch.utils.data import DataLoader, Subset, TensorDataset

from pml_macl.losses import MACLLoss
from pml_macl.samplers import LabelBalancedSampler


def long_tailed(num_images, num_classes, seed=0):
    """Draw label sets in which later classes are rarer; some label sets are empty."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_images, num_classes, generator=generator) < 0.8 / torch.arange(1, num_classes + 1)


def batches_of(sampler):
    indices = list(sampler)
    assert len(indices) == len(sampler)
    return [indices[start : start + sampler.batch_size] for start in range(0, len(indices), sampler.batch_size)]


def random_case(seed):
    choose = random.Random(seed)
    labels = long_tailed(choose.randint(20, 80), choose.randint(1, 12), seed)
    num_labels = int(labels.any(dim=0).sum())
    batch_size = choose.randint(1, 20)
    labels_per_batch = choose.choice([None, choose.randint(1, min(batch_size, num_labels))])
    return labels, batch_size, labels_per_batch


@pytest.mark.parametrize("every_image", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_each_label_is_in_as_many_images_as_promised(seed, every_image):
    labels, batch_size, labels_per_batch = random_case(seed)
    torch.manual_seed(seed)
    sampler = LabelBalancedSampler(labels, batch_size, labels_per_batch, every_image=every_image)
    batches = batches_of(sampler)
    counts = [[sum(bool(labels[i, k]) for i in batch) for k in range(labels.shape[1])] for batch in batches]
    occurring = [k for k in range(labels.shape[1]) if labels[:, k].any()]
    places = batch_size
    if every_image:
        places -= -(-len(labels) // len(batches))
        assert {i for batch in batches for i in batch} == set(range(len(labels)))
    promised = {k: min(int(labels[:, k].sum()), places // sampler.labels_per_batch) for k in occurring}
    for batch, row in zip(batches, counts, strict=True):
        assert len(batch) == batch_size
        assert len(set(batch)) == batch_size
        assert sum(row[k] >= promised[k] for k in occurring) >= sampler.labels_per_batch
    # Turns: every label was selected at least as often as there were complete rounds.
    turns = len(batches) * sampler.labels_per_batch // len(occurring)
    for k in occurring:
        assert sum(row[k] >= promised[k] for row in counts) >= turns


def test_all_labels_have_a_positive_pair_in_each_batch():
    labels = long_tailed(500, 10)
    labels[-3:, 9] = True
    plain = torch.randperm(500).split(32)[:-1]
    balanced = batches_of(LabelBalancedSampler(labels, 32))
    assert all((labels[batch].sum(dim=0) >= 3).all() for batch in balanced)  # 32 // 10
    assert sum((labels[batch].sum(dim=0) < 2).any() for batch in plain) > 5


def test_labels_take_turns():
    labels = torch.eye(6).repeat(20, 1).bool()  # one label per image, so the batch shows which labels were selected
    batches = batches_of(LabelBalancedSampler(labels, 8, labels_per_batch=4, length_before_new_iter=96))
    chosen = [set(labels[batch].any(dim=0).nonzero().flatten().tolist()) for batch in batches]
    assert all(len(labels_) == 4 for labels_ in chosen)
    for start in range(0, 12, 3):  # three batches of four labels make two rounds of six
        assert Counter(k for labels_ in chosen[start : start + 3] for k in labels_) == dict.fromkeys(range(6), 2)
    assert all(labels[batch].sum(dim=0).max() == 2 for batch in batches)


def test_images_of_a_label_take_turns():
    labels = torch.eye(3).repeat_interleave(torch.tensor([5, 30, 60]), dim=0)
    counts = Counter(LabelBalancedSampler(labels, 6, length_before_new_iter=180))
    assert {counts[i] for i in range(5)} <= set(range(11, 15))  # 60 places are shared by 5 images
    assert {counts[i] for i in range(5, 35)} == {2}
    assert {counts[i] for i in range(35, 95)} == {1}


def test_an_image_counts_for_all_of_its_labels():
    labels = torch.tensor([[1, 1]] * 10 + [[1, 0]] * 90)
    for batch in batches_of(LabelBalancedSampler(labels, 6, length_before_new_iter=60)):
        # Three images of the rare label also have the frequent one, so that label needs no places of its own.
        assert labels[batch].sum(dim=0).tolist()[1] >= 3
        assert labels[batch].sum(dim=0).tolist()[0] == 6


def test_a_batch_as_large_as_the_data_set_holds_every_image():
    labels = long_tailed(12, 4)
    assert sorted(LabelBalancedSampler(labels, 12)) == list(range(12))
    assert sorted(LabelBalancedSampler(torch.tensor([[1, 0], [0, 0], [0, 0]]), 3)) == [0, 1, 2]


def test_every_image_with_the_shortest_length_is_a_shuffle():
    labels = long_tailed(40, 5)
    labels[7] = False
    sampler = LabelBalancedSampler(labels, 8, length_before_new_iter=40, every_image=True)
    assert sorted(sampler) == list(range(40))
    assert list(sampler) != list(sampler)


def test_default_lengths():
    labels = long_tailed(50, 4)
    assert len(LabelBalancedSampler(labels, 8)) == 48
    assert len(LabelBalancedSampler(labels, 8, every_image=True)) == 104
    assert len(LabelBalancedSampler(labels, 50)) == 50
    assert len(LabelBalancedSampler(labels, 8, length_before_new_iter=800)) == 800
    assert LabelBalancedSampler(labels, 8).labels_per_batch == 4
    assert LabelBalancedSampler(labels, 6).labels_per_batch == 3
    assert LabelBalancedSampler(labels, 1).labels_per_batch == 1


def test_seed_decides_and_passes_differ():
    labels = long_tailed(60, 5)

    def passes(**kwargs):
        sampler = LabelBalancedSampler(labels, 6, every_image=True, **kwargs)
        return list(sampler), list(sampler)

    torch.manual_seed(1)
    first = passes()
    torch.manual_seed(1)
    assert passes() == first
    assert first[0] != first[1]
    torch.manual_seed(2)
    assert passes() != first
    own = passes(generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert passes(generator=torch.Generator().manual_seed(1)) == own
    assert torch.equal(torch.get_rng_state(), state)


def test_a_pass_is_fixed_by_its_first_draw():
    sampler = LabelBalancedSampler(long_tailed(60, 5), 6)
    torch.manual_seed(1)
    expected = list(sampler)
    torch.manual_seed(1)
    found = []
    for index in sampler:
        found.append(index)
        torch.rand(3)  # models and transforms draw random numbers between the batches
    assert found == expected


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
@pytest.mark.parametrize("every_image", [False, True])
def test_replicas_share_the_batches_of_one_process(num_replicas, every_image):
    settings = {"labels": long_tailed(60, 5), "batch_size": 8, "every_image": every_image}
    one = LabelBalancedSampler(**settings)
    replicas = [LabelBalancedSampler(**settings, num_replicas=num_replicas, rank=rank) for rank in range(num_replicas)]
    passes = []
    for epoch in (0, 3):
        one.set_epoch(epoch)
        for number, replica in enumerate(replicas):
            replica.set_epoch(epoch)
            torch.manual_seed(number)  # processes may have different global generators
        shares = [list(replica.batches()) for replica in replicas]
        assert {len(share) for share in shares} == {len(replica) * num_replicas // 8 for replica in replicas}
        assert [[*chain(*parts)] for parts in zip(*shares, strict=True)] == batches_of(one)
        passes.append(shares)
    assert passes[0] != passes[1]


def test_the_epoch_and_the_seed_of_the_generator_decide_about_a_pass():
    def a_pass(epoch, seed=None, **kwargs):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        sampler = LabelBalancedSampler(long_tailed(60, 5), 6, generator=generator, **kwargs)
        if epoch is not None:
            sampler.set_epoch(epoch)
        return list(sampler)

    assert a_pass(2) == a_pass(2) == a_pass(2, seed=0)
    assert a_pass(2) != a_pass(1)
    assert a_pass(2, seed=7) not in (a_pass(2), a_pass(1, seed=7))
    assert a_pass(None, num_replicas=1, rank=0) == a_pass(0)
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        a_pass(-1)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_label_types_of_pml(dtype):
    labels = long_tailed(30, 4)
    generator = torch.Generator()
    expected = list(LabelBalancedSampler(labels, 5, generator=generator.manual_seed(0)))
    assert list(LabelBalancedSampler(labels.to(dtype), 5, generator=generator.manual_seed(0))) == expected


def test_labels_that_no_image_has_are_never_selected():
    labels = long_tailed(30, 4)
    labels[:, 2] = False
    assert LabelBalancedSampler(labels, 6).labels_per_batch == 3
    with pytest.raises(ValueError, match="labels_per_batch must be at most 3"):
        LabelBalancedSampler(labels, 6, labels_per_batch=4)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_loader(num_workers):
    labels = long_tailed(40, 5)
    sampler = LabelBalancedSampler(labels, 10)
    loader = DataLoader(TensorDataset(labels), batch_size=10, sampler=sampler, num_workers=num_workers)
    assert len(loader) == 4
    for (batch,) in loader:
        assert (batch.sum(dim=0) >= torch.minimum(labels.sum(dim=0), torch.tensor(2))).all()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_as_batch_sampler_of_a_data_loader(num_workers):
    labels = long_tailed(40, 5)
    sampler = LabelBalancedSampler(labels, 10, every_image=True)
    loader = DataLoader(TensorDataset(labels), batch_sampler=sampler.batches(), num_workers=num_workers)
    assert len(loader) == 8
    torch.manual_seed(4)
    batches = [batch for (batch,) in loader]
    torch.manual_seed(4)
    torch.empty((), dtype=torch.int64).random_()  # the loader's own draw
    for batch, expected in zip(batches, batches_of(sampler), strict=True):
        assert batch.equal(labels[expected])


def test_labels_of_a_subset():
    labels = long_tailed(100, 5)
    subset = Subset(TensorDataset(labels), range(20, 80, 2))
    with pytest.raises(ValueError, match=r"labels must have one row per image of data_source \(30\), got 100 rows; .*"):
        LabelBalancedSampler(labels, 10, data_source=subset)
    sampler = LabelBalancedSampler(labels[subset.indices], 10, every_image=True, data_source=subset)
    loader = DataLoader(subset, batch_size=10, sampler=sampler)
    seen = torch.cat([batch for (batch,) in loader])
    assert {tuple(row) for row in seen.tolist()} == {tuple(row) for row in labels[20:80:2].tolist()}


def test_pml_trainer():
    labels = long_tailed(48, 5)
    dataset = TensorDataset(torch.randn(48, 6), labels)
    trunk = torch.nn.Linear(6, 4)
    seen = []

    class Recorder(MACLLoss):
        def forward(self, embeddings, labels, *args):
            seen.append(labels.bool())
            return super().forward(embeddings, labels, *args)

    trainer = MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        12,
        {"metric_loss": Recorder(num_classes=5)},
        dataset,
        sampler=LabelBalancedSampler(labels, 12),
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        data_device="cpu",
    )
    trainer.train(num_epochs=2)
    assert len(seen) == 8
    assert all((batch.sum(dim=0) >= 2).all() for batch in seen)


def markdown_rows(path, heading):
    """The first table below a heading of a page: its header, and the cells of each row by the row's first cell."""
    text = path.read_text(encoding="utf-8").split(heading, 1)[1]
    lines = [line for line in text.split("\n\n|", 1)[1].split("\n\n")[0].splitlines() if "---" not in line]
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return header, {row[0]: row for row in rows}


def test_the_page_repeats_the_figures_of_the_ablation():
    docs = Path(__file__).parents[2] / "docs"
    measured_header, measured = markdown_rows(docs / "results" / "ablation.md", "## Sampler")
    header, shown = markdown_rows(docs / "parts" / "label_balanced_sampler.md", "lowered every metric")
    column_of = {name: measured_header.index(name.replace("mean of all metrics", "mean")) for name in header[1:]}
    for name, answer in (("shuffled", "default"), ("label-balanced", "`LabelBalancedSampler`")):
        expected = [measured[answer][column].split(" ")[0] for column in column_of.values()]
        assert shown[name][1:] == expected
    seven = range(1, 8)
    assert all(float(measured["`LabelBalancedSampler`"][i]) < float(measured["default"][i]) for i in seven)


def good_labels():
    return torch.ones(10, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": [[1, 0]]}, TypeError, "labels must be a multi-hot"),
        ({"labels": torch.arange(4)}, ValueError, "one_hot"),
        ({"labels": torch.full((4, 2), 3)}, ValueError, "only 0 and 1, got 3"),
        ({"labels": torch.zeros(4, 2)}, ValueError, "at least one label, got none in 4 images"),
        ({"labels": torch.zeros(0, 2)}, ValueError, "got none in 0 images"),
        ({"labels": torch.zeros(4, 0)}, ValueError, "got none in 4 images"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 11}, ValueError, "batch_size must be at most 10 .the number of images., got 11"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got 2.0"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer"),
        ({"labels_per_batch": 0}, ValueError, "labels_per_batch must be at least 1, got 0"),
        ({"labels_per_batch": 4}, ValueError, "labels_per_batch must be at most 3 .the number of labels that occur."),
        (
            {"batch_size": 2, "labels_per_batch": 3},
            ValueError,
            "labels_per_batch must be at most 2 .batch_size., got 3",
        ),
        ({"labels_per_batch": "2"}, TypeError, "labels_per_batch must be an integer"),
        ({"length_before_new_iter": 0}, ValueError, "length_before_new_iter must be at least 1, got 0"),
        ({"length_before_new_iter": 11}, ValueError, "multiple of batch_size .4., got 11; take 12"),
        ({"length_before_new_iter": 8.0}, TypeError, "length_before_new_iter must be an integer"),
        ({"length_before_new_iter": 8, "every_image": True}, ValueError, "at least 12 for every_image"),
        ({"every_image": 1}, TypeError, "every_image must be True or False, got 1"),
        ({"num_replicas": 2}, ValueError, "num_replicas was given without rank"),
        ({"rank": 0}, ValueError, "rank was given without num_replicas"),
        ({"num_replicas": 0, "rank": 0}, ValueError, "num_replicas must be at least 1, got 0"),
        ({"num_replicas": 2, "rank": -1}, ValueError, "rank must be at least 0, got -1"),
        ({"num_replicas": 2, "rank": 2}, ValueError, "rank must be below num_replicas .2., got 2"),
        ({"num_replicas": 3, "rank": 2}, ValueError, "a multiple of num_replicas .3., got 4"),
        ({"generator": 7}, TypeError, "generator must be a torch.Generator or None, got int"),
        ({"data_source": 10}, TypeError, "data_source must be a data set with a length, got int"),
        ({"data_source": range(6)}, ValueError, r"one row per image of data_source \(6\), got 10 rows; for a .*Subset"),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        LabelBalancedSampler(**{"labels": good_labels(), "batch_size": 4, **change})
