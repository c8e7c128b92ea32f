"""A training step does not wait for the GPU.

Fake CUDA tensors have no values, so reading one raises. With a real GPU, a test also uses
``torch.cuda.set_sync_debug_mode``.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from pml_macl import FrequencyWeightedJaccard, LabelStatistics, deferred_check, losses
from pml_macl.distances import LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.reducers import FrequencyWeightedReducer


def frequency_jaccard():
    statistics = LabelStatistics(17)
    return losses.MACLLoss(label_statistics=statistics, relation=FrequencyWeightedJaccard(statistics))


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
    "macl, frequency Jaccard": frequency_jaccard,
    "supcon any": losses.SupConAnyLoss,
    "supcon exact": losses.SupConExactLoss,
    "multisupcon": losses.MultiSupConLoss,
    "jaccard": losses.JaccardSupConLoss,
    "mulsupcon": losses.MulSupConLoss,
    "similarity-dissimilarity": losses.SimilarityDissimilarityLoss,
}


def fakes_cuda():
    """Return whether this torch creates fake CUDA tensors without a driver; old releases do not."""
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
    # The check reads host memory only, but fake tensors on the host have no values either.
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
    """Count copies of tensors between devices, except single numbers."""

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
    """This includes label frequencies of the batch and the position of a memory."""
    monkeypatch.setattr(deferred_check, "SYNCHRONOUS_CHECKS", 0)
    monkeypatch.setattr(deferred_check.DeferredCheck, "_is_set", lambda self, on_host: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss_fn = LOSSES[name]()
        if in_memory:
            loss_fn = losses.MultiLabelCrossBatchMemory(loss_fn, 4, 17, 20)
        loss_fn.to("cuda")
        loss_fn(*batch(8, torch.bool))  # the first call converts the memory to the dtype of the embeddings
        with Crossings() as crossings:
            loss_fn(*batch(8, torch.bool))
        assert crossings.copies == 0
        with Crossings() as crossings:
            loss_fn(*batch(8, torch.bool)[:1], torch.empty(8, 17, dtype=torch.bool))  # labels on the CPU
        assert crossings.copies > 0


@needs_fake_cuda
def test_a_step_against_proxies_reads_and_copies_nothing(monkeypatch):
    monkeypatch.setattr(deferred_check, "SYNCHRONOUS_CHECKS", 0)
    monkeypatch.setattr(deferred_check.DeferredCheck, "_is_set", lambda self, on_host: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):  # a fake parameter cannot move
            loss_fn = losses.ProxyMACLLoss(17, 4)
        with Crossings() as crossings:
            assert loss_fn(*batch(8, torch.bool)).device.type == "cuda"
        assert crossings.copies == 0


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
    for _ in range(deferred_check.SYNCHRONOUS_CHECKS + 1):  # warm up: allocate, load kernels, pass the first checks
        loss_fn(embeddings, labels).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_fn(embeddings, labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
