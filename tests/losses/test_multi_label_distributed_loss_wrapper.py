"""Several processes, each with its own anchors, against one process on the joint batch.

The tests start this file, which becomes four processes. Two of them, then all four, work through CASES. The tests
compute what one process finds on the joint batch.
"""

import os
import sys

import pytest
import torch
from processes import TIMEOUT, finish, fork_processes, run_processes
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.reducers import MeanReducer
from pytorch_metric_learning.regularizers import LpRegularizer
from torch.nn.parallel import DistributedDataParallel

from pml_macl import FrequencyWeightedJaccard, losses
from pml_macl.distances import LearnableTemperature, TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory, MultiLabelDistributedLossWrapper, ProxyMACLLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

WORLDS = (2, 4)
NUM_STEPS, CLASSES, LONELY = 3, 6, 2  # the last LONELY labels are those of a process without positives
UNEQUAL, EMPTY = (7, 2, 6, 4), (8, 0, 5, 0)
BASELINES = [
    "SupConAnyLoss",
    "SupConExactLoss",
    "MultiSupConLoss",
    "JaccardSupConLoss",
    "MulSupConLoss",
    "SimilarityDissimilarityLoss",
]


def learnt():
    distance = TemperatureScheduledSimilarity(collect_stats=True)
    return MACLLoss(num_classes=CLASSES, distance=distance, collect_stats=True)


def everything():
    return MACLLoss(
        distance=TemperatureScheduledSimilarity(schedule=LearnableTemperature(0.2)),
        reducer=FrequencyWeightedReducer(anchor_power=0.5, overlap_power=1),
        embedding_regularizer=LpRegularizer(),
        positive_threshold=0.3,
        negative_threshold=0.2,
    ).double()


def related():
    loss_fn = learnt()
    loss_fn.relation = FrequencyWeightedJaccard(loss_fn.label_statistics)
    return loss_fn


def proxies():
    torch.manual_seed(1)
    return ProxyMACLLoss(CLASSES, 3, embedding_regularizer=LpRegularizer()).double()


def memory():
    return MultiLabelCrossBatchMemory(learnt(), 3, CLASSES, memory_size=40)


# The loss, the number of images of each process, and what is special about the batch.
CASES = {
    **{name: (getattr(losses, name), UNEQUAL, None) for name in BASELINES},
    "learnt": (learnt, UNEQUAL, None),
    "learnt, equal shares": (learnt, (5, 5, 5, 5), None),
    "relation": (related, UNEQUAL, None),
    "learnt, empty shares": (learnt, EMPTY, None),
    "learnt, no images": (learnt, (0, 0, 0, 0), None),
    "no statistics": (MACLLoss, UNEQUAL, None),
    "no positives in a process": (MACLLoss, UNEQUAL, "lonely"),
    "all settings": (everything, UNEQUAL, None),
    "proxies": (proxies, UNEQUAL, None),
    "proxies, empty shares": (proxies, EMPTY, None),
    "NaN in a process": (learnt, UNEQUAL, "nan"),
    "memory": (memory, UNEQUAL, None),
    "memory, empty shares": (memory, EMPTY, None),
    "memory of keys": (memory, UNEQUAL, "mask"),
}


def batches(sizes, special):
    """Inputs, label sets and masks of the joint batches."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(NUM_STEPS):
        inputs = torch.randn(sum(sizes), 5, dtype=torch.float64, generator=generator)
        labels = torch.rand(sum(sizes), CLASSES, generator=generator) < 0.3
        mask = torch.rand(sum(sizes), generator=generator) < 0.5 if special == "mask" else None
        if special == "lonely":
            labels[:, -LONELY:] = False
            labels[sizes[0] : sizes[0] + LONELY] = torch.eye(CLASSES, dtype=torch.bool)[-LONELY:]
        if special == "nan":
            inputs[0] = torch.nan
        yield inputs, labels, mask


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()


def train(model, loss_fn, sizes, special, part):
    """The losses and gradients of each step of gradient descent."""
    values, gradients = [], []
    modules = torch.nn.ModuleList([model, loss_fn])
    for inputs, labels, mask in batches(sizes, special):
        modules.zero_grad()
        options = {} if mask is None else {"enqueue_mask": mask[part]}
        loss = loss_fn(model(inputs[part]), labels[part], **options)
        loss.backward()
        values.append(loss.detach())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in modules.parameters()]))
        with torch.no_grad():
            for parameter in modules.parameters():
                parameter -= 0.1 * parameter.grad
    return {"losses": torch.stack(values), "gradients": torch.stack(gradients)}


def share_of(sizes, rank):
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def errors_of(calls):
    found = {}
    for name, call in calls.items():
        with pytest.raises(ValueError, match="got") as error:
            call()
        found[name] = str(error.value)
    return found


def run_world(world, rank, folder):
    """What a process finds together with ``world - 1`` others."""
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/store{world}", rank=rank, world_size=world, timeout=TIMEOUT
    )
    found = {"statistics": {}}
    for name, (make_loss, sizes, special) in CASES.items():
        plain = make_loss()
        loss_fn = MultiLabelDistributedLossWrapper(plain)
        if any(parameter.requires_grad for parameter in loss_fn.parameters()):
            loss_fn = DistributedDataParallel(loss_fn)
        model = DistributedDataParallel(make_model())
        found[name] = train(model, loss_fn, sizes[:world], special, share_of(sizes, rank))
        found[name]["state"] = dict(plain.state_dict())
        if make_loss is learnt:
            found["statistics"][name] = statistics_of(plain)
    loss_fn = MultiLabelDistributedLossWrapper(learnt())
    embeddings, labels = torch.randn(3, 4), torch.ones(3, CLASSES)
    is_last = rank == world - 1
    found["errors"] = errors_of(
        {
            "labels": lambda: loss_fn(embeddings, labels * (2 if is_last else 1)),
            "width": lambda: loss_fn(embeddings[:, : 3 if is_last else 4], labels),
            "gradients": lambda: loss_fn(embeddings.requires_grad_(not is_last), labels),
            "memory size": lambda: MultiLabelDistributedLossWrapper(
                MultiLabelCrossBatchMemory(learnt(), 4, CLASSES, memory_size=4)
            )(embeddings.detach(), labels),
        }
    )
    found["counted after errors"] = loss_fn.loss.label_statistics.num_samples
    with torch.no_grad():
        found["without gradients"] = loss_fn(embeddings.detach(), labels)
    return found


def statistics_of(loss_fn):
    """The recorded statistics of the last step, as numbers."""
    distance = loss_fn.distance
    names = ("min_pair_temperature", "mean_pair_temperature", "max_pair_temperature")
    return [loss_fn.num_pos_pairs, loss_fn.num_neg_pairs, *(float(getattr(distance, name)) for name in names)]


def run_process(folder):
    rank = int(os.environ["RANK"])
    found = {}
    for world in WORLDS:
        if rank < world:
            found[world] = run_world(world, rank, folder)
            if world != WORLDS[-1]:
                torch.distributed.destroy_process_group()
    finish(found, folder)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each process found, by number of processes."""
    found = run_processes(__file__, tmp_path_factory.mktemp("processes"), WORLDS[-1])
    return {world: [of_process[world] for of_process in found[:world]] for world in WORLDS}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", CASES)
def test_values_gradients_and_state_are_those_of_the_joint_batch(name, world, processes):
    make_loss, sizes, special = CASES[name]
    loss_fn = make_loss()
    expected = train(make_model(), loss_fn, sizes[:world], special, slice(None))
    expected["state"] = dict(loss_fn.state_dict())
    assert special == "nan" or not sum(sizes) or expected["gradients"].abs().sum() > 1e-3
    for found in processes[world]:
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ["learnt", "learnt, equal shares", "learnt, empty shares"])
def test_each_process_records_the_statistics_of_its_own_anchors(name, world, processes):
    _, sizes, special = CASES[name]
    loss_fn = learnt()
    train(make_model(), loss_fn, sizes[:world], special, slice(None))
    anchors = [size for size in sizes[:world] if size]
    columns = [found["statistics"][name] for found, size in zip(processes[world], sizes, strict=False) if size]
    positives, negatives, smallest, means, largest = zip(*columns, strict=True)
    mean = sum(size * value for size, value in zip(anchors, means, strict=True)) / sum(anchors)
    expected = [sum(positives), sum(negatives), min(smallest), mean, max(largest)]
    assert statistics_of(loss_fn) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_all_processes_raise_an_error_if_one_batch_is_invalid(world, processes):
    *others, last = [found["errors"] for found in processes[world]]
    assert "labels" in last["labels"]
    for found in others:
        assert found["labels"] == f"process {world - 1} got an invalid batch; its own error says what is wrong"
    for found in [*others, last]:
        assert f"same embedding size, got {[4] * (world - 1) + [3]}" in found["width"]
        assert "same need for gradients" in found["gradients"]
        assert f"memory_size (4) rows, got {3 * world}" in found["memory size"]


@pytest.mark.parametrize("world", WORLDS)
def test_errors_and_calls_without_gradients_count_no_images(world, processes):
    for found in processes[world]:
        assert found["counted after errors"] == 0
        assert found["without gradients"] > 0


def test_one_process_returns_the_loss_unchanged():
    embeddings, labels = torch.randn(8, 4, requires_grad=True), torch.rand(8, CLASSES) < 0.4
    mask = torch.arange(8) < 4
    for make_loss, options in ((learnt, {}), (memory, {"enqueue_mask": mask})):
        plain, wrapped = make_loss(), MultiLabelDistributedLossWrapper(make_loss())
        rows = embeddings[:, : 3 if options else 4]
        assert torch.equal(wrapped(rows, labels, **options), plain(rows, labels, **options))
        assert wrapped.loss.state_dict().keys() == plain.state_dict().keys()


REFUSED = {
    "a PML loss": (losses.MultiLabelLossWrapper(ContrastiveLoss()), TypeError, "got MultiLabelLossWrapper"),
    "a PML loss in a memory": (
        MultiLabelCrossBatchMemory(losses.MultiLabelLossWrapper(ContrastiveLoss()), 3, CLASSES),
        TypeError,
        "got MultiLabelCrossBatchMemory of MultiLabelLossWrapper",
    ),
    "a miner": (MultiLabelCrossBatchMemory(MACLLoss(), 3, CLASSES, miner=LabelOverlapMiner()), ValueError, "no miner"),
    "a reducer of PML": (MACLLoss(reducer=MeanReducer()), ValueError, "the reducer MeanReducer"),
    "a distance of PML": (MACLLoss(distance=LpDistance()), ValueError, "the distance LpDistance"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_losses_whose_mean_cannot_be_split_are_refused(name):
    loss_fn, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as found:
        MultiLabelDistributedLossWrapper(loss_fn)
    assert "use DistributedLossWrapper of pytorch_metric_learning" in str(found.value)


def test_synchronised_statistics_are_refused_also_later():
    loss_fn = MultiLabelDistributedLossWrapper(learnt())
    loss_fn.loss.label_statistics.synchronize = True
    with pytest.raises(ValueError, match="synchronize must be False"):
        loss_fn(torch.randn(2, 3), torch.ones(2, CLASSES))


def test_pairs_of_a_miner_and_masks_without_a_memory_are_refused():
    loss_fn = MultiLabelDistributedLossWrapper(learnt())
    embeddings, labels = torch.randn(2, 3), torch.ones(2, CLASSES)
    with pytest.raises(ValueError, match="indices_tuple must be None, got tuple"):
        loss_fn(embeddings, labels, LabelOverlapMiner()(embeddings, labels))
    with pytest.raises(ValueError, match="needs a MultiLabelCrossBatchMemory, got MACLLoss"):
        loss_fn(embeddings, labels, enqueue_mask=torch.ones(2, dtype=torch.bool))


if __name__ == "__main__":
    fork_processes(run_process, sys.argv[1])
