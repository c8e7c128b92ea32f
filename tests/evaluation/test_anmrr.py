import pytest
import torch
from evaluation_oracles import naive_query

from pml_macl.evaluation import anmrr


def test_is_0_if_relevant_references_come_first_and_1_if_they_come_last(device):
    best, worst = torch.zeros(1, 40), torch.zeros(1, 40)
    best[0, :5] = 1
    worst[0, -5:] = 1
    found = [anmrr(relevance.to(device), torch.tensor([5], device=device), 5).item() for relevance in (best, worst)]
    assert found == pytest.approx([0, 1])


@pytest.mark.parametrize("max_relevant", [6, 20])
def test_equals_the_loop(generator, max_relevant, device):
    relevance = torch.rand(25, 30, generator=generator) < 0.1
    relevance[:, 7] = True
    total = relevance.sum(dim=1)
    sets = [[{0} if hit else {1} for hit in row] for row in relevance.tolist()]
    expected = [naive_query({0}, row, max_relevant, num_classes=2)["anmrr"] for row in sets]
    found = anmrr(relevance.to(device), total.to(device), torch.tensor(max_relevant, device=device))
    assert found.tolist() == pytest.approx(expected)
