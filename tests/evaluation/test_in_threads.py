import pytest
import torch

from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.evaluation.in_threads import in_threads


@pytest.fixture(params=[1, 3])
def num_threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_of_one_thread_each(num_threads):
    found = list(in_threads(lambda chunk: (chunk, torch.get_num_threads(), torch.is_grad_enabled()), range(20)))
    assert [chunk for chunk, _, _ in found] == list(range(20))
    if num_threads > 1:
        assert {(threads, has_grad) for _, threads, has_grad in found} == {(1, False)}
    assert torch.get_num_threads() == num_threads


def test_an_error_comes_through_and_the_number_of_threads_comes_back(num_threads):
    def fail(chunk):
        raise ValueError(f"chunk {chunk}")

    with pytest.raises(ValueError, match="chunk 0"):
        list(in_threads(fail, range(5)))
    assert torch.get_num_threads() == num_threads


def test_the_values_do_not_depend_on_threads():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(300, 8, generator=generator).requires_grad_()
    labels = torch.rand(300, 9, generator=generator) < 0.3
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
