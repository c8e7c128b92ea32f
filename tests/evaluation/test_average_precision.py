import pytest
import torch
from evaluation_oracles import naive_ap
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import retrieval_average_precision

from pml_macl.evaluation import average_precision, average_precision_at_r


@pytest.fixture
def relevance(generator):
    return torch.rand(30, 12, generator=generator) < 0.4


def test_equals_sklearn_over_the_full_ranking(relevance, device):
    relevance = relevance[relevance.any(dim=1)]
    scores = torch.arange(12, 0, -1)
    expected = [average_precision_score(row, scores) for row in relevance]
    found = average_precision(relevance.to(device), relevance.sum(dim=1).to(device))
    assert found.tolist() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("denominator", ["relevant", "hits", "min"])
def test_each_denominator_equals_the_loop(relevance, k, denominator, device):
    total = relevance.sum(dim=1)
    total[0] = 0
    relevance[0] = False
    expected = [naive_ap(row[:k], n, denominator) for row, n in zip(relevance.tolist(), total.tolist(), strict=True)]
    found = average_precision(relevance[:, :k].to(device), total.to(device), denominator)
    assert found.tolist() == pytest.approx(expected, abs=1e-14, nan_ok=True)


@pytest.mark.parametrize("k", [3, 12])
def test_hits_is_torchmetrics_at_k(relevance, k):
    scores = torch.arange(12, 0, -1).float()
    expected = [retrieval_average_precision(scores, row, top_k=k).item() for row in relevance]
    found = average_precision(relevance[:, :k], relevance.sum(dim=1), "hits").nan_to_num()
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_at_r_counts_only_the_first_r_ranks():
    relevance = torch.tensor([[0, 1, 1, 1]])
    assert average_precision_at_r(relevance, torch.tensor([2])).tolist() == [0.25]
    assert average_precision_at_r(relevance, torch.tensor([9])).tolist() == pytest.approx([(1 / 2 + 2 / 3 + 3 / 4) / 9])


def test_an_unknown_denominator_is_named_in_the_error():
    with pytest.raises(ValueError, match="denominator must be one of 'relevant', 'hits', 'min', got 'all'"):
        average_precision(torch.ones(1, 1), torch.ones(1), "all")
