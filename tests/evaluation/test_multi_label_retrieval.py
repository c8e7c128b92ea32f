"""MultiLabelRetrieval equals the calculator, in one process and in two."""

import copy
import importlib
import pickle
import sys
from functools import partial

import pytest
import torch
from processes import TIMEOUT, finish, fork_processes, run_processes
from torch.nn.functional import normalize
from torchmetrics import MetricCollection

from pml_macl.evaluation import MultiLabelAccuracyCalculator, MultiLabelRetrieval

ROWS, CLASSES = 41, 6


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 8, generator=generator), torch.rand(ROWS, CLASSES, generator=generator) < 0.3


def calculator(**settings):
    return MultiLabelAccuracyCalculator(at_k=(1, 5), **settings)


def update(metric, *rows, start=0, stop=ROWS, step=1, size=10):
    """Pass the rows start, start + step, ... to the metric in batches."""
    for batch in torch.arange(start, stop, step).split(size):
        metric.update(*(row[batch] for row in rows))
    return metric


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype is torch.float64
        torch.testing.assert_close(found[name], torch.tensor(value, dtype=torch.float64), rtol=0, atol=0)


def test_equals_the_calculator_on_normalised_embeddings():
    embeddings, labels = data()
    metric = update(MultiLabelRetrieval(calculator()), embeddings, labels)
    expected = calculator().get_accuracy(normalize(embeddings), labels)
    assert_equal(metric.compute(), expected)
    assert expected != calculator().get_accuracy(embeddings, labels)


def test_embeddings_can_be_used_as_they_are():
    embeddings, labels = data()
    metric = update(MultiLabelRetrieval(calculator(), normalize_embeddings=False), embeddings, labels)
    assert_equal(metric.compute(), calculator().get_accuracy(embeddings, labels))


def test_the_default_calculator_computes_every_metric():
    embeddings, labels = data()
    metric = update(MultiLabelRetrieval(normalize_embeddings=False), embeddings, labels)
    assert_equal(metric.compute(), MultiLabelAccuracyCalculator().get_accuracy(embeddings, labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_normalised_in_float32(dtype):
    embeddings, labels = data()
    embeddings = embeddings.to(dtype)
    metric = update(MultiLabelRetrieval(calculator()), embeddings, labels)
    assert_equal(metric.compute(), calculator().get_accuracy(normalize(embeddings.float()), labels))


def test_values_per_class_are_a_tensor_in_class_order():
    embeddings, labels = data()
    labels[:, 2] = False
    metric = update(MultiLabelRetrieval(calculator(return_per_class=True)), embeddings, labels)
    found = metric.compute()
    assert found["ndcg"].shape == (CLASSES,)
    assert found["ndcg"].isnan().tolist() == [False, False, True, False, False, False]
    assert (
        found["ndcg"].tolist()[:2]
        == calculator(return_per_class=True).get_accuracy(normalize(embeddings), labels)["ndcg"][:2]
    )


def test_without_relevant_references_the_value_is_nan():
    metric = MultiLabelRetrieval(MultiLabelAccuracyCalculator(include=("ndcg",)))
    metric.update(torch.randn(2, 4), torch.eye(2))
    assert metric.compute()["ndcg"].isnan()


def test_rows_with_the_same_index_count_once_and_in_order():
    embeddings, labels = data()
    order = torch.cat([torch.arange(ROWS - 1, -1, -1), torch.arange(7)])
    metric = update(MultiLabelRetrieval(calculator()), embeddings[order], labels[order], order, stop=len(order))
    assert_equal(metric.compute(), calculator().get_accuracy(normalize(embeddings), labels))


def test_a_call_is_checked_against_earlier_batches():
    embeddings, labels = data()
    metric = MultiLabelRetrieval(calculator())
    metric(embeddings[:20], labels[:20])
    wrong = embeddings[20:].clone()
    wrong[0] = torch.nan
    for batch in (
        (embeddings[20:], labels[20:], torch.arange(ROWS - 20)),
        (embeddings[20:, :4], labels[20:]),
        (embeddings[20:], 2 * labels[20:].long()),
        (wrong, labels[20:]),
    ):
        with pytest.raises(ValueError, match="must"):
            metric(*batch)
    metric(embeddings[20:], labels[20:])
    assert_equal(metric.compute(), calculator().get_accuracy(normalize(embeddings), labels))


def test_reset_forgets_all_rows():
    embeddings, labels = data()
    metric = update(MultiLabelRetrieval(calculator()), embeddings, labels)
    metric.compute()
    metric.reset()
    update(metric, embeddings[:20], labels[:20], stop=20)
    assert_equal(metric.compute(), calculator().get_accuracy(normalize(embeddings[:20]), labels[:20]))


def test_a_call_returns_the_values_of_the_batch():
    embeddings, labels = data()
    metric = MultiLabelRetrieval(calculator())
    first = metric(embeddings[:20], labels[:20])
    metric(embeddings[20:], labels[20:])
    assert_equal(first, calculator().get_accuracy(normalize(embeddings[:20]), labels[:20]))
    assert_equal(metric.compute(), calculator().get_accuracy(normalize(embeddings), labels))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_copies_keep_rows_and_settings(copied):
    embeddings, labels = data()
    metric = copied(update(MultiLabelRetrieval(calculator(gain="jaccard")), embeddings, labels, stop=20))
    update(metric, embeddings, labels, start=20)
    assert_equal(metric.compute(), calculator(gain="jaccard").get_accuracy(normalize(embeddings), labels))


def test_in_a_collection_names_can_have_a_prefix():
    embeddings, labels = data()
    metrics = MetricCollection(MultiLabelRetrieval(calculator(include=("ndcg", "recall_at_k"))), prefix="val_")
    update(metrics, embeddings, labels)
    expected = calculator().get_accuracy(normalize(embeddings), labels, include=("ndcg", "recall_at_k"))
    assert_equal(metrics.compute(), {f"val_{name}": value for name, value in expected.items()})


def test_states_follow_the_device(device):
    embeddings, labels = data()
    metric = update(MultiLabelRetrieval(calculator()), embeddings, labels, stop=20).to(device)
    update(metric, embeddings.to(device), labels, start=20)  # labels may stay on the CPU
    found = metric.compute()
    assert {value.device.type for value in found.values()} == {device.type}
    expected = calculator().get_accuracy(normalize(embeddings).to(device), labels.to(device))
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_no_graph_is_kept():
    embeddings, labels = data()
    metric = MultiLabelRetrieval()
    metric.update(embeddings.requires_grad_(), labels)
    assert not metric.embeddings[0].requires_grad


EMBEDDINGS, LABELS = data()
BAD = {
    "size": ((EMBEDDINGS[:, :5], LABELS), ValueError, "embedding size 8, got 5"),
    "classes": ((EMBEDDINGS, LABELS[:, :4]), ValueError, r"one column per class \(6\), got 4"),
    "rows": ((EMBEDDINGS, LABELS[1:]), ValueError, r"one row per embedding \(41\), got 40"),
    "values": ((EMBEDDINGS, LABELS * 2), ValueError, "labels must hold only 0 and 1, got 2"),
    "type": ((EMBEDDINGS.numpy(), LABELS), TypeError, "embeddings must be a torch.Tensor"),
    "some indices": ((EMBEDDINGS, LABELS, torch.arange(ROWS)), ValueError, "all batches or for none"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_changes_nothing(name):
    arguments, error, message = BAD[name]
    metric = update(MultiLabelRetrieval(calculator()), EMBEDDINGS, LABELS)
    expected = metric.compute()
    with pytest.raises(error, match=message):
        metric.update(*arguments)
    assert metric.compute() == expected
    assert len(metric.embeddings) == len(metric.labels) == 5


@pytest.mark.parametrize("indices", [torch.arange(3), torch.rand(ROWS), list(range(ROWS))])
def test_bad_indices(indices):
    metric = MultiLabelRetrieval()
    with pytest.raises(ValueError, match=r"one position per embedding \(41\)"):
        metric.update(EMBEDDINGS, LABELS, indices)
    assert metric.embeddings == []


def test_indices_are_missing_in_a_later_batch():
    metric = MultiLabelRetrieval()
    metric.update(EMBEDDINGS, LABELS, torch.arange(ROWS))
    with pytest.raises(ValueError, match="got none after batches with indices"):
        metric.update(EMBEDDINGS, LABELS)


def test_compute_needs_a_batch():
    with (
        pytest.warns(UserWarning, match="before the ``update`` method"),  # torchmetrics' own
        pytest.raises(ValueError, match="at least one batch"),
    ):
        MultiLabelRetrieval().compute()


def test_bad_settings():
    with pytest.raises(TypeError, match="accuracy_calculator must be MultiLabelAccuracyCalculator, got the class"):
        MultiLabelRetrieval(MultiLabelAccuracyCalculator)
    with pytest.raises(TypeError, match="normalize_embeddings"):
        MultiLabelRetrieval(normalize_embeddings="yes")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'MultiLabelRetrival'"):
        importlib.import_module("pml_macl.evaluation").MultiLabelRetrival  # noqa: B018  # reading it is the test


SCENARIOS = {  # rows of the two processes; the last scenario is what DistributedSampler does with an odd number of rows
    "halves": [{"stop": 20}, {"start": 20}],
    "uneven": [{"stop": 3}, {"start": 3}],
    "padded": [{"step": 2}, {"start": 1, "step": 2}],
}


def run_process(folder):
    """What one of the processes does."""
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    rank = torch.distributed.get_rank()
    embeddings, labels = data()
    found = {}
    for name, parts in SCENARIOS.items():
        metric = MultiLabelRetrieval(calculator())
        add = partial(update, metric, embeddings, labels)
        if name == "padded":
            add = partial(update, metric, embeddings, labels, torch.arange(ROWS))
            if rank == 1:
                add(stop=1)
        add(**parts[rank])
        found[name] = metric.compute()
        found[f"{name}, rows"] = sum(map(len, metric.embeddings))
    finish(found, folder)


def test_two_processes_equal_one(tmp_path):
    found = run_processes(__file__, tmp_path, 2)
    expected = calculator().get_accuracy(normalize(EMBEDDINGS), LABELS)
    for name in SCENARIOS:
        for rank in range(2):
            assert_equal(found[rank][name], expected)
    assert [of_rank["padded, rows"] for of_rank in found] == [21, 21]  # after compute, each process has its own rows
    assert [of_rank["uneven, rows"] for of_rank in found] == [3, 38]


if __name__ == "__main__":
    fork_processes(run_process, sys.argv[1])
