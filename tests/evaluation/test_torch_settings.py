"""Evaluation with torch settings of a training: autocast, TF32, deterministic algorithms, threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pml_macl.evaluation import MultiLabelAccuracyCalculator, full_precision
from pml_macl.evaluation.full_precision import full_precision as in_full_precision
from pml_macl.evaluation.reference_labels import ReferenceLabels
from pml_macl.tuning import DENSE_LABELS

SETTINGS = [{}, {"gain": "jaccard", "k": 20}, {"return_per_class": True}, {"relevance_threshold": 0.3}]


def make_problem(num_classes, density, num_rows=90):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(num_rows, 8, generator=generator)
    return embeddings, torch.rand(num_rows, num_classes, generator=generator) < density


def equal(found, expected):
    return found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


class TestAutocast:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(("num_classes", "density"), [(17, 0.2), (200, 0.03), (1000, 0.4)])
    def test_changes_nothing(self, num_classes, density, dtype, device):
        problem = [part.to(device) for part in make_problem(num_classes, density)]
        expected = MultiLabelAccuracyCalculator().get_accuracy(*problem)
        with torch.autocast(device.type, dtype=dtype):
            found = MultiLabelAccuracyCalculator().get_accuracy(*problem)
        assert equal(found, expected)


class TestDeterministicAlgorithms:
    """Evaluation uses no operation that torch lists as nondeterministic on a GPU."""

    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    @pytest.mark.parametrize("num_classes", [9, DENSE_LABELS + 1])
    def test_no_operation_is_listed_as_nondeterministic(self, num_classes, settings):
        problem = make_problem(num_classes, 0.2)
        calculator = MultiLabelAccuracyCalculator(**settings, query_batch_size=1000)  # this thread computes the chunk
        with RefuseNondeterministic() as mode:
            calculator.get_accuracy(*problem)
        assert {"gather", "cumsum"} <= mode.seen

    def test_the_mode_refuses_nondeterministic_operations(self):
        for call in (
            lambda: torch.rand(3).cumsum(0),
            lambda: torch.bincount(torch.arange(3), torch.rand(3)),
            lambda: torch.zeros(3).index_add_(0, torch.arange(3), torch.ones(3)),
            lambda: torch.zeros(3).index_put_((torch.arange(3),), torch.ones(3), accumulate=True),
        ):
            with pytest.raises(AssertionError, match="not deterministic"), RefuseNondeterministic():
                call()

    @pytest.mark.parametrize("settings", SETTINGS, ids=str)
    def test_values_are_the_same_with_deterministic_algorithms(self, settings):
        problem = make_problem(200, 0.05)
        expected = MultiLabelAccuracyCalculator(**settings).get_accuracy(*problem)
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            found = MultiLabelAccuracyCalculator(**settings).get_accuracy(*problem)
        finally:
            torch.use_deterministic_algorithms(before)
        for name, value in found.items():
            assert equal(value, expected[name]), name


class RefuseNondeterministic(TorchDispatchMode):
    """Raises at operations that torch's documentation of use_deterministic_algorithms lists for CUDA."""

    NEVER = (
        *("index_add", "scatter_add", "scatter_reduce", "put", "kthvalue", "histc", "index_reduce", "index_copy"),
        *("median", "nanmedian", "cummax_helper", "_histogramdd_from_bin_cts", "unsafe_index_put"),
    )

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_")
        self.seen.add(name)
        wrong = name in self.NEVER
        if name in ("cumsum", "cumprod"):
            dtype = kwargs.get("dtype") or args[0].dtype
            wrong = dtype.is_floating_point or dtype.is_complex
        elif name == "bincount":
            weights = kwargs.get("weights", args[1] if len(args) > 1 else None)
            wrong = weights is not None
        elif name == "index_put":
            wrong = bool(kwargs.get("accumulate", args[3] if len(args) > 3 else False))
        assert not wrong, f"{func} is not deterministic on CUDA"
        return func(*args, **kwargs)


@pytest.fixture
def matmul_precision():
    """Function that sets the precision; the fixture restores it."""
    torch.set_float32_matmul_precision("highest")
    yield torch.set_float32_matmul_precision
    if full_precision._HAS_BACKEND_SETTINGS:
        torch.backends.fp32_precision = "none"
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


class TestMatmulPrecision:
    @pytest.mark.parametrize("precision", ["highest", "high", "medium"])
    @pytest.mark.parametrize("fails", [False, True])
    def test_ranking_uses_full_precision_and_the_setting_is_restored(self, precision, fails, matmul_precision, device):
        embeddings, labels = (part.to(device) for part in make_problem(9, 0.3))
        expected = MultiLabelAccuracyCalculator(query_batch_size=20).get_accuracy(embeddings, labels)
        seen = []

        class Watching(MultiLabelAccuracyCalculator):
            def calculate_ndcg(self, ranking):
                seen.append((torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32))
                if fails:
                    raise RuntimeError("on purpose")
                return super().calculate_ndcg(ranking)

        matmul_precision(precision)
        before = full_precision._read()
        if fails:
            with pytest.raises(RuntimeError, match="on purpose"):
                Watching(query_batch_size=20).get_accuracy(embeddings, labels)
        else:
            assert equal(Watching(query_batch_size=20).get_accuracy(embeddings, labels), expected)
        assert set(seen) == {("highest", False)}
        assert full_precision._read() == before
        assert torch.get_float32_matmul_precision() == precision

    @pytest.mark.parametrize("precision", ["highest", "high", "medium"])
    def test_the_setting_of_old_releases_is_restored(self, precision, matmul_precision, monkeypatch):
        monkeypatch.setattr(full_precision, "_HAS_BACKEND_SETTINGS", False)
        matmul_precision(precision)
        with in_full_precision("cpu"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == precision

    def test_allow_tf32_is_restored(self, matmul_precision):
        torch.backends.cuda.matmul.allow_tf32 = True
        before = full_precision._read()
        with in_full_precision("cpu"):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        assert full_precision._read() == before

    @pytest.mark.skipif(not full_precision._HAS_BACKEND_SETTINGS, reason="needs torch's settings per backend")
    def test_a_setting_for_all_backends_is_restored(self, matmul_precision):
        backends = torch.backends
        backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
        backends.fp32_precision = "tf32"
        with in_full_precision("cpu"):
            assert backends.cuda.matmul.fp32_precision == backends.mkldnn.matmul.fp32_precision == "ieee"
        assert backends.cuda.matmul.fp32_precision == backends.mkldnn.matmul.fp32_precision == "tf32"
        backends.fp32_precision = "ieee"  # both backends still follow this setting
        assert backends.cuda.matmul.fp32_precision == backends.mkldnn.matmul.fp32_precision == "ieee"

    def test_overlapping_blocks_restore_the_setting_when_the_last_one_ends(self, matmul_precision):
        matmul_precision("high")
        first, second = in_full_precision("cpu"), in_full_precision("cpu")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_float32_matmul_precision() == "highest"
        second.__exit__(None, None, None)
        assert torch.get_float32_matmul_precision() == "high"

    def test_a_setting_changed_inside_the_block_stays(self, matmul_precision):
        matmul_precision("high")
        with in_full_precision("cpu"):
            matmul_precision("medium")
        assert torch.get_float32_matmul_precision() == "medium"


def test_calls_of_one_calculator_in_two_threads_do_not_mix():
    problem = make_problem(9, 0.3, num_rows=300)
    calculator = MultiLabelAccuracyCalculator(query_batch_size=50)
    expected = calculator.get_accuracy(*problem)

    def evaluate(names):
        return [calculator.get_accuracy(*problem, include=names) for _ in range(8)]

    choices = [("ndcg", "acg"), ("r_precision",)]
    with ThreadPoolExecutor(2) as pool:
        for names, results in zip(choices, pool.map(evaluate, choices), strict=True):
            assert results == [{name: expected[name] for name in results[0]}] * 8
            assert set(results[0]) == set(names)


def test_shared_labels_of_many_classes_are_exact_under_autocast(device):
    labels = torch.ones(2, 3000, dtype=torch.bool, device=device)
    references = ReferenceLabels(labels, torch.float32)
    with torch.autocast(device.type, dtype=torch.bfloat16), in_full_precision(device.type):
        assert references.shared(labels)[:, :-1].unique().tolist() == [3000]
