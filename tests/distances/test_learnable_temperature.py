"""The gradients of a trained temperature in both engines equal finite differences and torch's autograd."""

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance

from pml_macl import pairs
from pml_macl.distances import LearnableTemperature, TemperatureSchedule, TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, SupConAnyLoss


def batch(generator, num_rows=9, dtype=torch.float64):
    labels = torch.rand(num_rows, 4, generator=generator) < 0.4
    return torch.randn(num_rows, 3, dtype=dtype, generator=generator), labels


def numeric_gradient(loss_fn, parameter, *inputs):
    """Compute the central difference of the loss with respect to one parameter."""
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * step
            values.append(loss_fn(*inputs).item())
            parameter -= sign * step
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("scales", [(1.0, 0.3), (1.0, 0.0), (0.0, 0.3), (0.0, 0.0)])
@pytest.mark.parametrize("with_references", [False, True])
def test_gradient_is_that_of_finite_differences(engine, scales, with_references, generator, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ELEMENTS", 30)
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 2)
    embeddings, labels = batch(generator)
    inputs = (embeddings, labels, None, *batch(generator, 7)) if with_references else (embeddings, labels)
    schedule = LearnableTemperature(0.2).double()
    distance = TemperatureScheduledSimilarity(
        overlap_scale=scales[0], rarity_scale=scales[1], schedule=schedule, min_temperature=0.17
    )
    loss_fn = MACLLoss(distance=distance, engine=engine)
    loss = loss_fn(*inputs)
    loss.backward()
    expected = numeric_gradient(loss_fn, schedule.log_temperature, *inputs)
    assert abs(expected) > 1e-3
    assert schedule.log_temperature.grad.item() == pytest.approx(expected, rel=1e-6)


def test_both_engines_agree_in_all_gradients(generator):
    embeddings, labels = batch(generator)
    found = []
    for engine in ("fused", "reference"):
        leaf = embeddings.clone().requires_grad_()
        schedule = LearnableTemperature(0.15).double()
        loss_fn = MACLLoss(distance=TemperatureScheduledSimilarity(schedule=schedule), engine=engine)
        found.append([*torch.autograd.grad(loss_fn(leaf, labels), (leaf, schedule.log_temperature))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def test_temperatures_of_your_own_with_parameters(generator):
    """A subclass overrides one method and has one parameter per label."""

    class ByLabel(TemperatureScheduledSimilarity):
        def __init__(self):
            super().__init__()
            self.of_label = torch.nn.Parameter(torch.full((4,), 0.1, dtype=torch.float64))

        def pair_temperatures(self, block):
            return 0.1 + block.sum_over_shared(self.of_label.abs())

    embeddings, labels = batch(generator)
    found = []
    for engine in ("fused", "reference"):
        loss_fn = MACLLoss(distance=ByLabel(), engine=engine)
        loss_fn(embeddings, labels).backward()
        assert (loss_fn.fallback is None) == (engine == "fused")
        found.append(loss_fn.distance.of_label.grad)
    assert found[0].abs().min() > 0
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-13)


def test_a_schedule_of_your_own_is_trained_without_labels_too(generator):
    class Learnt(TemperatureSchedule):
        def __init__(self):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(0.3))

        def forward(self, dtype=torch.float64):
            return self.value.to(dtype)

    for distance in (None, LpDistance()):
        similarity = TemperatureScheduledSimilarity(schedule=Learnt(), distance=distance)
        similarity(torch.randn(4, 3, generator=generator)).sum().backward()
        assert similarity.schedule.value.grad != 0


def test_it_stays_within_its_bounds_and_comes_back(generator):
    schedule = LearnableTemperature(0.5, low=0.1, high=0.6)
    with torch.no_grad():
        schedule.log_temperature += 5
    temperature = schedule()
    assert temperature.item() == pytest.approx(0.6)
    temperature.backward()
    assert schedule.log_temperature.grad > 0  # the clamp does not stop the gradient
    with torch.no_grad():
        schedule.log_temperature -= 50
    assert schedule().item() == pytest.approx(0.1)


def test_it_trains_in_an_optimizer_and_two_calls_share_a_step(generator):
    loss_fn = SupConAnyLoss()
    loss_fn.distance.schedule = LearnableTemperature(0.1)
    optimizer = torch.optim.SGD(loss_fn.parameters(), lr=0.1)
    embeddings, labels = batch(generator, dtype=torch.float32)
    (loss_fn(embeddings, labels) + loss_fn(embeddings + 1, labels)).backward()
    optimizer.step()
    assert loss_fn.distance.temperature != pytest.approx(0.1, rel=1e-4)
    assert not loss_fn.distance.temperature.requires_grad  # the property is for logging


def test_state_and_bad_arguments():
    restored = LearnableTemperature(0.1)
    restored.load_state_dict(LearnableTemperature(0.3).state_dict())
    assert restored().item() == pytest.approx(0.3)
    assert "low=0.01, high=1.0" in repr(restored)
    with pytest.raises(ValueError, match=r"initial must be in \[low, high\] = \[0.01, 1.0\], got 2"):
        LearnableTemperature(2)
    with pytest.raises(ValueError, match="low must be above 0"):
        LearnableTemperature(0.1, low=0)
    with pytest.raises(TypeError, match=r"got a Parameter; to train it, use schedule=LearnableTemperature"):
        TemperatureScheduledSimilarity(temperature=torch.nn.Parameter(torch.tensor(0.1)))
