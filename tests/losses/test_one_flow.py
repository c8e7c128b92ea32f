"""What a training step computes once, what it never computes, and how user-defined parts work in it."""

import copy
from collections import Counter

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import reducers as pml_reducers
from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity, LpDistance
from pytorch_metric_learning.regularizers import LpRegularizer
from torch.utils._python_dispatch import TorchDispatchMode

from pml_macl import LabelStatistics, losses, pairs
from pml_macl.batch_share import BatchShare
from pml_macl.distances import (
    CosineTemperature,
    LearnableTemperature,
    LinearTemperature,
    TemperatureScheduledSimilarity,
)
from pml_macl.losses import MACLLoss, MultiLabelContrastiveLoss, MultiLabelCrossBatchMemory, SupConAnyLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer, MulSupConReducer, PairWeightedReducer

ALL = ("MACLLoss", "SupConAnyLoss", "SupConExactLoss", "MultiSupConLoss", "JaccardSupConLoss", "MulSupConLoss")
ALL_LOSSES = [getattr(losses, name) for name in (*ALL, "SimilarityDissimilarityLoss")]
SCHEDULES = {
    "linear": lambda: LinearTemperature(0.2, 0.1, 10),
    "cosine": lambda: CosineTemperature(0.2, 0.1, 10),
    "learnable": LearnableTemperature,
}


@pytest.fixture
def batch(generator):
    labels = torch.rand(12, 5, generator=generator) < 0.4
    return torch.randn(12, 8, generator=generator), labels


class Operations(TorchDispatchMode):
    """Count operations, and operations with a float64 result."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.float64 = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = str(function)
        self.counts[name] += 1
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.float64:
                self.float64[name] += 1
        return result


@pytest.mark.parametrize("loss_class", ALL_LOSSES)
def test_a_batch_is_counted_only_if_a_part_asks(loss_class, batch, monkeypatch):
    counted = []
    original = LabelStatistics.from_checked_labels.__func__

    def count(cls, labels, *args):
        counted.append(labels)
        return original(cls, labels, *args)

    monkeypatch.setattr(LabelStatistics, "from_checked_labels", classmethod(count))
    loss_class()(*batch)
    assert len(counted) == (1 if loss_class is MACLLoss else 0)


@pytest.mark.parametrize("loss_class", ALL_LOSSES)
@pytest.mark.parametrize("in_memory", [False, True])
def test_label_values_are_checked_once(loss_class, in_memory, batch):
    loss_fn = loss_class()
    if in_memory:
        loss_fn = MultiLabelCrossBatchMemory(loss_fn, 8, 5, 20)
    embeddings, labels = batch
    loss_fn(embeddings, labels)
    with Operations() as operations:
        loss_fn(embeddings, labels)
    before = operations.counts["aten.eq.Scalar"]
    with Operations() as operations:
        loss_fn(embeddings, labels.long())
    assert operations.counts["aten.eq.Scalar"] - before == 2  # one comparison with 1 and one with 0


@pytest.mark.parametrize("loss_class", ALL_LOSSES)
@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_float32_embeddings_need_no_float64(loss_class, engine, batch):
    """Some devices do not support float64."""
    embeddings, labels = batch
    loss_fn = loss_class(engine=engine)
    with Operations() as operations:
        loss_fn(embeddings.requires_grad_(), labels).backward()
    assert not operations.float64


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("level", ["label", "cooccurrence"])
def test_no_schedule_weight_or_memory_needs_float64(schedule, level, batch):
    loss_fn = MACLLoss(
        num_classes=5,
        distance=TemperatureScheduledSimilarity(schedule=SCHEDULES[schedule]()),
        reducer=FrequencyWeightedReducer(level=level, overlap_power=0.5, anchor_power=1),
    )
    memory = MultiLabelCrossBatchMemory(loss_fn, 8, 5, 20)
    with Operations() as operations:
        memory(batch[0].requires_grad_(), batch[1]).backward()
    assert not operations.float64


def test_the_check_for_float64_can_fail(batch):
    with Operations() as operations:
        MACLLoss()(batch[0].double(), batch[1])
    assert operations.float64


class EqualSetsCountTwice(PairWeightedReducer):
    def pair_weights(self, block):
        return 1 + (block.jaccard == 1)


class FewLabelsFirst(FrequencyWeightedReducer):
    def anchor_weights(self, pairs):
        return 1 / (1 + pairs.labels.sum(dim=1, dtype=pairs.dtype))


class SofterForLargeSets(TemperatureScheduledSimilarity):
    def pair_temperatures(self, block):
        return 0.1 + 0.02 * block.sizes


class ByReference(TemperatureScheduledSimilarity):
    def pair_temperatures(self, block):
        return 0.1 + 0.02 * block.ref_sizes


class WarmerWithOverlap(TemperatureScheduledSimilarity):
    def pair_temperatures(self, block):
        overlap = block.jaccard  # still needed while the base class computes
        return super().pair_temperatures(block) * (1 + overlap)


class OneMoreThanTheSums(PairWeightedReducer):
    def pair_weights(self, block):
        return block.sum_over_shared(torch.full((5,), 0.5, dtype=torch.float64)).add_(1.0)  # a tensor of its own


class NumberOfLabels(FrequencyWeightedReducer):
    def anchor_weights(self, pairs):
        return pairs.labels.sum(dim=1)  # integers


class OneNumber(TemperatureScheduledSimilarity):
    def pair_temperatures(self, block):
        return 0.15


class InFloat32(TemperatureScheduledSimilarity):
    def pair_temperatures(self, block):
        return (0.1 + 0.02 * block.sizes).float()


class ShorterVectors(CosineSimilarity):
    def normalize(self, embeddings, dim=1, **kwargs):
        return 0.8 * super().normalize(embeddings, dim, **kwargs)


@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"reducer": EqualSetsCountTwice()},
        {"reducer": FewLabelsFirst()},
        {"reducer": OneMoreThanTheSums()},
        {"reducer": NumberOfLabels()},
        {"distance": OneNumber()},
        {"distance": InFloat32()},
        {"distance": SofterForLargeSets()},
        {"distance": ByReference()},
        {"distance": WarmerWithOverlap()},
        {"distance": ShorterVectors()},
        {"distance": CosineSimilarity(p=1)},
        {"distance": DotProductSimilarity(normalize_embeddings=False)},
        {"distance": SofterForLargeSets(distance=DotProductSimilarity()), "reducer": EqualSetsCountTwice()},
        {"embedding_regularizer": LpRegularizer(), "reducer": EqualSetsCountTwice()},
    ],
    ids=lambda options: " ".join(type(part).__name__ for part in options.values()),
)
def test_a_part_of_your_own_runs_in_the_fused_engine(options, with_references, batch, generator, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ELEMENTS", 30)
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 3)
    embeddings, labels = batch[0].double(), batch[1]
    references = ()
    if with_references:
        references = (None, torch.randn(7, 8, dtype=torch.float64, generator=generator), labels[:7])
    found = []
    for engine in ("auto", "reference"):
        leaf = embeddings.clone().requires_grad_()
        loss_fn = MACLLoss(**copy.deepcopy(options), engine=engine)
        loss = loss_fn(leaf, labels, *references)
        found.append((loss, torch.autograd.grad(loss, leaf)[0]))
        assert (loss_fn.fallback is None) == (engine == "auto")
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    if "embedding_regularizer" not in options:
        assert found[0][0] != MACLLoss()(embeddings, labels, *references)


def test_temperatures_leave_the_overlaps_that_others_hold_alone(batch):
    labels = batch[1]
    block = pairs.Pairs(labels)[:]
    overlap = block.jaccard
    before = overlap.clone()
    plain = TemperatureScheduledSimilarity().pair_temperatures(block)
    assert torch.equal(overlap, before)
    torch.testing.assert_close(WarmerWithOverlap().pair_temperatures(pairs.Pairs(labels)[:]), plain * (1 + before))
    # The same in the engine. With one label per image, J is 0 or 1, so the expected loss has twice the scale.
    one_hot = torch.nn.functional.one_hot(torch.arange(12) % 4, 4)
    found = MACLLoss(distance=WarmerWithOverlap(overlap_scale=1.0))(batch[0], one_hot)
    expected = MACLLoss(distance=TemperatureScheduledSimilarity(overlap_scale=3.0))(batch[0], one_hot)
    torch.testing.assert_close(found, expected)


def test_what_a_subclass_replaces_is_never_bypassed(batch):
    class Doubled(FrequencyWeightedReducer):
        def pos_pair_reduction(self, *args, **kwargs):
            return 2 * super().pos_pair_reduction(*args, **kwargs)

    class Sharper(TemperatureScheduledSimilarity):
        def logits(self, query_emb, ref_emb, temperatures):
            return 2 * super().logits(query_emb, ref_emb, temperatures)

    class Cubed(CosineSimilarity):
        def compute_mat(self, query_emb, ref_emb):
            return super().compute_mat(query_emb, ref_emb) ** 3

    torch.testing.assert_close(MACLLoss(reducer=Doubled())(*batch), 2 * MACLLoss()(*batch))
    for part in (Sharper(), Cubed()):
        loss_fn = MACLLoss(distance=part)
        assert loss_fn(*batch) != MACLLoss()(*batch)
        assert type(part).__name__ in loss_fn.fallback

    class Overriding(TemperatureScheduledSimilarity):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    with pytest.raises(TypeError, match=r"Overriding must not override forward.*override pair_temperatures or"):
        Overriding()


@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.5, 0.3)])
def test_collected_stats_are_those_of_the_reference_engine(with_references, thresholds, batch, generator, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ELEMENTS", 30)
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 3)
    references = (None, torch.randn(7, 8, generator=generator), batch[1][:7]) if with_references else ()
    found = []
    for engine in ("fused", "reference"):
        distance = TemperatureScheduledSimilarity(distance=CosineSimilarity(collect_stats=True), collect_stats=True)
        loss_fn = MACLLoss(
            positive_threshold=thresholds[0],
            negative_threshold=thresholds[1],
            distance=distance,
            reducer=FrequencyWeightedReducer(collect_stats=True),
            collect_stats=True,
            engine=engine,
        )
        plain = MACLLoss(positive_threshold=thresholds[0], negative_threshold=thresholds[1])
        torch.testing.assert_close(loss_fn(*batch, *references), plain(*batch, *references))
        parts = (loss_fn, loss_fn.distance, loss_fn.distance.distance, loss_fn.reducer)
        found.append({name: getattr(part, name) for part in parts for name in part._record_these_stats})
    assert found[0].keys() == found[1].keys()
    assert found[0]["num_pos_pairs"] > 0
    assert found[0]["losses_size"] == found[0]["num_pos_pairs"]
    assert found[0]["max_pair_temperature"] > found[0]["mean_pair_temperature"] > found[0]["min_pair_temperature"] > 0
    assert found[0]["initial_avg_query_norm"] > 1
    assert found[0] == pytest.approx(found[1])


def test_collected_stats_without_pairs():
    for engine in ("fused", "reference"):
        loss_fn = MACLLoss(collect_stats=True, engine=engine)
        loss_fn(torch.randn(3, 2), torch.eye(3), None, torch.randn(0, 2), torch.ones(0, 3))
        assert (loss_fn.num_pos_pairs, loss_fn.num_neg_pairs, loss_fn.anchors_without_positives) == (0, 0, 3)


def test_given_statistics_stay_the_same_object_at_every_level():
    statistics, other = LabelStatistics(5), LabelStatistics(5)
    leaf = FrequencyWeightedReducer(statistics)
    nested = pml_reducers.MultipleReducers(
        {"loss": pml_reducers.PerAnchorReducer(FrequencyWeightedReducer(statistics))},
        default_reducer=FrequencyWeightedReducer(other),
    )
    for reducer in (leaf, pml_reducers.PerAnchorReducer(leaf), nested):
        for options in ({}, {"embedding_regularizer": LpRegularizer()}):
            loss_fn = MACLLoss(reducer=reducer, **options)
            found = {id(m) for m in loss_fn.modules() if isinstance(m, LabelStatistics)}
            assert id(statistics) in found
            assert found <= {id(statistics), id(other)}


def test_schedules_advance_by_hand_if_asked_to(batch):
    schedule = LinearTemperature(0.2, 0.1, num_steps=10)
    distance = TemperatureScheduledSimilarity(schedule=schedule, auto_advance=False)
    loss_fn = MACLLoss(distance=distance)
    for engine in ("fused", "reference"):
        loss_fn.engine = engine
        loss_fn(*batch)
    distance(*batch[:1])
    assert schedule.step == 0
    with torch.no_grad():
        distance.advance()
    assert schedule.step == 1
    with pytest.raises(TypeError, match="auto_advance must be True or False, got 0"):
        TemperatureScheduledSimilarity(auto_advance=0)


@pytest.mark.parametrize(
    ("loss_class", "name"),
    [
        (losses.MultiSupConLoss, "positive_threshold"),
        (losses.SupConExactLoss, "positive_threshold"),
    ],
)
def test_arguments_of_other_losses_are_rejected_by_name(loss_class, name):
    with pytest.raises(TypeError, match=f"{loss_class.__name__} takes no {name}"):
        loss_class(**{name: 0.6})


@pytest.mark.parametrize(
    ("own", "ref_emb", "message"),
    [
        (torch.arange(12), False, "own was given without ref_emb"),
        (torch.arange(11), True, r"one entry per embedding \(12\), got torch.int64 of shape \(11,\)"),
        (torch.arange(12).float(), True, "got torch.float32"),
        ([1], True, "got list"),
        (torch.full((12,), 12), True, "own must hold existing row numbers, from 0 to 11, got 12 to 12"),
    ],
)
def test_bad_own(own, ref_emb, message, batch):
    references = batch if ref_emb else (None, None)
    loss_fn = MACLLoss(num_classes=batch[1].shape[1])
    with pytest.raises(ValueError, match=message):
        loss_fn(*batch, None, *references, own=own)
    assert loss_fn.label_statistics.num_samples == 0


def test_a_share_needs_the_fused_engine(batch):
    share = BatchShare(0, 6, num_processes=2)
    with pytest.raises(ValueError, match='share needs the fused engine, which is not possible with engine="reference"'):
        MACLLoss(engine="reference")(*batch, share=share)


@pytest.mark.parametrize("temperature", [0.05, 0.1])
def test_losses_near_0_keep_their_digits(temperature, generator):
    """Two tight clusters: the loss is the small difference of two large numbers."""
    labels = torch.tensor([[1, 0], [0, 1]]).repeat(8, 1)
    centres = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(8, 1)
    embeddings = (centres + 1e-3 * torch.randn(16, 2, generator=generator, dtype=torch.float64)).float()
    reference = SupConAnyLoss(temperature=temperature, engine="reference")
    expected = reference(embeddings.double(), labels)
    assert SupConAnyLoss(temperature=temperature, engine="fused")(embeddings, labels).item() == pytest.approx(
        expected.item(), abs=2e-7
    )


@pytest.mark.parametrize("loss_class", ALL_LOSSES)
@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_own_copies_among_the_references_are_left_out(loss_class, engine, batch, generator):
    """With the batch in another order as references, the loss is that of the batch alone."""
    embeddings, labels = batch
    order = torch.randperm(12, generator=generator)
    loss_fn = loss_class(engine=engine)
    loss = loss_fn(embeddings, labels, None, embeddings[order], labels[order], own=order.argsort())
    torch.testing.assert_close(loss, loss_fn(embeddings, labels))


def test_reference_counts_leave_out_own_copies_only_where_they_are():
    labels = torch.tensor([[1, 0], [1, 1]]).bool()
    assert pairs.Pairs(labels).carriers.tolist() == [1, 0]
    assert pairs.Pairs(labels, labels).carriers.tolist() == [2, 1]
    assert pairs.Pairs(labels, labels, own=torch.tensor([0, 1])).carriers.tolist() == [1, 0]
    weights = MulSupConReducer().pair_weights(pairs.Pairs(labels, labels)[:])
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5], [0.5, 1.5]]))


def test_the_plain_loss_is_fused_for_every_matrix_product():
    assert MultiLabelContrastiveLoss().fallback is None
    assert MultiLabelContrastiveLoss(distance=LpDistance()).fallback == "the distance LpDistance"


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@pytest.mark.parametrize(
    "loss_fn",
    [
        MACLLoss(),
        MACLLoss(engine="reference"),
        losses.MultiLabelLossWrapper(pml_losses.TripletMarginLoss()),
    ],
)
def test_references_may_have_another_floating_point_type(loss_fn, dtypes, batch):
    embeddings, labels = batch[0].to(dtypes[0]), batch[1]
    references = batch[0].to(dtypes[1])
    indices = LabelOverlapMiner()(embeddings, labels, references, labels)
    for given in (None, indices):
        found = loss_fn(embeddings, labels, given, references, labels)
        assert found.dtype is dtypes[0]
        torch.testing.assert_close(found, loss_fn(embeddings, labels, given, references.to(dtypes[0]), labels))


def test_a_reducer_that_fails_does_not_advance_the_schedule(batch):
    class Failing(pml_reducers.MeanReducer):
        def pos_pair_reduction(self, *args):
            raise RuntimeError("out of memory")

    schedule = LinearTemperature(0.2, 0.1, 10)
    loss_fn = MACLLoss(distance=TemperatureScheduledSimilarity(schedule=schedule), reducer=Failing())
    with pytest.raises(RuntimeError, match="out of memory"):
        loss_fn(*batch)
    assert schedule.step == 0
