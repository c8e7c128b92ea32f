"""Thousands of training steps: memory does not grow, and counts stay exact.

`PML_MACL_STEPS=10000`, as in `nox -s tests`, runs more steps.
"""

import gc
import os
import resource
from pathlib import Path

import pytest
import torch

from pml_macl import LabelStatistics
from pml_macl.distances import CosineTemperature, TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory
from pml_macl.miners import LabelOverlapMiner

STEPS, WARM_UP = int(os.environ.get("PML_MACL_STEPS", 2500)), 500
ROWS, CLASSES, SIZE = 8, 6, 8


def resident_bytes():
    """Memory that this process uses now. getrusage gives only the peak."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.fixture
def one_thread():
    """Use one thread: the matrices are small, and several threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_step(engine):
    """Make a training step with miner, memory and loss, and return it with the parts that count steps or rows."""
    schedule = CosineTemperature(0.2, 0.1, STEPS)
    loss = MACLLoss(num_classes=CLASSES, distance=TemperatureScheduledSimilarity(schedule=schedule), engine=engine)
    miner = LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=3)
    memory = MultiLabelCrossBatchMemory(loss, SIZE, CLASSES, memory_size=20)
    weight = torch.eye(SIZE, requires_grad=True)

    def step(images, labels):
        embeddings = images @ weight
        total = memory(embeddings, labels, miner(embeddings, labels))
        total.backward()
        weight.data -= 0.01 * weight.grad
        weight.grad = None
        return total

    return step, memory, schedule


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
@pytest.mark.parametrize(("engine", "steps"), [("auto", STEPS), ("reference", 1500)])
def test_memory_and_counts_after_many_steps(engine, steps, generator):
    step, memory, schedule = make_step(engine)
    labels = torch.rand(steps, ROWS, CLASSES, generator=generator) < 0.3
    images = torch.randn(16, ROWS, SIZE, generator=generator)
    before = 0
    for number in range(steps):
        if number == WARM_UP:
            before = resident_bytes()
        total = step(images[number % 16], labels[number])
    assert resident_bytes() - before < 500 * (steps - WARM_UP)  # a tensor has more than 500 bytes
    assert total.isfinite()

    everything = labels.view(-1, CLASSES)
    expected = everything.long().T @ everything.long()
    statistics = memory.loss.label_statistics
    assert torch.equal(statistics.cooccurrence, expected)
    assert torch.equal(statistics.counts, expected.diagonal())
    assert statistics.num_samples == steps * ROWS
    assert schedule.step == steps
    assert memory.num_enqueued == steps * ROWS
    slots = torch.arange(steps * ROWS - 20, steps * ROWS) % 20
    assert torch.equal(memory.label_memory[slots], everything[-20:])


def test_counts_stay_exact_where_floats_would_not():
    """float32 cannot represent 2**24 + 1, and float64 cannot represent 2**53 + 1."""
    for most in (2**24, 2**53):
        statistics = LabelStatistics(2)
        statistics.num_samples.fill_(most)
        statistics.counts.fill_(most)
        statistics.cooccurrence.fill_(most)
        for _ in range(3):
            statistics.update(torch.tensor([[1, 0]]))
        assert statistics.num_samples == most + 3
        assert statistics.counts.tolist() == [most + 3, most]
        assert statistics.cooccurrence.tolist() == [[most + 3, most], [most, most]]
