import pytest
import torch

from pml_macl.functional import positive_pair_losses, weighted_anchor_mean


def test_rows_without_candidates_have_zero_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    positives = torch.zeros(3, 4, dtype=torch.bool)
    positives[1, 2] = True
    losses, anchors, indices = positive_pair_losses(logits, positives, torch.zeros_like(positives))
    losses.sum().backward()
    assert (anchors.tolist(), indices.tolist(), losses.tolist()) == ([1], [2], [0.0])
    assert torch.equal(logits.grad, torch.zeros(3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits = torch.full((1, 300), 60, dtype=dtype)
    mask = torch.zeros(1, 300, dtype=torch.bool)
    mask[0, 0] = True
    losses, _, _ = positive_pair_losses(logits, mask, ~mask)
    assert losses.dtype is torch.float32
    assert losses.item() == pytest.approx(torch.tensor(300.0).log().item(), rel=1e-6)


def test_large_logits_do_not_overflow():
    logits = torch.tensor([[1e4, -1e4, 1e4]], requires_grad=True)
    losses, _, _ = positive_pair_losses(
        logits, torch.tensor([[True, True, False]]), torch.tensor([[False, False, True]])
    )
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.6931472, 20000.693])
    assert logits.grad.isfinite().all()


def test_divide_by_count():
    losses, anchors = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0, 0, 2])
    weights, anchor_weights = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 5.0, 3.0])
    found = weighted_anchor_mean(losses, anchors, weights, anchor_weights, divide_by_count=True)
    assert found.item() == pytest.approx((1 * (2 * 1 + 1 * 4) / 2 + 3 * 0.0) / (1 + 3))
    found = weighted_anchor_mean(losses, anchors, weights, anchor_weights)
    assert found.item() == pytest.approx((2 * 1 + 1 * 4) / 3)  # anchor 2 has no weight and is left out
