"""Two processes against one on the joint batch.

The tests start this file, which becomes two processes. Each of them works through SCENARIOS and saves what it found.
The tests compute what one process finds on the joint batch.
"""

import sys

import pytest
import torch
from processes import TIMEOUT, finish, fork_processes, run_processes
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper
from torch.nn.parallel import DistributedDataParallel

from pml_macl import LabelStatistics
from pml_macl.losses import JaccardSupConLoss, MACLLoss, MultiLabelCrossBatchMemory, MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner

NUM_PROCESSES, NUM_STEPS, ROWS, CLASSES = 2, 5, 6, 4


def memory(loss):
    return MultiLabelCrossBatchMemory(loss, 3, CLASSES, memory_size=2 * NUM_PROCESSES * ROWS)


# What runs in DistributedLossWrapper, and, without it, on the joint batch.
SCENARIOS = {
    "macl": lambda: MACLLoss(num_classes=CLASSES),
    "baseline": JaccardSupConLoss,
    "wrapped PML loss": lambda: MultiLabelLossWrapper(ContrastiveLoss()),
    "memory": lambda: memory(MACLLoss(num_classes=CLASSES)),
    "memory of keys": lambda: memory(MACLLoss(num_classes=CLASSES)),
}


def batches():
    """Inputs, label sets and keys to enqueue of the joint batches; the labels in the types that PML delivers."""
    generator = torch.Generator().manual_seed(0)
    for step in range(NUM_STEPS):
        rows = NUM_PROCESSES * ROWS
        inputs = torch.randn(rows, 5, dtype=torch.float64, generator=generator)
        labels = torch.rand(rows, CLASSES, generator=generator) < 0.4
        # Half of the rows of each process: the queue then drops whole batches.
        mask = torch.cat([torch.randperm(ROWS, generator=generator) < ROWS // 2 for _ in range(NUM_PROCESSES)])
        yield inputs, labels if step % 2 else labels.long(), mask


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()


def train(model, loss_of, part=slice(None)):
    """Gradients of each step of gradient descent."""
    gradients = []
    for inputs, labels, mask in batches():
        model.zero_grad()
        loss_of(model(inputs[part]), labels[part], mask[part]).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    return torch.stack(gradients)


def caller(name, loss_fn):
    if name == "memory of keys":
        return lambda embeddings, labels, mask: loss_fn(embeddings, labels, enqueue_mask=mask)
    return lambda embeddings, labels, mask: loss_fn(embeddings, labels)


def statistics_of(module):
    return {
        name: value for name, value in module.state_dict().items() if name.endswith(("cooccurrence", "num_samples"))
    }


def run_process(folder):
    """What one of the processes does."""
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    rank = torch.distributed.get_rank()
    part = slice(rank * ROWS, (rank + 1) * ROWS)
    found = {}
    for name, make_loss in SCENARIOS.items():
        loss_fn = make_loss()
        wrapped = caller(name, DistributedLossWrapper(loss_fn))
        gradients = train(DistributedDataParallel(make_model()), wrapped, part)
        found[name] = {"gradients": gradients, "statistics": statistics_of(loss_fn)}

    local = MACLLoss(num_classes=CLASSES)
    local.label_statistics.synchronize = True
    gradients = train(DistributedDataParallel(make_model()), caller("local", local), part)
    labels = next(batches())[1][part][: 3 + rank]  # as many images as each process happens to have
    shares = LabelStatistics.from_labels(labels, synchronize=True)
    found["local"] = {"gradients": gradients, "statistics": statistics_of(local), "shares": statistics_of(shares)}

    inputs, labels, _ = next(batches())
    embeddings = make_model()(inputs)[part].detach()
    efficient = MACLLoss(num_classes=CLASSES)
    try:
        DistributedLossWrapper(efficient, efficient=True)(embeddings, labels[part])
    except ValueError as error:
        found["efficient without a miner"] = {"error": str(error), "statistics": statistics_of(efficient)}
    miner = DistributedMinerWrapper(LabelOverlapMiner(), efficient=True)
    pairs = miner(embeddings, labels[part])
    found["efficient with a miner"] = DistributedLossWrapper(MACLLoss(), efficient=True)(
        embeddings, labels[part], pairs
    )
    finish(found, folder)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    return run_processes(__file__, folder, NUM_PROCESSES)


@pytest.mark.parametrize("name", SCENARIOS)
def test_gradients_and_statistics_are_those_of_the_joint_batch(name, processes):
    loss_fn = SCENARIOS[name]()
    expected = train(make_model(), caller(name, loss_fn))
    assert (expected.abs().sum(dim=1) > 1e-3).all()
    for found in processes:
        torch.testing.assert_close(found[name]["gradients"], expected, rtol=1e-9, atol=1e-12)
        statistics = statistics_of(loss_fn)
        assert found[name]["statistics"].keys() == statistics.keys()
        assert all(torch.equal(found[name]["statistics"][key], value) for key, value in statistics.items())


def test_local_losses_have_the_statistics_of_all(processes):
    """Each process on its own rows; the gradients are averaged."""
    statistics = LabelStatistics(CLASSES)
    loss_fn = MACLLoss(label_statistics=statistics)

    def mean_of_parts(embeddings, labels, mask):
        statistics.update(labels)
        parts = zip(embeddings.split(ROWS), labels.split(ROWS), strict=True)
        return sum(loss_fn(*part) for part in parts) / NUM_PROCESSES

    expected = train(make_model(), mean_of_parts)
    labels = next(batches())[1]
    shares = LabelStatistics.from_labels(torch.cat([labels[:3], labels[ROWS : ROWS + 4]]))
    for found in processes:
        torch.testing.assert_close(found["local"]["gradients"], expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(found["local"]["statistics"]["label_statistics.cooccurrence"], statistics.cooccurrence)
        assert found["local"]["statistics"]["label_statistics.num_samples"] == NUM_STEPS * NUM_PROCESSES * ROWS
        assert torch.equal(found["local"]["shares"]["cooccurrence"], shares.cooccurrence)
        assert found["local"]["shares"]["num_samples"] == 7


def test_the_efficient_mode_without_a_miner_is_refused_by_pml(processes):
    """PML compares the label matrices itself, which fails before the loss sees anything."""
    for found in processes:
        refusal = found["efficient without a miner"]
        assert "unpack" in refusal["error"]
        assert refusal["statistics"]["label_statistics.num_samples"] == 0


def test_the_efficient_mode_with_a_miner_takes_the_rows_of_the_process_as_anchors(processes):
    inputs, labels, _ = next(batches())
    embeddings = make_model()(inputs).detach()
    parts = [slice(rank * ROWS, (rank + 1) * ROWS) for rank in range(NUM_PROCESSES)]
    for own, other, found in zip(parts, reversed(parts), processes, strict=True):
        references = torch.cat([embeddings[own], embeddings[other]])
        ref_labels = torch.cat([labels[own], labels[other]])
        a1, p, a2, n = LabelOverlapMiner()(embeddings[own], labels[own], references, ref_labels)
        pairs = (a1[a1 != p], p[a1 != p], a2, n)
        expected = NUM_PROCESSES * MACLLoss()(embeddings[own], labels[own], pairs, references, ref_labels)
        torch.testing.assert_close(found["efficient with a miner"], expected)


def test_the_efficient_mode_is_refused_for_a_memory():
    with pytest.raises(ValueError, match="efficient=True is not currently supported"):
        DistributedLossWrapper(memory(MACLLoss()), efficient=True)


if __name__ == "__main__":
    fork_processes(run_process, sys.argv[1])
