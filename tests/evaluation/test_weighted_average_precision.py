import pytest
import torch

from pml_macl.evaluation import acg, average_precision, weighted_average_precision


def test_with_binary_gains_it_is_average_precision_by_hits(generator, device):
    relevance = (torch.rand(20, 9, generator=generator) < 0.4).to(device)
    expected = average_precision(relevance, relevance.sum(dim=1), "hits").nan_to_num()
    torch.testing.assert_close(weighted_average_precision(relevance, relevance), expected)


def test_is_the_mean_acg_at_the_hits(generator, device):
    gains = torch.randint(0, 4, (20, 9), generator=generator).to(device)
    acg_at = torch.stack([acg(gains[:, :j]) for j in range(1, 10)], dim=1)
    expected = [at[row > 0].mean().item() if row.any() else 0.0 for at, row in zip(acg_at, gains, strict=True)]
    assert weighted_average_precision(gains, gains > 0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 64, 1001, 50_000])
def test_equals_the_cumulative_sum_of_real_gains(k, generator, device):
    gains = torch.rand(3, k, dtype=torch.float64, generator=generator).to(device)
    relevance = (torch.rand(3, k, generator=generator) < 0.3).to(device)
    ranks = torch.arange(1, 1 + k, device=device)
    acg_at = (gains.cpu().cumsum(dim=1) / ranks.cpu()) * relevance.cpu()
    expected = acg_at.sum(dim=1) / relevance.cpu().sum(dim=1).clamp(min=1)
    torch.testing.assert_close(weighted_average_precision(gains, relevance).cpu(), expected, rtol=0, atol=1e-12)
