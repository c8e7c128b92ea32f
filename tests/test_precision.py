"""Half precision, low temperatures, many references, and extreme but valid embeddings and labels."""

import importlib.util
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning import miners as pml_miners

from pml_macl import losses
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.labels import jaccard_similarity, shared_label_counts
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.statistics import LabelStatistics


def load_benchmark():
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "precision.py"
    spec = importlib.util.spec_from_file_location("precision_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load_benchmark()
LOSSES = list(benchmark.make_losses(0.01))
CONTRASTIVE = [name for name in LOSSES if not name.startswith("wrapped")]
# Tolerances of the value and of the gradient. In half precision, rounding alone gives the gradient an error.
TOLERANCES = {
    "float32": (2e-6, 2e-5),
    "bfloat16": (2e-6, 5e-3),
    "float16": (2e-6, 1e-3),
    "bfloat16 autocast": (2e-3, 5e-2),
    "float16 autocast": (2e-3, 1e-2),
}


def skip_without_autocast(mode, device):
    if device.type == "cpu" and mode == "float16 autocast" and torch.__version__ < "2.4":
        pytest.skip("float16 autocast on the CPU came with torch 2.4")


def to_device(batch, device):
    return tuple(None if x is None else x.to(device) for x in batch)


@pytest.mark.parametrize("mode", TOLERANCES)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_error_against_float64(temperature, name, mode, device):
    skip_without_autocast(mode, device)
    batch = to_device(benchmark.make_batch(48, 0), device)
    errors = benchmark.measure(benchmark.make_losses(temperature)[name], batch, mode)
    for error, tolerance in zip(errors, TOLERANCES[mode], strict=True):
        assert error < tolerance


@pytest.mark.parametrize("mode", TOLERANCES)
@pytest.mark.parametrize("name", ["MACLLoss, fused", "MACLLoss, reference", "SupConAnyLoss", "MulSupConLoss"])
def test_many_references_at_a_low_temperature(name, mode, device):
    """In float32 the reference engine loses a digit, because it adds up so many weights one after the other."""
    skip_without_autocast(mode, device)
    batch = to_device(benchmark.make_batch(4, 65536), device)
    errors = benchmark.measure(benchmark.make_losses(0.01)[name], batch, mode)
    for error, tolerance in zip(errors, TOLERANCES[mode], strict=True):
        assert error < 10 * tolerance


def make_edge_cases():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(10, 8, generator=generator)
    labels = torch.rand(10, 5, generator=generator) < 0.4
    one = torch.eye(10)[:, :5] > 0
    return {
        "identical": (torch.ones(10, 8), labels),
        "opposite": (torch.ones(10, 8) * (-1) ** torch.arange(10)[:, None], labels),
        "zeros": (torch.zeros(10, 8), labels),
        "a row of zeros": (embeddings.index_fill(0, torch.tensor([3]), 0), labels),
        "large": (1e4 * embeddings, labels),
        "no positives": (embeddings, one),
        "no negatives": (embeddings, torch.ones(10, 5, dtype=torch.bool)),
        "no labels": (embeddings, torch.zeros(10, 5, dtype=torch.bool)),
        "some without labels": (embeddings, labels & (torch.arange(10)[:, None] > 3)),
        "one row": (embeddings[:1], labels[:1]),
    }


EDGE_CASES = make_edge_cases()


@pytest.mark.parametrize("mode", [*TOLERANCES, "float64"])
@pytest.mark.parametrize("case", EDGE_CASES)
@pytest.mark.parametrize("references", [False, True])
def test_loss_and_gradient_are_finite_in_edge_cases(case, mode, references, device):
    skip_without_autocast(mode, device)
    dtype, autocast = (torch.float64, None) if mode == "float64" else benchmark.MODES[mode]
    embeddings, labels = to_device(EDGE_CASES[case], device)
    batch = (embeddings, labels, *((embeddings, labels) if references else (None, None)))
    for name, make_loss in benchmark.make_losses(0.01).items():
        loss, gradient = benchmark.value_and_gradient(make_loss().to(device), batch, dtype, autocast)
        assert loss.isfinite(), name
        assert loss >= 0, name
        assert gradient.isfinite().all(), name
        zero = (embeddings == 0).all(dim=1)
        assert not gradient[zero].any(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_memory_has_the_dtype_of_the_embeddings(dtype, device):
    embeddings, labels = to_device(EDGE_CASES["a row of zeros"], device)
    similarity = TemperatureScheduledSimilarity(0.01)
    memory = losses.MultiLabelCrossBatchMemory(losses.MACLLoss(distance=similarity), 8, 5, memory_size=64).to(device)
    for _ in range(3):
        leaf = embeddings.to(dtype).requires_grad_()
        loss = memory(leaf, labels)
        loss.backward()
        assert loss.isfinite()
        assert loss.dtype is torch.float32
        assert leaf.grad.isfinite().all()
    assert memory.embedding_memory.dtype is dtype


MINERS = {
    "label overlap": lambda: LabelOverlapMiner(
        pos_strategy="hard", neg_strategy="semihard", max_negatives_per_anchor=3
    ),
    "batch hard": lambda: MultiLabelMinerWrapper(pml_miners.BatchHardMiner()),
    "multi-similarity": lambda: MultiLabelMinerWrapper(pml_miners.MultiSimilarityMiner()),
    "triplet margin": lambda: MultiLabelMinerWrapper(pml_miners.TripletMarginMiner()),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", EDGE_CASES)
@pytest.mark.parametrize("name", MINERS)
def test_miners_choose_the_same_pairs_in_half_precision_and_in_float32(name, case, dtype, device):
    embeddings, labels = to_device(EDGE_CASES[case], device)
    half = embeddings.to(dtype)
    found, expected = (MINERS[name]()(rows, labels) for rows in (half, half.float()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_metrics_of_half_precision_embeddings_equal_those_of_the_same_values_in_float64(dtype, device):
    embeddings, labels = to_device(benchmark.make_batch(60, 0)[:2], device)
    calculator = MultiLabelAccuracyCalculator()
    found = calculator.get_accuracy(embeddings.to(dtype), labels)
    expected = calculator.get_accuracy(embeddings.to(dtype).double(), labels)
    assert found == pytest.approx(expected, rel=1e-4)


def test_counts_are_exact_under_autocast(device):
    """bfloat16 has no odd numbers above 256, and float16 has none above 2048."""
    labels = torch.ones(3001, 2, dtype=torch.bool, device=device)
    labels[-1, 1] = False
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(device.type, dtype=dtype):
            assert LabelStatistics.from_labels(labels).cooccurrence.tolist() == [[3001, 3000], [3000, 3000]]
            assert shared_label_counts(labels[:, :1].T).item() == 3001
            assert jaccard_similarity(labels.T)[0].tolist() == pytest.approx([1, 3000 / 3001], rel=1e-6)
