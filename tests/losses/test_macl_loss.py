import copy
import random

import pytest
import torch
from oracles import counts_of, naive_macl
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import reducers as pml_reducers
from pytorch_metric_learning.regularizers import LpRegularizer

from pml_macl import LabelStatistics, pairs
from pml_macl.distances import LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, MultiLabelContrastiveLoss, SupConAnyLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

WEIGHTS = [
    {},
    {"power": 0.0},
    {"level": "label"},
    {"overlap_power": 1.0},
    {"power": 0.5, "level": "label", "overlap_power": 2.0, "anchor_power": 1.0},
    {"power": 2.0, "anchor_power": 0.5},
]
TEMPERATURES = [
    {},
    {"temperature": 0.5, "overlap_scale": 0.0, "rarity_scale": 0.0},
    {"temperature": 0.2, "overlap_scale": 2.0, "rarity_scale": 1.0, "min_temperature": 0.15},
]
THRESHOLDS = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0), (1.0, 0.3), (1 / 3, 0.25)]


def random_labels(num_rows, num_classes, density, generator):
    return torch.rand(num_rows, num_classes, generator=generator) < density


def random_case(seed):
    """Draw a batch, optional references, optional pairs and options from one seed."""
    choose = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    num_rows, num_classes, size = choose.randint(1, 9), choose.randint(1, 6), choose.randint(2, 5)
    density = choose.choice([0.1, 0.3, 0.6])
    labels = random_labels(num_rows, num_classes, density, generator)
    if choose.random() < 0.1:
        labels[:] = labels[0]
    case = {
        "embeddings": torch.randn(num_rows, size, dtype=torch.float64, generator=generator),
        "labels": labels,
        "ref_emb": None,
        "ref_labels": None,
        "indices_tuple": None,
        "counts_labels": None,
    }
    if choose.random() < 0.5:
        num_references = choose.randint(1, 12)
        case["ref_emb"] = torch.randn(num_references, size, dtype=torch.float64, generator=generator)
        case["ref_labels"] = random_labels(num_references, num_classes, density, generator)
    if choose.random() < 0.5:
        case["counts_labels"] = random_labels(20, num_classes, 0.4, generator)
    if choose.random() < 0.4:
        num_references = num_rows if case["ref_emb"] is None else len(case["ref_emb"])
        # Pairs of random rows: some positives share no label.
        is_positive = torch.rand(num_rows, num_references, generator=generator) < 0.3
        is_negative = ~is_positive & (torch.rand(num_rows, num_references, generator=generator) < 0.5)
        pairs = (*is_positive.nonzero(as_tuple=True), *is_negative.nonzero(as_tuple=True))
        if choose.random() < 0.5:
            a, p, n = (is_positive[:, :, None] & is_negative[:, None, :]).nonzero(as_tuple=True)
            pairs = (a, p, n)
        case["indices_tuple"] = pairs
    return case, choose.choice(WEIGHTS), choose.choice(TEMPERATURES), choose.choice(THRESHOLDS)


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("block", range(8))
def test_equals_naive_float64_loop_in_value_and_gradient(block, engine, device, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ELEMENTS", 20)  # blocks of 2 to 20 rows
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 1)
    for seed in range(40 * block, 40 * (block + 1)):
        case, weights, temperatures, (positive_threshold, negative_threshold) = random_case(seed)
        counts_labels = case.pop("counts_labels")
        statistics = None if counts_labels is None else LabelStatistics.from_labels(counts_labels)
        loss_fn = MACLLoss(
            label_statistics=statistics,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            distance=TemperatureScheduledSimilarity(**temperatures),
            reducer=FrequencyWeightedReducer(**weights),
            engine=engine,
        ).to(device)
        inputs = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in case.items()}
        inputs["embeddings"].requires_grad_()
        leaves = [inputs["embeddings"]]
        expected_inputs = dict(case, embeddings=case["embeddings"].detach().clone().requires_grad_())
        expected_leaves = [expected_inputs["embeddings"]]
        if case["ref_emb"] is not None:
            inputs["ref_emb"].requires_grad_()
            expected_inputs["ref_emb"] = case["ref_emb"].detach().clone().requires_grad_()
            leaves.append(inputs["ref_emb"])
            expected_leaves.append(expected_inputs["ref_emb"])
        loss = loss_fn(**inputs)
        expected = naive_macl(
            **expected_inputs,
            counts=None if counts_labels is None else counts_of(counts_labels),
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            weights=weights,
            temperatures=temperatures,
        )
        torch.testing.assert_close(loss.cpu(), expected, rtol=1e-10, atol=1e-12, msg=lambda m, s=seed: f"case {s}: {m}")
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        expected_gradients = torch.autograd.grad(expected, expected_leaves, allow_unused=True)
        for found, wanted, leaf in zip(gradients, expected_gradients, expected_leaves, strict=True):
            found = torch.zeros_like(leaf) if found is None else found.cpu()
            wanted = torch.zeros_like(leaf) if wanted is None else wanted
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11, msg=lambda m, s=seed: f"case {s}: {m}")


def test_the_random_cases_include_each_kind_of_input():
    cases = [random_case(seed)[0] for seed in range(320)]
    assert sum(case["ref_emb"] is not None for case in cases) > 100
    assert sum(case["indices_tuple"] is not None and len(case["indices_tuple"]) == 3 for case in cases) > 30
    assert sum(case["indices_tuple"] is not None and len(case["indices_tuple"]) == 4 for case in cases) > 30
    assert sum(len(case["labels"]) == 1 for case in cases) > 10
    assert sum(bool((~case["labels"].any(dim=1)).any()) for case in cases) > 50
    assert sum(bool((case["labels"] == case["labels"][0]).all()) for case in cases) > 10


def plain_loss(temperature=0.2, **kwargs):
    """MACL with equal weights and one temperature."""
    return MACLLoss(
        distance=TemperatureScheduledSimilarity(temperature=temperature, overlap_scale=0, rarity_scale=0),
        reducer=FrequencyWeightedReducer(power=0),
        **kwargs,
    )


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_one_hot_labels_give_pml_supcon_loss(temperature, generator):
    classes = torch.randint(0, 4, (24,), generator=generator)
    embeddings = torch.randn(24, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    loss = plain_loss(temperature)(embeddings, torch.nn.functional.one_hot(classes, 4))
    expected = pml_losses.SupConLoss(temperature)(embeddings, classes)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(x, embeddings)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_pml_supcon_loss_with_references_and_any_distance(generator):
    classes, ref_classes = (
        torch.randint(0, 3, (8,), generator=generator),
        torch.randint(0, 3, (13,), generator=generator),
    )
    embeddings, ref_emb = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (8, 13))
    one_hot, ref_one_hot = (torch.nn.functional.one_hot(c, 3) for c in (classes, ref_classes))
    for distance in (pml_distances.CosineSimilarity(), pml_distances.LpDistance(), pml_distances.SNRDistance()):
        loss_fn = MACLLoss(
            distance=TemperatureScheduledSimilarity(0.2, overlap_scale=0, rarity_scale=0, distance=distance),
            reducer=FrequencyWeightedReducer(power=0),
        )
        expected = pml_losses.SupConLoss(0.2, distance=distance)(embeddings, classes, None, ref_emb, ref_classes)
        torch.testing.assert_close(loss_fn(embeddings, one_hot, None, ref_emb, ref_one_hot), expected)


def test_a_pml_distance_becomes_the_similarity_under_the_temperature():
    loss_fn = MACLLoss(distance=pml_distances.LpDistance(p=1))
    assert isinstance(loss_fn.distance, TemperatureScheduledSimilarity)
    assert isinstance(loss_fn.distance.distance, pml_distances.LpDistance)


def test_temperature_is_short_for_the_distance(batch):
    embeddings, labels = batch
    statistics = LabelStatistics.from_labels(labels)
    short = MACLLoss(label_statistics=statistics, temperature=0.4)
    explicit = MACLLoss(label_statistics=statistics, distance=TemperatureScheduledSimilarity(0.4))
    assert torch.equal(short(embeddings, labels), explicit(embeddings, labels))
    assert not torch.equal(short(embeddings, labels), MACLLoss(label_statistics=statistics)(embeddings, labels))
    assert short.state_dict().keys() == explicit.state_dict().keys()
    assert short.distance.overlap_scale == explicit.distance.overlap_scale == 1
    assert MACLLoss(temperature=0.3, distance=None).distance.temperature.item() == 0.3


def test_without_a_temperature_defaults_and_state_are_unchanged():
    loss_fn = MACLLoss(5)
    assert loss_fn.distance.temperature.item() == 0.2
    assert list(loss_fn.state_dict()) == list(MACLLoss(5, distance=TemperatureScheduledSimilarity()).state_dict())
    names = {"label_statistics.num_samples", "label_statistics.counts", "label_statistics.cooccurrence"}
    assert set(loss_fn.state_dict()) == names


@pytest.fixture
def batch(generator):
    labels = torch.rand(12, 5, generator=generator) < 0.4
    return torch.randn(12, 8, generator=generator), labels


def test_the_temperature_divides_any_similarity(batch):
    distance = TemperatureScheduledSimilarity(0.2, distance=pml_distances.LpDistance())
    expected = MACLLoss(distance=distance)(*batch)
    torch.testing.assert_close(MACLLoss(temperature=0.2, distance=pml_distances.LpDistance())(*batch), expected)
    plain = MultiLabelContrastiveLoss(temperature=0.2)(*batch)
    torch.testing.assert_close(plain, SupConAnyLoss(temperature=0.2)(*batch))
    for loss_class in (MACLLoss, MultiLabelContrastiveLoss, SupConAnyLoss):
        with pytest.raises(TypeError, match="both temperatures would apply; leave the temperature out, or pass the"):
            loss_class(temperature=0.2, distance=distance)


PML_REDUCERS = {
    "mean": pml_reducers.MeanReducer(),
    "sum": pml_reducers.SumReducer(),
    "avg_non_zero": pml_reducers.AvgNonZeroReducer(),
    "threshold": pml_reducers.ThresholdReducer(low=0.5, high=5),
    "per_anchor": pml_reducers.PerAnchorReducer(),
    "multiple": pml_reducers.MultipleReducers({"loss": pml_reducers.SumReducer()}),
}


@pytest.mark.parametrize("name", PML_REDUCERS)
def test_pml_reducers_reduce_the_pair_losses(name, batch):
    embeddings, labels = batch
    loss = MACLLoss(reducer=PML_REDUCERS[name])(embeddings, labels)
    pairs = MACLLoss(reducer=pml_reducers.DoNothingReducer())(embeddings, labels)["loss"]
    losses, (anchors, _) = pairs["losses"], pairs["indices"]
    kept = losses[(losses > 0.5) & (losses < 5)]
    expected = {
        "mean": losses.mean(),
        "sum": losses.sum(),
        "avg_non_zero": losses[losses > 0].mean(),
        "threshold": kept.mean(),
        "per_anchor": torch.stack(
            [losses[anchors == i].mean() if (anchors == i).any() else losses.new_zeros(()) for i in range(12)]
        ).mean(),
        "multiple": losses.sum(),
    }[name]
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    "reducer",
    [
        pml_reducers.DivisorReducer(),
        pml_reducers.ClassWeightedReducer(torch.ones(5)),
        pml_reducers.MultipleReducers({"loss": pml_reducers.DivisorReducer()}),
        pml_reducers.PerAnchorReducer(reducer=pml_reducers.ClassWeightedReducer(torch.ones(5))),
    ],
)
def test_reducers_that_cannot_work_are_refused_by_name(reducer):
    with pytest.raises(ValueError, match=r"DivisorReducer|ClassWeightedReducer"):
        MACLLoss(reducer=reducer)


def test_per_anchor_reducer_is_refused_with_more_references_than_rows(batch):
    embeddings, labels = batch
    loss_fn = MACLLoss(num_classes=5, reducer=pml_reducers.PerAnchorReducer())
    with pytest.raises(ValueError, match="PerAnchorReducer cannot take more references"):
        loss_fn(embeddings[:4], labels[:4], None, embeddings, labels)
    assert loss_fn.label_statistics.num_samples == 0
    assert loss_fn(embeddings, labels, None, embeddings[:4], labels[:4]) > 0


def test_embedding_regularizer_adds_its_term(batch):
    embeddings, labels = batch
    loss = MACLLoss(embedding_regularizer=LpRegularizer(), embedding_reg_weight=0.5)(embeddings, labels)
    expected = MACLLoss()(embeddings, labels) + 0.5 * embeddings.norm(dim=1).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_without_positives_the_loss_is_a_differentiable_zero(rows):
    embeddings = torch.randn(rows, 4, requires_grad=True)
    loss = MACLLoss(num_classes=2)(embeddings, torch.eye(2, dtype=torch.bool)[:rows])
    loss.backward()
    assert loss == 0
    assert torch.equal(embeddings.grad, torch.zeros(rows, 4))


def test_mined_pairs_and_triplets_give_the_loss_of_the_batch(batch):
    embeddings, labels = batch
    expected = MACLLoss()(embeddings, labels)
    torch.testing.assert_close(MACLLoss()(embeddings, labels, LabelOverlapMiner()(embeddings, labels)), expected)
    triplets = LabelOverlapMiner(output="triplets")(embeddings, labels)
    has_both = torch.zeros(12, dtype=torch.bool)
    has_both[triplets[0]] = True
    pairs = LabelOverlapMiner()(embeddings, labels)
    kept = (*(x[has_both[pairs[0]]] for x in pairs[:2]), *(x[has_both[pairs[2]]] for x in pairs[2:]))
    torch.testing.assert_close(MACLLoss()(embeddings, labels, triplets), MACLLoss()(embeddings, labels, kept))


class TestStatistics:
    def test_given_statistics_do_not_change(self, batch):
        embeddings, labels = batch
        statistics = LabelStatistics.from_labels(torch.eye(5, dtype=torch.bool))
        loss_fn = MACLLoss(label_statistics=statistics)
        loss_fn(embeddings, labels)
        assert loss_fn.label_statistics is statistics
        assert statistics.num_samples == 5

    def test_learnt_online_before_the_batch_is_weighted(self, batch):
        embeddings, labels = batch
        loss_fn = MACLLoss(num_classes=5)
        first = loss_fn(embeddings, labels)
        torch.testing.assert_close(first, MACLLoss()(embeddings, labels))
        loss_fn(embeddings[:4], labels[:4])
        assert torch.equal(loss_fn.label_statistics.counts, labels.sum(0) + labels[:4].sum(0))

    @pytest.mark.parametrize("mode", ["eval", "no_grad"])
    def test_not_learnt_outside_training(self, batch, mode):
        loss_fn = MACLLoss(num_classes=5).train(mode != "eval")
        with torch.set_grad_enabled(mode != "no_grad"):
            loss_fn(*batch)
        assert loss_fn.label_statistics.num_samples == 0

    def test_of_the_distance_and_the_reducer_go_first_and_are_not_copied(self, batch):
        embeddings, labels = batch
        own, other = (LabelStatistics.from_labels(torch.rand(30, 5) < 0.4) for _ in range(2))
        loss_fn = MACLLoss(
            label_statistics=other,
            distance=TemperatureScheduledSimilarity(label_statistics=own),
            reducer=FrequencyWeightedReducer(own),
            embedding_regularizer=LpRegularizer(),
        )
        assert all(m.label_statistics is own for m in loss_fn.modules() if isinstance(m, FrequencyWeightedReducer))
        expected = MACLLoss(label_statistics=own, embedding_regularizer=LpRegularizer())(embeddings, labels)
        torch.testing.assert_close(loss_fn(embeddings, labels), expected)

    def test_of_different_sizes_are_refused(self):
        with pytest.raises(
            ValueError, match="must agree, got num_classes=4 and label_statistics of \\[3\\] classes; use"
        ):
            MACLLoss(num_classes=4, label_statistics=LabelStatistics(3))
        with pytest.raises(ValueError, match="must agree"):
            MACLLoss(num_classes=4, reducer=FrequencyWeightedReducer(LabelStatistics(3)))


def test_state_dict_restores_schedule_and_statistics(batch):
    def make():
        schedule = LinearTemperature(0.2, 0.1, num_steps=10)
        return MACLLoss(num_classes=5, distance=TemperatureScheduledSimilarity(schedule=schedule))

    trained = make()
    for _ in range(3):
        trained(*batch)
    restored = make()
    restored.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert restored.distance.schedule.step == 3
    assert restored.label_statistics.num_samples == 36
    assert torch.equal(restored(*batch), trained(*batch))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype, device, batch):
    if device.type == "cpu" and dtype is torch.float16 and torch.__version__ < "2.4":
        pytest.skip("float16 autocast on the CPU came with torch 2.4")
    embeddings, labels = (x.to(device) for x in batch)
    weight = torch.eye(8, device=device, requires_grad=True)
    with torch.autocast(device.type, dtype=dtype):
        loss = MACLLoss(num_classes=5).to(device)(embeddings @ weight, labels)
    loss.backward()
    assert loss.dtype is torch.float32
    assert weight.grad.isfinite().all()
    torch.testing.assert_close(loss.cpu(), MACLLoss()(*batch), rtol=2e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings(dtype, device, batch):
    embeddings, labels = batch[0].to(device, dtype).requires_grad_(), batch[1].to(device)
    loss = MACLLoss()(embeddings, labels)
    loss.backward()
    assert embeddings.grad.isfinite().all()
    torch.testing.assert_close(loss.cpu().float(), MACLLoss()(*batch), rtol=5e-2, atol=0)


def test_label_types_of_pml_give_the_same_loss(batch):
    embeddings, labels = batch
    expected = MACLLoss()(embeddings, labels)
    for dtype in (torch.int64, torch.uint8, torch.float32, torch.float64):
        assert torch.equal(MACLLoss()(embeddings, labels.to(dtype)), expected)


def test_collected_stats(batch):
    embeddings, labels = batch
    similarity = TemperatureScheduledSimilarity(collect_stats=True)
    loss_fn = MACLLoss(distance=similarity, collect_stats=True)
    loss_fn(embeddings, labels)
    a1, p, a2, _ = LabelOverlapMiner()(embeddings, labels)
    assert (loss_fn.num_pos_pairs, loss_fn.num_neg_pairs) == (len(a1), len(a2))
    assert loss_fn.anchors_without_positives == 12 - len(a1.unique())
    both, either = (labels[a1] & labels[p]).sum(1), (labels[a1] | labels[p]).sum(1)
    assert loss_fn.mean_positive_overlap == pytest.approx((both / either).mean().item())
    temperatures = similarity.temperatures(labels)
    assert similarity.max_pair_temperature == pytest.approx(temperatures.max().item())
    assert similarity.mean_pair_temperature == pytest.approx(temperatures.mean().item())
    assert similarity.min_pair_temperature == pytest.approx(temperatures.min().item())


def bad_calls():
    emb, labels = torch.randn(4, 3), torch.ones(4, 2, dtype=torch.bool)
    index = torch.tensor([0, 1])
    return {
        "embeddings of one dimension": (ValueError, "embeddings must be", (emb[0], labels)),
        "integer embeddings": (ValueError, "embeddings must be", (emb.long(), labels)),
        "embeddings as list": (TypeError, "embeddings must be", (emb.tolist(), labels)),
        "class indices": (ValueError, "one_hot", (emb, torch.arange(4))),
        "labels as list": (TypeError, "labels must be", (emb, labels.tolist())),
        "missing labels": (TypeError, "labels must be", (emb, None)),
        "too few labels": (ValueError, "one row per embedding \\(4\\), got 3", (emb, labels[:3])),
        "other number of classes": (ValueError, "one column per class \\(2\\), got 1", (emb, labels[:, :1])),
        "counts": (ValueError, "only 0 and 1, got 2", (emb, labels.long() * 2)),
        "negative": (ValueError, "only 0 and 1, got -1", (emb, -labels.long())),
        "scores": (ValueError, "only 0 and 1, got 0.5", (emb, labels.float() / 2)),
        "not a number": (ValueError, "only 0 and 1, got nan", (emb, labels / torch.zeros(()) * 0)),
        "references without labels": (ValueError, "ref_emb was given without ref_labels", (emb, labels, None, emb)),
        "ref_labels alone": (ValueError, "ref_labels was given without", (emb, labels, None, None, labels)),
        "embedding size": (ValueError, "embedding size 3, got 2", (emb, labels, None, emb[:, :2], labels)),
        "references' classes": (ValueError, "one column per class", (emb, labels, None, emb, labels[:, :1])),
        "five indices": (ValueError, "got 5 tensors", (emb, labels, (index,) * 5)),
        "indices as list": (TypeError, "indices_tuple must be", (emb, labels, [[0], [1], [0], [1]])),
        "float indices": (TypeError, "integers", (emb, labels, (index.float(),) * 4)),
        "unequal indices": (ValueError, "equal length", (emb, labels, (index, index[:1], index, index))),
        "index too large": (ValueError, "from 0 to 3, got 0 to 4", (emb, labels, (index, index * 4, index, index))),
        "index below 0": (ValueError, "from 0 to 3, got -1", (emb, labels, (index, index - 1, index, index))),
        "pair of both kinds": (
            ValueError,
            "as a positive or as a negative, not as both",
            (emb, labels, (index, 1 - index) * 2),
        ),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_bad_calls_are_refused_and_change_nothing(name):
    error, message, args = bad_calls()[name]
    schedule = LinearTemperature(0.2, 0.1, num_steps=10)
    loss_fn = MACLLoss(num_classes=2, distance=TemperatureScheduledSimilarity(schedule=schedule))
    with pytest.raises(error, match=message):
        loss_fn(*args)
    assert loss_fn.label_statistics.num_samples == 0
    assert schedule.step == 0


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"positive_threshold": 1.5}, ValueError, "positive_threshold must be in \\[0, 1\\], got 1.5"),
        ({"negative_threshold": -0.1}, ValueError, "negative_threshold"),
        ({"positive_threshold": "0.5"}, TypeError, "positive_threshold must be a number, got str"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"label_statistics": torch.ones(3)}, TypeError, "label_statistics must be a LabelStatistics"),
        ({"reducer": torch.nn.Identity()}, TypeError, "reducer must be"),
        ({"distance": torch.nn.Identity()}, TypeError, "distance must be"),
        ({"temperature": 0}, ValueError, "temperature must be above 0 and finite, got 0"),
        ({"temperature": torch.nn.Parameter(torch.ones(()))}, TypeError, "got a Parameter; to train it"),
    ],
)
def test_bad_constructor_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        MACLLoss(**kwargs)


def test_an_empty_batch_with_a_regularizer_is_a_differentiable_zero():
    embeddings = torch.zeros(0, 4, requires_grad=True)
    loss = MACLLoss(embedding_regularizer=LpRegularizer())(embeddings, torch.zeros(0, 3))
    loss.backward()
    assert loss == 0


class TestEngine:
    @pytest.mark.parametrize("with_references", [False, True])
    @pytest.mark.parametrize("chosen", [False, True])
    @pytest.mark.parametrize("thresholds", THRESHOLDS)
    def test_fused_equals_reference_in_float32(self, thresholds, chosen, with_references, generator, device):
        embeddings, ref_emb = (torch.randn(n, 16, generator=generator).to(device) for n in (700, 900))
        labels, ref_labels = ((torch.rand(n, 30, generator=generator) < 0.1).to(device) for n in (700, 900))
        references = (ref_emb, ref_labels) if with_references else (None, None)
        miner = LabelOverlapMiner(0.0, 0.0, "random", "hard", max_positives_per_anchor=7, max_negatives_per_anchor=9)
        indices = miner(embeddings, labels, *references) if chosen else None
        found = []
        for engine in ("fused", "reference"):
            leaves = [embeddings.clone().requires_grad_()] + [ref_emb.clone().requires_grad_()] * with_references
            loss_fn = MACLLoss(None, None, *thresholds, engine=engine)
            loss = loss_fn(leaves[0], labels, indices, *(leaves[1:] or [None]), references[1])
            found.append((loss, *torch.autograd.grad(loss, leaves)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())

    def test_equal_label_sets_of_any_size_are_exact_matches(self):
        labels = torch.tril(torch.ones(60, 60)).repeat(
            2, 1
        )  # two sets of each size n; in floating point, n * (1 / n) can differ from 1
        embeddings = torch.randn(120, 4)
        losses = [MACLLoss(positive_threshold=1, engine=e)(embeddings, labels) for e in ("fused", "reference")]
        torch.testing.assert_close(*losses)

    @pytest.mark.parametrize("engine", ["fused", "reference"])
    def test_gradcheck(self, engine, generator):
        labels, ref_labels = (torch.rand(n, 4, generator=generator) < 0.5 for n in (4, 5))
        embeddings, ref_emb = (
            torch.randn(n, 3, dtype=torch.float64, generator=generator, requires_grad=True) for n in (4, 5)
        )
        loss_fn = MACLLoss(label_statistics=LabelStatistics.from_labels(ref_labels), engine=engine)
        assert torch.autograd.gradcheck(lambda x, y: loss_fn(x, labels, None, y, ref_labels), (embeddings, ref_emb))

    def test_no_matrix_of_pairs_is_kept_for_backward(self):
        embeddings = torch.randn(300, 4, requires_grad=True)
        sizes = []

        def record(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            MACLLoss(engine="fused")(embeddings, torch.rand(300, 5) < 0.4)
        assert 0 < max(sizes) <= 300 * 4

    def test_second_derivatives_are_refused(self):
        embeddings = torch.randn(4, 3, requires_grad=True)
        loss = MACLLoss(engine="fused")(embeddings, torch.ones(4, 2))
        with pytest.raises(RuntimeError, match='use engine="reference"'):
            torch.autograd.grad(loss, embeddings, create_graph=True)
        labels = torch.ones(4, 2, dtype=torch.bool)
        (gradient,) = torch.autograd.grad(
            MACLLoss(engine="reference")(embeddings, labels), embeddings, create_graph=True
        )
        gradient.square().sum().backward()
        assert embeddings.grad.isfinite().all()

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"reducer": pml_reducers.MeanReducer()}, "the reducer MeanReducer"),
            ({"distance": pml_distances.LpDistance()}, "the distance LpDistance"),
            ({"distance": pml_distances.CosineSimilarity(power=2)}, "a power of the similarity"),
        ],
    )
    def test_unsupported_parts_use_the_reference_engine(self, batch, options, reason):
        with pytest.raises(ValueError, match=f'engine="fused" is not possible with {reason}'):
            MACLLoss(**options, engine="fused")(*batch)
        expected = MACLLoss(**options, engine="reference")(*batch)
        loss_fn = MACLLoss(**options)
        assert loss_fn.fallback == reason
        torch.testing.assert_close(loss_fn(*batch), expected)

    def test_both_engines_add_the_regularizer(self, batch):
        options = {"embedding_regularizer": LpRegularizer(), "embedding_reg_weight": 0.3}
        losses = [MACLLoss(**options, engine=engine)(*batch) for engine in ("fused", "reference")]
        torch.testing.assert_close(*losses)

    def test_multiple_reducers_without_one_for_the_pairs_take_their_default(self, batch):
        for default in (None, FrequencyWeightedReducer()):
            reducer = pml_reducers.MultipleReducers({}, default_reducer=default)
            expected = MACLLoss(reducer=default or pml_reducers.MeanReducer(), engine="reference")(*batch)
            torch.testing.assert_close(MACLLoss(reducer=reducer)(*batch), expected)

    def test_schedule_and_statistics_advance_alike(self, batch):
        for engine in ("fused", "reference"):
            schedule = LinearTemperature(0.2, 0.1, num_steps=10)
            loss_fn = MACLLoss(5, distance=TemperatureScheduledSimilarity(schedule=schedule), engine=engine)
            loss_fn(*batch)
            loss_fn.eval()(*batch)
            assert (schedule.step.item(), loss_fn.label_statistics.num_samples.item()) == (1, 12)

    def test_unknown_engine(self):
        with pytest.raises(ValueError, match="engine must be one of 'auto', 'fused', 'reference', got 'fast'"):
            MACLLoss(engine="fast")


def test_a_zero_row_has_a_gradient_if_the_distance_does_not_normalise():
    embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss_fn = MACLLoss(distance=pml_distances.LpDistance(normalize_embeddings=False))
    loss_fn(embeddings, torch.tensor([[1, 0], [1, 0], [0, 1]])).backward()
    assert embeddings.grad[0].any()
