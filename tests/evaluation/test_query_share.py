"""Several processes that share the queries, against one process.

The tests start this file, which becomes four processes. Two of them, then all four, work through CASES and FAULTS.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from evaluation_oracles import random_problem
from processes import TIMEOUT, finish, fork_processes, run_processes
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.inference import CustomKNN
from torch.utils.data import TensorDataset

from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

WORLDS = (2, 4)
# Settings of the calculator. A chunk has at least one query, so that large chunks leave some processes without queries.
CASES = {
    "unequal shares": {"query_batch_size": 2, "at_k": (1, 3)},
    "empty shares": {"query_batch_size": 1000},
    "automatic": {},
    "per class": {"query_batch_size": 3, "return_per_class": True, "k": 4, "include": ("ndcg", "label_precision")},
    "averages of averages": {"query_batch_size": 3, "avg_of_avgs": True},
    "knn_func": {"query_batch_size": 3, "k": 3, "knn_func": CustomKNN(LpDistance(normalize_embeddings=False))},
}
SEEDS = (1, 2, 5, 8)


def evaluate(settings, distributed):
    """Values of the calculator on several problems."""
    calculator = MultiLabelAccuracyCalculator(**settings, distributed=distributed)
    return [calculator.get_accuracy(*random_problem(seed)) for seed in SEEDS]


def make_data(size):
    """Data set of normalised embeddings, which the tester passes through a model without parameters."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(size, 4, generator=generator) < 0.4
    return TensorDataset(torch.randn(size, 3, dtype=torch.float64, generator=generator), labels)


def run_tester(size, distributed):
    """Values that PML's tester records, with a reference set that begins with the queries."""
    tester = MultiLabelEmbeddingSpaceTester(
        accuracy_calculator=MultiLabelAccuracyCalculator(query_batch_size=2, distributed=distributed),
        batch_size=4,
        dataloader_num_workers=0,
        data_device=torch.device("cpu"),
        dtype=torch.float64,
    )
    splits = {"val": make_data(size), "train": make_data(9)}
    return tester.test(splits, 1, torch.nn.Identity(), splits_to_eval=[("val", ["val", "train"])])["val"]


def fault(what):
    """The error of a process when the last process passes another input."""
    embeddings, labels = make_data(8).tensors
    is_last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
    if is_last and what == "NaN":
        embeddings[0] = torch.nan
    if is_last and what == "labels":
        labels = ~labels
    if is_last and what == "size":
        embeddings, labels = embeddings[1:], labels[1:]
    try:
        return str(MultiLabelAccuracyCalculator(distributed=True).get_accuracy(embeddings, labels))
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def different_threads():
    """Values if each process has another number of threads, hence another default size of a chunk."""
    torch.set_num_threads(1 + torch.distributed.get_rank())
    return evaluate({"memory_budget": 30_000}, distributed=True)


def run(folder):
    """Work through everything as one process of each world."""
    rank, found = int(os.environ["RANK"]), {}
    for world in WORLDS:
        if rank >= world:
            continue
        store = torch.distributed.FileStore(str(folder / f"store of {world}"), world)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=TIMEOUT)
        for name, settings in CASES.items():
            found[world, name] = evaluate(settings, distributed=True)
        for size in (7, 2):
            found[world, "tester", size] = dict(run_tester(size, distributed=True))
        found[world, "threads"] = different_threads()
        for what in ("NaN", "labels", "size"):
            found[world, what] = fault(what)
        if world != WORLDS[-1]:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    finish(found, folder)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What the processes found, by the number of processes."""
    found = run_processes(__file__, tmp_path_factory.mktemp("processes"), max(WORLDS))
    return {
        world: [{key[1:]: value for key, value in own.items() if key[0] == world} for own in found[:world]]
        for world in WORLDS
    }


@pytest.fixture(params=WORLDS, ids=lambda world: f"{world} processes")
def group(request, processes):
    return processes[request.param]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("name", CASES)
def test_each_process_gets_the_values_of_one_process(group, name):
    for expected, *found in zip(evaluate(CASES[name], False), *(own[name,] for own in group), strict=True):
        for values in found:
            assert_equal(values, expected)


@pytest.mark.parametrize("size", [7, 2], ids=["unequal shares", "empty shares"])
def test_the_tester_shares_images_and_queries(group, size):
    for found in group:
        assert_equal(found["tester", size], run_tester(size, False))


def test_processes_may_have_different_numbers_of_threads(group):
    for own in group:
        for found, expected in zip(own["threads",], evaluate({}, False), strict=True):
            assert_equal(found, expected)


def test_a_wrong_input_in_one_process_ends_all(group):
    *others, last = [own["NaN",] for own in group]
    assert last.startswith("ValueError: query must be finite, got NaN or infinity in 1 of 8 rows")
    for error in others:
        assert error == f"RuntimeError: process {len(others)} of torch.distributed refused its input: {last[12:]}"


@pytest.mark.parametrize("what", ["labels", "size"])
def test_different_inputs_are_refused(group, what):
    for own in group:
        assert own[what,].startswith("ValueError: with distributed=True, all processes must pass the same")
        assert f"those of process {len(group) - 1} differ" in own[what,]


def test_without_a_process_group_all_queries_are_ranked():
    for found, expected in zip(evaluate({}, True), evaluate({}, False), strict=True):
        assert_equal(found, expected)


if __name__ == "__main__":
    fork_processes(run, Path(sys.argv[1]))
