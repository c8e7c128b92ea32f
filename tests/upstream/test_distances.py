"""The checks of PML's test suite for distances, run on TemperatureScheduledSimilarity."""

import pytest
import torch
from parts import DTYPES, NUM_CLASSES, TOLERANCES, make_batch, statistics
from pytorch_metric_learning import distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from pml_macl.distances import CosineTemperature, TemperatureScheduledSimilarity

INNER = {
    "cosine": distances.CosineSimilarity,
    "dot": lambda: distances.DotProductSimilarity(normalize_embeddings=False),
    "Lp": distances.LpDistance,
    "L1": lambda: distances.LpDistance(normalize_embeddings=False, p=1),
    "SNR": distances.SNRDistance,
}
every_distance = pytest.mark.parametrize("name", INNER)


def make(name, **kwargs):
    return TemperatureScheduledSimilarity(distance=INNER[name](), label_statistics=statistics(), **kwargs)


@every_distance
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(name, dtype):
    embeddings, labels = make_batch(dtype=dtype)
    references, ref_labels = make_batch(9, seed=1, dtype=dtype)
    similarity = make(name)
    logits = similarity(embeddings, references, labels, ref_labels)
    inner = INNER[name]()
    expected = inner(make_batch()[0], make_batch(9, seed=1)[0]) * (1 if inner.is_inverted else -1)
    expected = expected / similarity.temperatures(labels, ref_labels).double()
    tolerance = max(TOLERANCES[dtype], 1e-6)  # temperatures() itself is float32
    torch.testing.assert_close(logits.double(), expected, rtol=tolerance, atol=20 * tolerance)
    logits.sum().backward()
    assert embeddings.grad.isfinite().all()


@every_distance
def test_pairs_are_entries_of_the_matrix(name):
    similarity = make(name)
    embeddings, _ = make_batch(6)
    references, _ = make_batch(6, seed=1)
    matrix = similarity(embeddings, references)
    normalised = [similarity.maybe_normalize(x) for x in (embeddings, references)]
    torch.testing.assert_close(similarity.pairwise_distance(*normalised), matrix.diagonal(), rtol=1e-6, atol=1e-6)


@every_distance
def test_larger_is_closer(name):
    similarity = make(name)
    assert similarity.is_inverted
    embeddings, _ = make_batch(6)
    assert (similarity(embeddings).argmax(dim=1) == torch.arange(6)).all() or name == "dot"
    assert similarity.margin(torch.tensor(2.0), torch.tensor(5.0)) == 3
    assert similarity.smallest_dist(torch.tensor([1.0, 4.0])) == 4


@every_distance
@pytest.mark.parametrize(
    "loss",
    [pml_losses.ContrastiveLoss, pml_losses.NTXentLoss, pml_losses.SupConLoss, pml_losses.TripletMarginLoss],
)
def test_in_losses_of_pml_with_class_labels(name, loss):
    embeddings, _ = make_batch()
    classes = torch.arange(len(embeddings)) % NUM_CLASSES
    value = loss(distance=make(name, temperature=1.0))(embeddings, classes)
    value.backward()
    assert value > 0
    assert embeddings.grad.isfinite().all()


@every_distance
@pytest.mark.parametrize(
    "miner", [pml_miners.BatchHardMiner, pml_miners.PairMarginMiner, pml_miners.TripletMarginMiner]
)
def test_in_miners_of_pml_with_class_labels(name, miner):
    embeddings, _ = make_batch()
    classes = torch.arange(len(embeddings)) % NUM_CLASSES
    indices = miner(distance=make(name))(embeddings, classes)
    assert len(indices) in (3, 4)
    assert len(indices[0]) > 0


def test_empty_batches():
    similarity = TemperatureScheduledSimilarity()
    embeddings, labels = make_batch()
    none, no_labels = make_batch(0)
    assert similarity(none, embeddings, no_labels, labels).shape == (0, 12)
    assert similarity(embeddings, none, labels, no_labels).shape == (12, 0)
    assert similarity(none).shape == (0, 0)


def test_autocast_keeps_the_temperatures(device):
    embeddings, labels = make_batch(dtype=torch.float32, device=device)
    similarity = TemperatureScheduledSimilarity(label_statistics=statistics()).to(device)
    expected = similarity(embeddings, labels=labels)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        temperatures = similarity.temperatures(labels)
        logits = similarity(embeddings, labels=labels)
    assert torch.equal(temperatures, similarity.temperatures(labels))
    torch.testing.assert_close(logits.float(), expected, rtol=2e-2, atol=0.2)


def test_collected_stats_and_state():
    embeddings, labels = make_batch()
    schedule = CosineTemperature(0.2, 0.1, num_steps=4)
    similarity = TemperatureScheduledSimilarity(schedule=schedule, collect_stats=True)
    similarity(embeddings, labels=labels)
    assert 0 < similarity.min_pair_temperature <= similarity.mean_pair_temperature <= similarity.max_pair_temperature
    restored = TemperatureScheduledSimilarity(schedule=CosineTemperature(0.2, 0.1, num_steps=4))
    restored.load_state_dict(similarity.state_dict())
    assert restored.temperature == similarity.temperature < 0.2
