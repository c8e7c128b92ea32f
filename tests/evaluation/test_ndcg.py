import pytest
import torch
from sklearn.metrics import ndcg_score

from pml_macl.evaluation import ndcg


@pytest.mark.parametrize("exponential", [False, True])
def test_equals_sklearn(exponential, device, generator):
    gains = torch.randint(0, 5, (8, 9), generator=generator)
    gains[:, 4] = 1  # each query has a gain
    ideal = gains.sort(dim=1, descending=True).values
    for k in (1, 4, 9):
        expected = [ndcg_score([2**row - 1 if exponential else row], [range(9, 0, -1)], k=k) for row in gains.numpy()]
        found = ndcg(gains[:, :k].to(device), ideal[:, :k].to(device), exponential)
        assert found.tolist() == pytest.approx(expected, abs=1e-14)


def test_does_not_depend_on_the_scale_of_linear_gains(device, generator):
    gains = torch.rand(6, 9, generator=generator).to(device)
    ideal = gains.sort(dim=1, descending=True).values
    torch.testing.assert_close(ndcg(4 * gains, 4 * ideal), ndcg(gains, ideal))


def test_is_nan_without_gains():
    assert ndcg(torch.zeros(1, 3), torch.zeros(1, 3)).isnan().all()


def test_different_shapes_are_named_in_the_error():
    with pytest.raises(ValueError, match=r"ideal_gains must have the shape of gains, \(1, 3\), got \(1, 2\)"):
        ndcg(torch.ones(1, 3), torch.ones(1, 2))
