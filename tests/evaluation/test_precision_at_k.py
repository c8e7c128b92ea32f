import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_precision

from pml_macl.evaluation import precision_at_k, r_precision, reciprocal_rank


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_torchmetrics(k, device, generator):
    relevance = torch.rand(20, 7, generator=generator) < 0.4
    expected = [retrieval_precision(torch.arange(7, 0, -1).float(), row, top_k=k).item() for row in relevance]
    assert precision_at_k(relevance.to(device), k).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [0, 3])
def test_k_beyond_the_ranks_is_named(k):
    with pytest.raises(ValueError, match=f"k must be 1 to 2, the number of ranks in relevance, got {k}"):
        precision_at_k(torch.ones(1, 2), k)


def test_r_precision_divides_by_the_ranks_given_where_they_are_fewer():
    relevance = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert r_precision(relevance, torch.tensor([2, 9])).tolist() == pytest.approx([1, 2 / 3])
    assert r_precision(relevance, torch.tensor([0, 1])).nan_to_num(-1).tolist() == [-1, 0]


def test_r_precision_of_no_ranks_at_all_is_nan():
    assert r_precision(torch.ones(2, 0), torch.tensor([0, 3])).isnan().all()


def test_reciprocal_rank_is_that_of_the_first_hit():
    relevance = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert reciprocal_rank(relevance).tolist() == pytest.approx([1 / 3, 1, 0])
