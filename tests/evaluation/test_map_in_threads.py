import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.evaluation.map_in_threads import map_in_threads


@pytest.fixture(params=[1, 3])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def in_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_results_come_in_order_and_each_worker_runs_torch_on_one_thread(num_threads):
    found = list(map_in_threads(lambda chunk: (chunk, torch.get_num_threads(), torch.is_grad_enabled()), range(20)))
    assert [chunk for chunk, _, _ in found] == list(range(20))
    if num_threads > 1:
        assert {(threads, has_grad) for _, threads, has_grad in found} == {(1, False)}
    assert torch.get_num_threads() == num_threads


def test_an_error_is_raised_and_the_number_of_threads_is_restored(num_threads):
    def fail(chunk):
        raise ValueError(f"chunk {chunk}")

    with pytest.raises(ValueError, match="chunk 0"):
        list(map_in_threads(fail, range(5)))
    assert torch.get_num_threads() == num_threads
    assert in_new_thread(torch.get_num_threads) == num_threads


def test_threads_that_start_in_the_meantime_keep_torchs_default_number(num_threads):
    all_work = threading.Barrier(num_threads)

    def look(chunk):
        all_work.wait(timeout=60)
        return torch.get_num_threads(), in_new_thread(torch.get_num_threads)

    expected = {(1 if num_threads > 1 else num_threads, num_threads)}
    assert set(map_in_threads(look, range(num_threads))) == expected


def test_two_evaluations_and_a_training_thread_keep_their_numbers_of_threads(num_threads, problem):
    started, stop = threading.Event(), threading.Event()

    def train():
        seen = set()
        weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        while not stop.is_set():
            (weights @ weights).square().sum().backward()
            seen.add(torch.get_num_threads())
            started.set()
        return seen

    def evaluate(delay):
        time.sleep(delay)
        calculator = MultiLabelAccuracyCalculator(query_batch_size=17)
        return [calculator.get_accuracy(*problem) for _ in range(5)], torch.get_num_threads()

    expected = MultiLabelAccuracyCalculator(query_batch_size=17).get_accuracy(*problem)
    with ThreadPoolExecutor(3) as pool:
        training = pool.submit(train)
        try:
            assert started.wait(timeout=60)
            evaluations = [pool.submit(evaluate, delay) for delay in (0, 0.02)]
            results = [evaluation.result() for evaluation in evaluations]
        finally:
            stop.set()
        assert training.result() == {num_threads}
    assert results == [([expected] * 5, num_threads)] * 2
    assert torch.get_num_threads() == num_threads
    assert in_new_thread(torch.get_num_threads) == num_threads


@pytest.fixture
def problem(generator):
    return torch.randn(300, 8, generator=generator), torch.rand(300, 9, generator=generator) < 0.3


def test_values_do_not_depend_on_the_number_of_threads(problem):
    embeddings, labels = problem
    embeddings.requires_grad_()
    before, values = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            with torch.inference_mode(number == 2):
                calculator = MultiLabelAccuracyCalculator(query_batch_size=17)
                values.append(calculator.get_accuracy(embeddings.detach(), labels))
    finally:
        torch.set_num_threads(before)
    assert values[0] == values[1] == values[2]
