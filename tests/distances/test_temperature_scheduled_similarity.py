import pytest
import torch
from oracles import counts_of, naive_rarity, naive_temperature
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from pml_macl import LabelStatistics
from pml_macl.distances import ConstantTemperature, LinearTemperature, TemperatureScheduledSimilarity

OPTIONS = [
    {},
    {"temperature": 0.5, "overlap_scale": 0.0, "rarity_scale": 1.0, "min_temperature": 0.2},
    {"overlap_scale": 3.0, "rarity_scale": 0.0},
]


@pytest.fixture
def batch(generator):
    labels, ref_labels = (torch.rand(n, 5, generator=generator) < 0.4 for n in (6, 9))
    embeddings, ref_emb = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (6, 9))
    return embeddings, ref_emb, labels, ref_labels


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("own_statistics", [True, False])
def test_temperatures_equal_a_loop(batch, options, own_statistics, device):
    _, _, labels, ref_labels = batch
    statistics = LabelStatistics.from_labels(torch.rand(30, 5) < 0.3) if own_statistics else None
    similarity = TemperatureScheduledSimilarity(**options, label_statistics=statistics).to(device)
    counts = statistics.cooccurrence.tolist() if own_statistics else counts_of(labels)
    rows, ref_rows = ([set(r.nonzero().flatten().tolist()) for r in x] for x in (labels, ref_labels))
    rarity = naive_rarity(counts)
    expected = [[naive_temperature(a, b, rarity, **options) for b in ref_rows] for a in rows]
    found = similarity.temperatures(labels.to(device), ref_labels.to(device))
    torch.testing.assert_close(found.cpu(), torch.tensor(expected))


def test_logits_are_similarities_over_temperatures(batch):
    embeddings, ref_emb, labels, ref_labels = batch
    similarity = TemperatureScheduledSimilarity(distance=pml_distances.LpDistance(power=2))
    expected = -pml_distances.LpDistance(power=2)(embeddings, ref_emb)
    torch.testing.assert_close(similarity(embeddings, ref_emb), expected / 0.2)
    logits = similarity(embeddings, ref_emb, labels, ref_labels)
    torch.testing.assert_close(logits, expected / similarity.temperatures(labels, ref_labels), check_dtype=False)
    torch.testing.assert_close(
        similarity(embeddings, labels=labels), similarity(embeddings, embeddings, labels, labels)
    )


def test_without_labels_it_is_the_similarity_over_the_temperature_in_pml_losses(batch):
    embeddings, classes = batch[0], torch.tensor([0, 0, 1, 1, 2, 2])
    similarity = TemperatureScheduledSimilarity(temperature=0.2)
    loss = pml_losses.SupConLoss(temperature=1, distance=similarity)(embeddings, classes)
    torch.testing.assert_close(loss, pml_losses.SupConLoss(temperature=0.2)(embeddings, classes))
    pairwise = similarity.pairwise_distance(embeddings[:3], embeddings[3:])
    torch.testing.assert_close(pairwise, (embeddings[:3] * embeddings[3:]).sum(1) / 0.2)
    torch.testing.assert_close(similarity.compute_mat(embeddings, embeddings), embeddings @ embeddings.T / 0.2)
    assert similarity.is_inverted


def test_schedule_advances_on_differentiable_calls_in_training_mode_only(batch):
    embeddings = batch[0].requires_grad_()
    similarity = TemperatureScheduledSimilarity(schedule=LinearTemperature(0.2, 0.1, num_steps=4))
    step = similarity.schedule.step
    values = [(embeddings.norm() / embeddings.norm() / similarity(embeddings)[0, 0]).item() for _ in range(2)]
    assert values == pytest.approx([0.2, 0.175])
    assert step == 2
    with torch.no_grad():
        similarity(embeddings)
    pml_miners.MultiSimilarityMiner(distance=similarity)(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]))
    similarity.eval()(embeddings)
    similarity.temperatures(batch[2])
    assert step == 2
    assert similarity.temperature.item() == pytest.approx(0.15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types(batch, dtype):
    embeddings, _, labels, _ = batch
    similarity = TemperatureScheduledSimilarity()
    logits = similarity(embeddings.to(dtype), labels=labels)
    assert logits.dtype is torch.float32
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 2e-1, torch.float32: 1e-5}[dtype]
    expected = similarity(embeddings, labels=labels)
    torch.testing.assert_close(logits.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"overlap_scale": -0.5},
            ValueError,
            "overlap_scale must be >= 0, got -0.5: if the temperature falls with the Jaccard",
        ),
        ({"overlap_scale": float("nan")}, ValueError, "overlap_scale must be"),
        ({"rarity_scale": 1.1}, ValueError, "rarity_scale must be in \\[0, 1\\], got 1.1"),
        ({"temperature": 0.0}, ValueError, "temperature must be above 0"),
        ({"power": 2, "p": 1}, TypeError, "p, power belongs to the similarity inside; pass it there"),
        ({"temperature": "0.1"}, TypeError, "temperature must be a number, got str"),
        ({"min_temperature": -1}, ValueError, "min_temperature must be"),
        ({"schedule": 0.1}, TypeError, "schedule must be a temperature schedule, got float"),
        ({"distance": torch.nn.Identity()}, TypeError, "distance must be a pytorch_metric_learning distance"),
        (
            {"distance": TemperatureScheduledSimilarity()},
            TypeError,
            "both temperatures would apply; leave the temperature out, or pass the distance inside",
        ),
        ({"label_statistics": torch.ones(3)}, TypeError, "label_statistics must be a LabelStatistics"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        TemperatureScheduledSimilarity(**kwargs)


def test_bad_calls_do_not_advance(batch):
    embeddings, ref_emb, labels, ref_labels = batch
    similarity = TemperatureScheduledSimilarity(
        schedule=LinearTemperature(0.2, 0.1, 4), label_statistics=LabelStatistics(3)
    )
    for args in [(embeddings, ref_emb, labels), (embeddings, None, None, ref_labels), (embeddings, None, labels[:2])]:
        with pytest.raises(ValueError, match="labels"):
            similarity(*args)
    with pytest.raises(ValueError, match="one column per class \\(3\\), got 5"):
        similarity(embeddings, None, labels)
    assert similarity.schedule.step == 0


def test_a_constant_schedule_replaces_the_temperature():
    similarity = TemperatureScheduledSimilarity(temperature=0.1, schedule=ConstantTemperature(0.7))
    assert similarity.temperature.item() == 0.7
