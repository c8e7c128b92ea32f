"""What parts with a relation accept, store, reject and leave unchanged."""

import copy

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.reducers import MeanReducer
from pytorch_metric_learning.regularizers import LpRegularizer
from pytorch_metric_learning.trainers import MetricLossOnly
from relation_oracles import SCALE, closeness, graded_macl, within_100_m

from pml_macl import LabelSets, LabelStatistics, Pairs
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.functional import weighted_jaccard_similarity
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MulSupConLoss,
    MultiLabelCrossBatchMemory,
    MultiLabelLossWrapper,
    SupConAnyLoss,
)
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer


@pytest.fixture
def batch(generator):
    """Embeddings, and places within a square of 300 m."""
    return (
        torch.randn(14, 6, generator=generator, dtype=torch.float64),
        torch.rand(14, 2, generator=generator, dtype=torch.float64) * 3 * SCALE,
    )


def test_memory_with_a_miner_and_given_indices(batch):
    embeddings, places = batch
    wrapper = MultiLabelLossWrapper(pml_losses.ContrastiveLoss(), relation=within_100_m)
    miner = LabelOverlapMiner(relation=within_100_m)
    plain, mined = (MultiLabelCrossBatchMemory(wrapper, 6, memory_size=28, miner=x) for x in (None, miner))
    for rows in (slice(0, 7), slice(7, 14)):
        expected = plain(embeddings[rows], places[rows])
        assert torch.equal(mined(embeddings[rows], places[rows]), expected)
    pairs = miner(embeddings, places)
    assert torch.isfinite(plain(embeddings, places, pairs))


def test_memory_keeps_its_labels_in_the_state_dict(batch):
    embeddings, places = batch
    first, second = (MultiLabelCrossBatchMemory(graded_macl(), 6, memory_size=20) for _ in range(2))
    first(embeddings, places)
    second.load_state_dict(first.state_dict())
    assert second.label_memory.dtype is torch.float64
    assert torch.equal(first.label_memory, second.label_memory)
    assert torch.equal(first(embeddings, places), second(embeddings, places))
    second.reset_queue()
    second.add_to_memory(embeddings.float(), places.float()[:, :1].repeat(1, 3))
    assert second.label_memory.shape == (20, 3)
    with pytest.raises(ValueError, match=r"dtype and row shape of those in the queue, torch.float32 and \(3,\), got"):
        second(embeddings, places)
    assert second.queue_idx == 14


def test_a_relation_that_fails_changes_no_state(batch, generator):
    embeddings = batch[0]
    labels = torch.rand(14, 5, generator=generator) < 0.4
    loss_fn = MACLLoss(num_classes=5, relation=lambda x, y: x @ y.T)
    late = torch.zeros(14, 14)
    late[13] = 2
    fails_late = MACLLoss(num_classes=5, relation=lambda x, y: late[: len(x)])
    memory = MultiLabelCrossBatchMemory(MACLLoss(relation=lambda x, y: torch.zeros(1)), 6, memory_size=20)
    for part, given in ((loss_fn, labels.long()), (fails_late, labels), (memory, labels)):
        before = copy.deepcopy(part.state_dict())
        with pytest.raises((TypeError, ValueError), match="relation must return"):
            part(embeddings, given)
        assert all(torch.equal(before[name], value) for name, value in part.state_dict().items())


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ([[True]], TypeError, "torch.Tensor, got list"),
        (torch.ones(14, 14).long(), TypeError, "booleans, or floats in .0, 1., got torch.int64; compare"),
        (torch.ones(14, 13), ValueError, r"shape \(14, 14\), got \(14, 13\); compare"),
        (torch.ones(14, 14, device="meta"), ValueError, "device of labels .cpu., got meta"),
        (torch.full((14, 14), 1.5), ValueError, "floats in .0, 1.; clamp"),
        (torch.full((14, 14), -0.1), ValueError, "floats in .0, 1.; clamp"),
        (torch.full((14, 14), torch.nan), ValueError, "fill NaN"),
    ],
)
def test_what_a_relation_returns_is_checked(returned, error, message, batch):
    def relation(labels, ref_labels):
        return returned

    options = {"relation": relation}
    for part in (
        SupConAnyLoss(**options),
        SupConAnyLoss(engine="reference", **options),
        MultiLabelLossWrapper(pml_losses.NTXentLoss(), **options),
        MultiLabelMinerWrapper(pml_miners.BatchHardMiner(), **options),
        LabelOverlapMiner(**options),
        MultiLabelCrossBatchMemory(SupConAnyLoss(**options), 6, memory_size=14),
    ):
        with pytest.raises(error, match=message):
            part(*batch)


def test_arguments_are_checked(batch):
    embeddings, places = batch
    for make in (
        lambda relation: MACLLoss(relation=relation),
        lambda relation: MultiLabelLossWrapper(pml_losses.NTXentLoss(), relation=relation),
        lambda relation: MultiLabelMinerWrapper(pml_miners.BatchHardMiner(), relation=relation),
        lambda relation: LabelOverlapMiner(relation=relation),
        lambda relation: LabelSets(places, relation=relation),
    ):
        with pytest.raises(TypeError, match="relation must be callable or None, got 3"):
            make(3)
    with pytest.raises(ValueError, match="num_classes must be given, got None; pass the number of label columns, or"):
        MultiLabelCrossBatchMemory(MACLLoss(), 6)
    for part in (graded_macl(), LabelOverlapMiner(relation=closeness)):
        with pytest.raises(ValueError, match=r"labels must have one row per embedding \(14\), got 13 rows"):
            part(embeddings, places[:13])
        with pytest.raises(TypeError, match=r"labels must be a torch\.Tensor, got list; convert"):
            part(embeddings, places.tolist())
        with pytest.raises(ValueError, match="labels must be a dense tensor"):
            part(embeddings, places.to_sparse())
        references = {"ref_emb": embeddings, "ref_labels": places[:, :1]}
        with pytest.raises(ValueError, match=r"ref_labels must have rows of shape \(2,\), got \(1,\)"):
            part(embeddings, places, **references)


def test_parts_that_need_label_sets_say_so(batch):
    embeddings, places = batch
    for loss_fn in (
        MACLLoss(relation=closeness),
        MulSupConLoss(relation=closeness),
        MACLLoss(relation=closeness, reducer=FrequencyWeightedReducer(power=0)),
        MultiLabelLossWrapper(pml_losses.NTXentLoss(), reducer=FrequencyWeightedReducer(), relation=closeness),
    ):
        with pytest.raises(ValueError, match=r"only 0 and 1, got .*need multi-hot ones; to use neither, set distance="):
            loss_fn(embeddings, places)
    scores = places[:, 0]
    one_score = MultiLabelLossWrapper(
        pml_losses.NTXentLoss(), reducer=FrequencyWeightedReducer(), relation=lambda x, y: (x[:, None] - y).abs() < 50
    )
    with pytest.raises(ValueError, match="labels must be 2-D multi-hot"):  # scores are no class indices
        one_score(embeddings, scores)


@pytest.mark.parametrize("reducer", [FrequencyWeightedReducer(power=0), MeanReducer()])
def test_regularizer_and_other_parts_work_with_labels_that_are_no_sets(reducer, batch):
    embeddings, places = batch
    for base in (None, LpDistance()):
        loss_fn = MACLLoss(
            relation=closeness,
            distance=TemperatureScheduledSimilarity(rarity_scale=0, distance=base),
            reducer=reducer,
            embedding_regularizer=LpRegularizer(),
            collect_stats=True,
        )
        assert torch.isfinite(loss_fn(embeddings, places))
        assert 0 < loss_fn.mean_positive_overlap < 1
    wrapped = pml_losses.NTXentLoss(embedding_regularizer=LpRegularizer(), reducer=MeanReducer())
    assert torch.isfinite(MultiLabelLossWrapper(wrapped, reducer=reducer, relation=closeness)(embeddings, places))


def test_a_value_at_the_threshold_is_positive():
    values = torch.tensor([[0.0, 0.25, 0.5]])
    for threshold, expected in ((0.0, [False, True, True]), (0.25, [False, True, True]), (0.5, [False, False, True])):
        options = {"relation": lambda x, y: values}
        sets, ref_sets = LabelSets.with_references(torch.zeros(1, 2), torch.zeros(3, 2), threshold, **options)
        assert (sets[:, None] == ref_sets).tolist() == [expected]
        block = Pairs(torch.zeros(1, 2), torch.zeros(3, 2), positive_threshold=threshold, **options)[:]
        assert block.positives.tolist() == [expected]


def test_empty_batches_do_not_call_the_relation():
    def fails(labels, ref_labels):
        raise AssertionError

    embeddings, places = torch.zeros(0, 6, requires_grad=True), torch.zeros(0, 2)
    for part in (
        SupConAnyLoss(relation=fails),
        SupConAnyLoss(relation=fails, engine="reference"),
        MultiLabelLossWrapper(pml_losses.NTXentLoss(), relation=fails),
        MultiLabelCrossBatchMemory(SupConAnyLoss(relation=fails), 6, memory_size=14),
    ):
        part(embeddings, places).backward()
    for miner in (
        LabelOverlapMiner(relation=fails),
        MultiLabelMinerWrapper(pml_miners.BatchHardMiner(), relation=fails),
    ):
        assert all(len(index) == 0 for index in miner(embeddings, places))


def test_matrices_of_the_relation_are_not_changed(batch):
    """A relation may look its values up in a matrix of its own."""
    embeddings, places = batch
    matrix = closeness(places, places)
    before = matrix.clone()
    distance = TemperatureScheduledSimilarity(rarity_scale=0)
    loss_fn = MACLLoss(
        relation=lambda x, y: matrix, distance=distance, reducer=FrequencyWeightedReducer(power=0, overlap_power=1)
    )
    first = loss_fn(embeddings, places)
    assert torch.equal(loss_fn(embeddings, places), first)
    assert torch.equal(matrix, before)


class LearnedCloseness(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(SCALE))
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, places, ref_places):
        return (1 - self.weight * torch.cdist(places, ref_places) / self.scale).clamp(min=0)


def test_a_module_as_a_relation_is_saved_and_gets_no_gradient(batch):
    embeddings, places = batch
    for engine in ("fused", "reference"):
        loss_fn = JaccardSupConLoss(relation=LearnedCloseness(), engine=engine)
        assert "relation.scale" in loss_fn.state_dict()
        loss_fn(embeddings.clone().requires_grad_(), places).backward()
        assert loss_fn.relation.weight.grad is None
        plain = JaccardSupConLoss(relation=closeness, engine=engine)
        torch.testing.assert_close(loss_fn(embeddings, places), plain(embeddings, places))
    assert "relation.scale" in LabelOverlapMiner(relation=LearnedCloseness()).state_dict()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_leave_the_relation_in_its_dtype(dtype, batch):
    embeddings, places = batch[0].to(dtype), batch[1].float()
    dtypes = []

    def relation(labels, ref_labels):
        products = labels @ ref_labels.T  # autocast would run this in half precision
        dtypes.append(products.dtype)
        return closeness(labels, ref_labels)

    for engine in ("fused", "reference"):
        loss_fn = JaccardSupConLoss(relation=relation, engine=engine)
        expected = loss_fn(embeddings.float(), places)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss_fn(embeddings, places)
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert set(dtypes) == {torch.float32}


def test_the_relation_sees_one_block_of_anchors_at_a_time(generator, monkeypatch):
    monkeypatch.setattr("pml_macl.pairs.BLOCK_ROWS", 4)
    monkeypatch.setattr("pml_macl.pairs.BLOCK_ELEMENTS", 1)
    embeddings, places = torch.randn(14, 6, generator=generator), torch.rand(14, 2, generator=generator) * 300
    sizes = []

    def relation(labels, ref_labels):
        sizes.append(len(labels))
        return closeness(labels, ref_labels)

    found = JaccardSupConLoss(relation=relation)(embeddings, places)
    assert sizes == [4, 4, 4, 2]
    torch.testing.assert_close(found, JaccardSupConLoss(relation=closeness, engine="reference")(embeddings, places))


def test_frequency_weighted_jaccard_similarity_in_macl(generator):
    embeddings, labels = torch.randn(20, 6, generator=generator), torch.rand(20, 5, generator=generator) < 0.4
    statistics = LabelStatistics.from_labels(labels)
    weights = statistics.inverse_frequency(torch.float32)
    loss_fn = MACLLoss(label_statistics=statistics, relation=lambda x, y: weighted_jaccard_similarity(x, y, weights))
    assert torch.isfinite(loss_fn(embeddings, labels))
    assert not torch.equal(loss_fn(embeddings, labels), MACLLoss(label_statistics=statistics)(embeddings, labels))
    same = MACLLoss(
        label_statistics=statistics, relation=lambda x, y: weighted_jaccard_similarity(x, y, 0 * weights + 1)
    )
    torch.testing.assert_close(
        same(embeddings, labels.long()), MACLLoss(label_statistics=statistics)(embeddings, labels)
    )


def test_pml_trainer_trains_with_places(generator):
    """PML's trainers keep (N, 2) labels, which they make int64."""
    places = (torch.rand(32, 2, generator=generator) * 300).round()
    data = [(place / 300, place) for place in places]
    model = torch.nn.Linear(2, 8)
    loss_fn = MultiLabelLossWrapper(
        pml_losses.NTXentLoss(), relation=lambda x, y: torch.cdist(x.double(), y.double()) <= SCALE
    )
    before = loss_fn(model(places / 300), places)
    MetricLossOnly(
        models={"trunk": model},
        optimizers={"trunk_optimizer": torch.optim.Adam(model.parameters(), 0.01)},
        batch_size=16,
        loss_funcs={"metric_loss": loss_fn},
        dataset=data,
        mining_funcs={"tuple_miner": LabelOverlapMiner(relation=loss_fn.relation)},
        data_device="cpu",
        iterations_per_epoch=4,
        dataloader_num_workers=0,
        label_hierarchy_level="all",
    ).train(num_epochs=3)
    assert loss_fn(model(places / 300), places) < before
