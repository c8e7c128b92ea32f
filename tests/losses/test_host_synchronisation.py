"""A training step on a GPU never waits for it: run on fake CUDA tensors, which have no values that could be read.

``torch.cuda.set_sync_debug_mode`` would show the same on a real device, and does where there is one.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pml_macl import LabelStatistics, deferred_check, losses
from pml_macl.distances import LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.reducers import FrequencyWeightedReducer

LOSSES = {
    "macl": lambda: losses.MACLLoss(label_statistics=LabelStatistics(17)),
    "macl, frequencies of the batch": lambda: losses.MACLLoss(),
    "macl, learnt frequencies": lambda: losses.MACLLoss(17),
    "macl, label level": lambda: losses.MACLLoss(
        label_statistics=LabelStatistics(17), reducer=FrequencyWeightedReducer(level="label", anchor_power=1.0)
    ),
    "macl, thresholds": lambda: losses.MACLLoss(positive_threshold=0.5, negative_threshold=0.3),
    "macl, schedule": lambda: losses.MACLLoss(
        distance=TemperatureScheduledSimilarity(schedule=LinearTemperature(0.2, 0.1, 100))
    ),
    "supcon any": losses.SupConAnyLoss,
    "supcon exact": losses.SupConExactLoss,
    "multisupcon": losses.MultiSupConLoss,
    "jaccard": losses.JaccardSupConLoss,
    "mulsupcon": losses.MulSupConLoss,
    "similarity-dissimilarity": losses.SimilarityDissimilarityLoss,
}


def fakes_cuda():
    """Whether this release of torch makes fake CUDA tensors where there is no driver; old ones do not."""
    try:
        with FakeTensorMode():
            return torch.empty(1, device="cuda").add(1).is_cuda
    except (RuntimeError, AssertionError):
        return False


needs_fake_cuda = pytest.mark.skipif(not fakes_cuda(), reason="this torch makes no fake CUDA tensors without a driver")


def batch(num_rows, dtype):
    embeddings = torch.empty(num_rows, 4, device="cuda", requires_grad=True)
    return embeddings, torch.empty(num_rows, 17, dtype=dtype, device="cuda")


@needs_fake_cuda
@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_reads_nothing_back(name, dtype, monkeypatch):
    monkeypatch.setattr(deferred_check, "SYNCHRONOUS_CHECKS", 0)
    # What is read here lies in the memory of the host, but fake tensors cannot be read at all.
    monkeypatch.setattr(deferred_check.DeferredCheck, "_is_set", lambda self, on_host: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss_fn = LOSSES[name]().to("cuda")
        assert loss_fn(*batch(8, dtype)).device.type == "cuda"
        ref_emb, ref_labels = batch(12, dtype)
        own = torch.empty(8, dtype=torch.long, device="cuda")
        assert loss_fn(*batch(8, dtype), ref_emb=ref_emb, ref_labels=ref_labels).shape == ()
        assert loss_fn(*batch(8, dtype), ref_emb=ref_emb, ref_labels=ref_labels, own=own).shape == ()
        pairs = tuple(torch.empty(5, dtype=torch.long, device="cuda") for _ in range(4))
        assert loss_fn(*batch(8, dtype), pairs).shape == ()


class Crossings(TorchDispatchMode):
    """Counts copies of tensors, other than single numbers, between the devices."""

    def __init__(self):
        super().__init__()
        self.copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "copy" in str(function) and isinstance(result, torch.Tensor) and result.dim() > 0:
            sources = {x.device.type for x in args if isinstance(x, torch.Tensor)}
            self.copies += sources != {result.device.type}
        return result


@needs_fake_cuda
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_step_copies_nothing_to_another_device(name, in_memory, monkeypatch):
    """Label frequencies of a batch, too, are made where the labels are; a memory knows its position without asking."""
    monkeypatch.setattr(deferred_check, "SYNCHRONOUS_CHECKS", 0)
    monkeypatch.setattr(deferred_check.DeferredCheck, "_is_set", lambda self, on_host: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss_fn = LOSSES[name]()
        if in_memory:
            loss_fn = losses.MultiLabelCrossBatchMemory(loss_fn, 4, 17, 20)
        loss_fn.to("cuda")
        loss_fn(*batch(8, torch.bool))  # a memory moves to the type of the embeddings once
        with Crossings() as crossings:
            loss_fn(*batch(8, torch.bool))
        assert crossings.copies == 0
        with Crossings() as crossings:
            loss_fn(*batch(8, torch.bool)[:1], torch.empty(8, 17, dtype=torch.bool))  # labels on the CPU
        assert crossings.copies > 0


@needs_fake_cuda
def test_reading_back_would_be_seen():
    with FakeTensorMode(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        bool(torch.empty(3, device="cuda").any())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_waits_for_no_gpu(name):
    loss_fn = LOSSES[name]().cuda()
    embeddings = torch.randn(8, 4, device="cuda", requires_grad=True)
    labels = (torch.rand(8, 17, device="cuda") < 0.3).long()
    for _ in range(deferred_check.SYNCHRONOUS_CHECKS + 1):  # also allocates and loads what is needed once
        loss_fn(embeddings, labels).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_fn(embeddings, labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
