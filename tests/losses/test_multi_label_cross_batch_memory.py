import copy
import sqlite3
from contextlib import closing

import pytest
import torch
from oracles import counts_of, naive_baseline, naive_macl
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.distances import DotProductSimilarity, LpDistance
from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.reducers import DoNothingReducer
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper

from pml_macl.distances import LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MulSupConLoss,
    MultiLabelCrossBatchMemory,
    MultiSupConLoss,
    SimilarityDissimilarityLoss,
    SupConAnyLoss,
    SupConExactLoss,
)
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

BATCH_SIZES = (5, 8, 3, 11, 1, 7, 11, 6, 10)  # a queue of 11 rows wraps around within batches, and at their end
BASELINES = (
    JaccardSupConLoss,
    MulSupConLoss,
    MultiSupConLoss,
    SimilarityDissimilarityLoss,
    SupConAnyLoss,
    SupConExactLoss,
)


class OneHotLoss(BaseMetricLossFunction):
    """Convert one-hot labels to classes for a loss that needs one class per row."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, embeddings, labels, indices_tuple=None, ref_emb=None, ref_labels=None):
        classes, ref_classes = labels.long().argmax(dim=1), ref_labels.long().argmax(dim=1)
        return self.loss(embeddings, classes, indices_tuple, ref_emb, ref_classes)


class OneHotMiner(BaseMiner):
    def __init__(self, miner):
        super().__init__()
        self.miner = miner

    def forward(self, embeddings, labels, ref_emb, ref_labels):
        return self.miner(embeddings, labels.long().argmax(dim=1), ref_emb, ref_labels.long().argmax(dim=1))


def one_hot(classes):
    return torch.nn.functional.one_hot(classes, 4).bool()


def steps(generator, dtype=torch.float64, sizes=BATCH_SIZES):
    for size in sizes:
        yield torch.randn(size, 6, dtype=dtype, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def gradient(loss, embeddings):
    return torch.autograd.grad(loss, embeddings)[0]


def assert_same_step(ours, theirs, embeddings, classes, **kwargs):
    first, second = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    torch.manual_seed(len(embeddings))  # PML samples triplets at random
    loss = ours(first, one_hot(classes), **kwargs)
    torch.manual_seed(len(embeddings))
    expected = theirs(second, classes, **kwargs)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient(loss, first), gradient(expected, second), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours.embedding_memory, theirs.embedding_memory)
    assert torch.equal(ours.label_memory.long().argmax(dim=1), theirs.label_memory)
    assert (ours.queue_idx, ours.has_been_filled) == (theirs.queue_idx, theirs.has_been_filled)


LOSSES = {
    "contrastive": pml_losses.ContrastiveLoss,
    "supcon": pml_losses.SupConLoss,
    "multi-similarity": pml_losses.MultiSimilarityLoss,
    "ntxent": pml_losses.NTXentLoss,
    "triplet": lambda: pml_losses.TripletMarginLoss(triplets_per_anchor="all"),
}
MINERS = {
    "no miner": None,
    "pair miner": pml_miners.MultiSimilarityMiner,
    "triplet miner": pml_miners.TripletMarginMiner,
}


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_pml_on_one_hot_labels(loss, miner, generator):
    make_loss, make_miner = LOSSES[loss], MINERS[miner]
    theirs = CrossBatchMemory(make_loss(), 6, 11, miner=make_miner and make_miner())
    ours = MultiLabelCrossBatchMemory(OneHotLoss(make_loss()), 6, 4, 11, miner=make_miner and OneHotMiner(make_miner()))
    # No batches of one row: PML does not ignore its own copy.
    for embeddings, classes in steps(generator, sizes=[size for size in BATCH_SIZES if size > 1]):
        assert_same_step(ours, theirs, embeddings, classes)
    assert ours.has_been_filled


@pytest.mark.parametrize("miner", MINERS)
def test_equals_pml_with_an_enqueue_mask(miner, generator):
    make_miner = MINERS[miner]
    theirs = CrossBatchMemory(pml_losses.ContrastiveLoss(), 6, 11, miner=make_miner and make_miner())
    ours = MultiLabelCrossBatchMemory(
        OneHotLoss(pml_losses.ContrastiveLoss()), 6, 4, 11, miner=make_miner and OneHotMiner(make_miner())
    )
    for embeddings, classes in steps(generator, sizes=(8, 9, 4, 12, 8, 15)):
        mask = torch.rand(len(embeddings), generator=generator) < 0.6
        mask[:2] = torch.tensor([True, False])
        assert_same_step(ours, theirs, embeddings, classes, enqueue_mask=mask)


def test_macl_without_its_parts_equals_pml_supcon_in_its_memory(generator):
    plain = MACLLoss(
        distance=TemperatureScheduledSimilarity(overlap_scale=0, rarity_scale=0),
        reducer=FrequencyWeightedReducer(power=0),
    )
    ours, theirs = (
        MultiLabelCrossBatchMemory(plain, 6, 4, 24),
        CrossBatchMemory(pml_losses.SupConLoss(temperature=0.2), 6, 24),
    )
    for embeddings, classes in steps(generator, sizes=(10, 10, 10, 10, 10)):
        assert_same_step(ours, theirs, embeddings, classes)


class ListMemory:
    """Oracle: a list of (embedding, label set), oldest first, with the naive loss."""

    def __init__(self, size, **settings):
        self.size = size
        self.settings = settings
        self.queue = []
        self.counted = []

    def __call__(self, embeddings, labels, mask=None):
        rows = range(len(embeddings))
        enqueued = [i for i in rows if mask is None or mask[i]]
        anchors = [i for i in rows if mask is None or not mask[i]]
        self.queue = [(None, e, y) for _, e, y in self.queue]
        self.queue += [(i if mask is None else None, embeddings[i].detach(), labels[i]) for i in enqueued]
        self.queue = self.queue[-self.size :]
        self.counted += [labels[i] for i in anchors]
        pairs = ([], [], [], [])
        sets = [set(row.nonzero().flatten().tolist()) for row in labels]
        for position, i in enumerate(anchors):
            for j, (owner, _, y) in enumerate(self.queue):
                other = set(y.nonzero().flatten().tolist())
                jaccard = len(sets[i] & other) / len(sets[i] | other) if sets[i] | other else 0
                if owner == i:
                    continue
                if sets[i] & other and jaccard >= self.settings.get("positive_threshold", 0):
                    pairs[0].append(position)
                    pairs[1].append(j)
                elif jaccard <= self.settings.get("negative_threshold", 0):
                    pairs[2].append(position)
                    pairs[3].append(j)
        return naive_macl(
            embeddings[anchors],
            labels[anchors],
            ref_emb=torch.stack([e for _, e, _ in self.queue]),
            ref_labels=torch.stack([y for _, _, y in self.queue]),
            indices_tuple=tuple(torch.tensor(x, dtype=torch.long) for x in pairs),
            counts=counts_of(torch.stack(self.counted)),
        )


@pytest.mark.parametrize("use_mask", [False, True])
@pytest.mark.parametrize(
    "thresholds", [{}, {"positive_threshold": 0.5}, {"positive_threshold": 0.5, "negative_threshold": 1.0}]
)
def test_equals_a_naive_list_of_label_sets(thresholds, use_mask, generator, device):
    memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=5, **thresholds), 4, 5, 11).to(device)
    oracle = ListMemory(11, **thresholds)
    for size in BATCH_SIZES:
        embeddings = torch.randn(size, 4, dtype=torch.float64, generator=generator)
        labels = torch.rand(size, 5, generator=generator) < 0.3
        mask = torch.rand(size, generator=generator) < 0.5 if use_mask else None
        if use_mask:
            mask[0] = True
        first, second = (embeddings.to(device).requires_grad_(), embeddings.clone().requires_grad_())
        loss = memory(first, labels.to(device), enqueue_mask=mask)
        expected = oracle(second, labels, mask)
        torch.testing.assert_close(loss.cpu(), expected, rtol=1e-11, atol=1e-13)
        found = gradient(loss, first).cpu()
        wanted = torch.autograd.grad(expected, second, allow_unused=True)[0]
        torch.testing.assert_close(found, torch.zeros_like(second) if wanted is None else wanted, rtol=1e-9, atol=1e-12)
    statistics = memory.loss.label_statistics
    assert statistics.cooccurrence.tolist() == counts_of(torch.stack(oracle.counted))
    assert statistics.num_samples == len(oracle.counted)


def test_the_miner_gives_what_its_thresholds_in_the_loss_give(generator):
    thresholds = {"positive_threshold": 0.4, "negative_threshold": 0.3}
    mined = MultiLabelCrossBatchMemory(MACLLoss(num_classes=4), 6, 4, 11, miner=LabelOverlapMiner(**thresholds))
    plain = MultiLabelCrossBatchMemory(MACLLoss(num_classes=4, **thresholds), 6, 4, 11)
    for embeddings, _ in steps(generator):
        labels = torch.rand(len(embeddings), 4, generator=generator) < 0.4
        assert torch.equal(mined(embeddings, labels), plain(embeddings, labels))


def test_no_row_is_paired_with_its_own_copy():
    recorded = []

    class Recorder(MACLLoss):
        def forward(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
            recorded.append((embeddings.detach(), ref_emb, indices_tuple))
            return super().forward(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    labels = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1], [0, 0]])  # two rows share no label with any other
    for miner in (None, LabelOverlapMiner(), LabelOverlapMiner(output="triplets")):
        memory = MultiLabelCrossBatchMemory(Recorder(), 3, 2, 7, miner=miner)
        for _ in range(4):
            memory(torch.randn(5, 3), labels)
    assert len(recorded) == 12
    for embeddings, memory_embeddings, indices in recorded:
        pairs = [indices[:2], indices[2:]] if len(indices) == 4 else [indices[:2], indices[::2]]
        for anchors, others in pairs:
            assert len(anchors) > 0
            assert not (embeddings[anchors] == memory_embeddings[others]).all(dim=1).any()


def test_a_miner_of_all_pairs_changes_nothing(generator):
    """MulSupCon counts the references with each label, without the anchor's own copy, also if a miner selects pairs."""
    memories = [
        MultiLabelCrossBatchMemory(MulSupConLoss(), 4, 3, 9, miner=miner) for miner in (None, LabelOverlapMiner())
    ]
    for _ in range(3):
        embeddings, labels = torch.randn(5, 4, generator=generator), torch.rand(5, 3, generator=generator) < 0.5
        one, other = (memory(embeddings, labels) for memory in memories)
        assert one > 0
        torch.testing.assert_close(one, other)


def test_the_queue_keeps_no_graph_of_the_labels(generator):
    memory = MultiLabelCrossBatchMemory(
        MACLLoss(
            relation=lambda x, y: (x @ y.T).clamp(0, 1),
            distance=TemperatureScheduledSimilarity(rarity_scale=0),
            reducer=FrequencyWeightedReducer(power=0),
        ),
        embedding_size=4,
        memory_size=8,
    )
    soft = torch.rand(5, 3, generator=generator, requires_grad=True).softmax(dim=1)
    memory(torch.randn(5, 4, generator=generator), soft)
    assert not memory.label_memory.requires_grad
    copy.deepcopy(memory)


@pytest.mark.parametrize("output", ["pairs", "triplets"])
@pytest.mark.parametrize("memory_output", ["pairs", "triplets"])
def test_indices_of_the_batch_are_taken_in_addition(output, memory_output, generator):
    """The indices refer to the copies in the queue. Without older rows, the loss is that of the detached batch."""
    embeddings = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    labels = torch.rand(6, 3, generator=generator) < 0.5
    inner = LabelOverlapMiner(output=output)(embeddings, labels)
    # An anchor without a positive or without a negative has no triplets.
    expected_inner = LabelOverlapMiner(output=max(output, memory_output))(embeddings, labels)

    class NothingMiner(BaseMiner):
        def forward(self, *args):
            return (torch.zeros(0, dtype=torch.long),) * (4 if memory_output == "pairs" else 3)

    memory = MultiLabelCrossBatchMemory(MACLLoss(), 5, 3, 6, miner=NothingMiner())
    memory.add_to_memory(torch.randn(4, 5), torch.ones(4, 3))  # the batch will be at positions 4, 5, 0, 1, 2, 3
    first, second = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    loss = memory(first, labels, inner)
    expected = MACLLoss()(second, labels, expected_inner, embeddings, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, first), gradient(expected, second))


def test_indices_of_the_batch_equal_pml_where_pml_looks_at_the_right_rows(generator):
    """PML reads them as rows of the queue, which is correct if the batch is at its beginning."""
    theirs = CrossBatchMemory(pml_losses.ContrastiveLoss(), 6, 8)
    ours = MultiLabelCrossBatchMemory(OneHotLoss(pml_losses.ContrastiveLoss()), 6, 4, 8)
    for embeddings, classes in steps(generator, sizes=(8, 8, 8)):
        for miner in (pml_miners.MultiSimilarityMiner(), pml_miners.TripletMarginMiner()):
            assert_same_step(ours, theirs, embeddings, classes, indices_tuple=miner(embeddings, classes))


@pytest.mark.parametrize("loss", BASELINES)
def test_baselines(loss, generator):
    """Equal the formula of the paper, with a queue that holds other rows and the batch, without own copies."""
    labels, old_labels = (torch.rand(n, 4, generator=generator) < 0.5 for n in (6, 5))
    embeddings, old = (torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in (6, 5))
    memory = MultiLabelCrossBatchMemory(loss(temperature=0.3), 3, 4, 11)
    memory.add_to_memory(old, old_labels)
    first, second = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    value = memory(first, labels)
    references, ref_labels = torch.cat([old, embeddings]), torch.cat([old_labels, labels])
    expected = naive_baseline(loss.__name__, 0.3, second, labels, references, ref_labels, own=range(5, 11))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gradient(value, first), gradient(expected, second), rtol=1e-9, atol=1e-12)
    assert value > 0


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("loss", [MACLLoss, *BASELINES])
def test_the_first_batch_in_an_empty_memory_is_the_loss_alone(loss, engine, generator):
    labels = torch.rand(9, 4, generator=generator) < 0.4
    embeddings = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    memory = MultiLabelCrossBatchMemory(loss(engine=engine), 3, 4, 20)
    first, second = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    value = memory(first, labels)
    torch.testing.assert_close(value, loss(engine=engine)(embeddings, labels), rtol=1e-12, atol=0)
    # The memory receives no gradient, so only the anchors contribute.
    if loss is MACLLoss:
        pairs = LabelOverlapMiner()(embeddings, labels)
        expected = naive_macl(second, labels, embeddings, labels, pairs)
    else:
        expected = naive_baseline(loss.__name__, 0.1, second, labels, embeddings, labels, own=range(9))
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gradient(value, first), gradient(expected, second), rtol=1e-9, atol=1e-12)


def test_pairs_are_listed_only_for_a_miner(generator):
    recorded = []

    class Recorder(MACLLoss):
        def compute_loss(self, embeddings, labels, indices_tuple, *args, **kwargs):
            recorded.append(indices_tuple)
            return super().compute_loss(embeddings, labels, indices_tuple, *args, **kwargs)

    embeddings, labels = torch.randn(6, 3, generator=generator), torch.rand(6, 2, generator=generator) < 0.5
    MultiLabelCrossBatchMemory(Recorder(), 3, 2, 7)(embeddings, labels)
    MultiLabelCrossBatchMemory(Recorder(), 3, 2, 7, miner=LabelOverlapMiner())(embeddings, labels)
    assert [indices is None for indices in recorded] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_queue_follows_the_type_and_device_of_the_embeddings(dtype, device, generator):
    memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=4), 6, 4, 11).to(device)
    for embeddings, classes in steps(generator, dtype, sizes=(6, 8)):
        embeddings = embeddings.to(device).requires_grad_()
        gradient(memory(embeddings, one_hot(classes)), embeddings)
    assert memory.embedding_memory.dtype is dtype
    assert memory.embedding_memory.device == embeddings.device
    assert memory.label_memory.dtype is torch.bool


def test_half_precision_under_autocast(device, generator):
    memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=4), 6, 4, 11).to(device)
    weight = torch.eye(6, device=device, requires_grad=True)
    for embeddings, classes in steps(generator, torch.float32, sizes=(6, 8)):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = memory(embeddings.to(device) @ weight, one_hot(classes))
        loss.backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_resumed_run_goes_on_bit_for_bit(dtype, generator):
    def make():
        schedule = LinearTemperature(0.2, 0.1, num_steps=20)
        loss = MACLLoss(num_classes=4, distance=TemperatureScheduledSimilarity(schedule=schedule))
        return MultiLabelCrossBatchMemory(loss, 6, 4, 11)

    run, batches = make(), list(steps(generator, dtype))
    for embeddings, classes in batches[:4]:
        run(embeddings, one_hot(classes))
    saved = copy.deepcopy(run.state_dict())
    copied = copy.deepcopy(run)
    restored = make()
    restored.load_state_dict(saved)
    for embeddings, classes in batches[4:]:
        expected = run(embeddings, one_hot(classes))
        assert torch.equal(restored(embeddings, one_hot(classes)), expected)
        assert torch.equal(copied(embeddings, one_hot(classes)), expected)
    for name, value in run.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)


def test_reset_queue_starts_anew(generator):
    memory = MultiLabelCrossBatchMemory(SupConAnyLoss(), 6, 4, 11)
    batches = list(steps(generator))
    losses = [memory(embeddings, one_hot(classes)) for embeddings, classes in batches]
    memory.reset_queue()
    assert (memory.queue_idx, memory.has_been_filled, memory.label_memory.any().item()) == (0, False, False)
    assert [memory(embeddings, one_hot(classes)) for embeddings, classes in batches] == losses


@pytest.mark.parametrize(
    "loss",
    [
        SupConAnyLoss(),
        SupConAnyLoss(engine="reference"),
        SupConAnyLoss(distance=DotProductSimilarity(normalize_embeddings=False), engine="reference"),
        SupConAnyLoss(distance=LpDistance(normalize_embeddings=False)),
        OneHotLoss(pml_losses.ContrastiveLoss(distance=DotProductSimilarity(normalize_embeddings=False))),
    ],
)
def test_two_steps_can_be_differentiated_together(loss, generator):
    """The second step overwrites the queue that the first step used."""
    memory = MultiLabelCrossBatchMemory(loss, 6, 4, 11)
    (first, first_classes), (second, second_classes) = steps(generator, sizes=(6, 6))
    first.requires_grad_()
    second.requires_grad_()
    total = memory(first, one_hot(first_classes)) + memory(second, one_hot(second_classes))
    total.backward()
    assert first.grad.abs().sum() > 0
    assert second.grad.abs().sum() > 0
    assert not memory.embedding_memory.requires_grad


@pytest.mark.parametrize("loss", [MACLLoss(num_classes=4), SupConExactLoss(), OneHotLoss(pml_losses.ContrastiveLoss())])
@pytest.mark.parametrize("case", ["empty batch", "empty batch and queue", "no anchors", "nothing enqueued", "one row"])
def test_nothing_to_compare_gives_a_differentiable_zero(loss, case, generator):
    memory = MultiLabelCrossBatchMemory(loss, 6, 4, 11)
    if case == "empty batch":
        memory.add_to_memory(torch.randn(3, 6), one_hot(torch.arange(3)))
    num_rows = {"empty batch": 0, "empty batch and queue": 0, "one row": 1}.get(case, 5)
    embeddings = torch.randn(num_rows, 6, generator=generator, requires_grad=True)
    labels = one_hot(torch.randint(0, 4, (num_rows,), generator=generator))
    mask = {"no anchors": torch.ones(5).bool(), "nothing enqueued": torch.zeros(5).bool()}.get(case)
    before = int(memory.num_enqueued)
    value = memory(embeddings, labels, enqueue_mask=mask)
    assert value == 0
    assert torch.equal(gradient(value, embeddings), torch.zeros_like(embeddings))
    assert memory.num_enqueued == before + (num_rows if mask is None else mask.sum())
    assert not memory.has_been_filled


def test_the_dictionary_of_a_loss_passes_through():
    memory = MultiLabelCrossBatchMemory(SupConAnyLoss(reducer=DoNothingReducer()), 3, 2, 4)
    losses = memory(torch.randn(4, 3), torch.ones(4, 2))
    assert len(losses["loss"]["losses"]) == 12  # each row and the copies of the three others


def good_call():
    return {"embeddings": torch.randn(4, 3), "labels": torch.ones(4, 2, dtype=torch.bool)}


BAD_CALLS = {
    "embedding size": (ValueError, "embedding size 3, got 5", {"embeddings": torch.randn(4, 5)}),
    "embeddings as list": (TypeError, "embeddings must be", {"embeddings": [[0.0]]}),
    "class indices": (ValueError, "one_hot", {"labels": torch.arange(4)}),
    "number of classes": (ValueError, "one column per class .2., got 3", {"labels": torch.ones(4, 3)}),
    "number of rows": (ValueError, "one row per embedding .4., got 3", {"labels": torch.ones(3, 2)}),
    "counts": (ValueError, "only 0 and 1, got 2", {"labels": torch.full((4, 2), 2)}),
    "too large a batch": (
        ValueError,
        "at most memory_size .5. rows, got 6; use smaller",
        {"embeddings": torch.randn(6, 3), "labels": torch.ones(6, 2)},
    ),
    "too large a masked batch": (
        ValueError,
        "at most memory_size .5. rows, got 6",
        {"embeddings": torch.randn(9, 3), "labels": torch.ones(9, 2), "enqueue_mask": torch.arange(9) < 6},
    ),
    "mask of integers": (ValueError, "enqueue_mask must be torch.bool", {"enqueue_mask": torch.tensor([1, 0, 1, 0])}),
    "mask of another length": (ValueError, "one entry per embedding .4.", {"enqueue_mask": torch.ones(3).bool()}),
    "mask as list": (TypeError, "enqueue_mask must be a torch.Tensor, got list", {"enqueue_mask": [True] * 4}),
    "mask and indices": (
        ValueError,
        "indices_tuple and enqueue_mask must not both be given",
        {"enqueue_mask": torch.ones(4).bool(), "indices_tuple": (torch.tensor([0]),) * 4},
    ),
    "indices beyond the batch": (
        ValueError,
        "from 0 to 3, got 4",
        {"indices_tuple": (torch.tensor([0]), torch.tensor([4]), torch.tensor([0]), torch.tensor([1]))},
    ),
    "five indices": (ValueError, "got 5 tensors", {"indices_tuple": (torch.tensor([0]),) * 5}),
}


def assert_unchanged(memory, before):
    for name, value in memory.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_are_refused_and_change_nothing(name):
    error, message, change = BAD_CALLS[name]
    memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=2), 3, 2, 5)
    memory(**good_call())
    before = copy.deepcopy(memory.state_dict())
    with pytest.raises(error, match=message):
        memory(**{**good_call(), **change})
    assert_unchanged(memory, before)


@pytest.mark.parametrize("culprit", ["loss", "miner"])
def test_a_loss_or_miner_that_fails_leaves_the_queue_as_it_was(culprit):
    class Failing(MACLLoss if culprit == "loss" else LabelOverlapMiner):
        fails = False

        def forward(self, *args):
            if self.fails:
                raise RuntimeError("out of memory")
            return super().forward(*args)

    part = Failing()
    loss, miner = (part, None) if culprit == "loss" else (MACLLoss(), part)
    memory = MultiLabelCrossBatchMemory(loss, 3, 2, 5, miner=miner)
    memory(**good_call())
    before = copy.deepcopy(memory.state_dict())
    part.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        memory(embeddings=torch.randn(4, 3).half(), labels=torch.ones(4, 2))
    assert_unchanged(memory, before)
    assert memory.embedding_memory.dtype is torch.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embedding_size": 0}, ValueError, "embedding_size must be at least 1, got 0"),
        ({"num_classes": -1}, ValueError, "num_classes must be at least 1, got -1"),
        ({"memory_size": 2.5}, TypeError, "memory_size must be an integer, got 2.5"),
        ({"memory_size": True}, TypeError, "memory_size must be an integer"),
        (
            {"loss": torch.nn.CrossEntropyLoss()},
            TypeError,
            "loss must be an instance of BaseMetricLoss",
        ),
        ({"loss": pml_losses.ContrastiveLoss()}, ValueError, "ContrastiveLoss requires one class per row; wrap it in "),
        ({"loss": MACLLoss}, TypeError, "loss must be"),
        ({"miner": pml_miners.MultiSimilarityMiner()}, ValueError, "wrap it in MultiLabelMinerWrapper"),
        ({"miner": MACLLoss()}, TypeError, "miner must be an instance of BaseMiner, got MACLLoss"),
    ],
)
def test_bad_constructor_arguments(change, error, message):
    with pytest.raises(error, match=message):
        MultiLabelCrossBatchMemory(**{"loss": MACLLoss(), "embedding_size": 3, "num_classes": 2, **change})


def test_pml_trainer_and_its_records(tmp_path):
    labels = torch.rand(48, 5, generator=torch.Generator().manual_seed(0)) < 0.3
    dataset = torch.utils.data.TensorDataset(torch.randn(48, 6), labels)
    records, _, _ = get_record_keeper(str(tmp_path / "records"))
    hooks = HookContainer(records, save_models=False, log_freq=1)
    trunk = torch.nn.Linear(6, 4)
    memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=5), 4, 5, 32, miner=LabelOverlapMiner())
    trainer = MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        12,
        {"metric_loss": memory},
        dataset,
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        data_device="cpu",
        end_of_iteration_hook=hooks.end_of_iteration_hook,
    )
    trainer.train(num_epochs=2)
    assert memory.num_enqueued == 96
    assert memory.loss.label_statistics.num_samples == 96
    records.save_records()
    with closing(sqlite3.connect(tmp_path / "records" / "logs.db")) as database:
        rows = database.execute("SELECT queue_idx FROM metric_loss_MultiLabelCrossBatchMemory").fetchall()
    assert rows == [(12,), (24,), (4,), (16,), (28,), (8,), (20,), (0,)]
