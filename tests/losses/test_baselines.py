"""Each baseline equals a loop over the formula of its paper, and PML's SupConLoss on one-hot labels."""

import pytest
import torch
from oracles import BASELINES, naive_baseline
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.distances import LpDistance

from pml_macl import losses
from pml_macl.miners import LabelOverlapMiner

FORMULAS = [getattr(losses, name) for name in BASELINES]


@pytest.mark.parametrize("loss_class", FORMULAS)
@pytest.mark.parametrize("with_references", [False, True])
def test_equals_a_loop_over_its_formula_in_value_and_gradient(loss_class, with_references, device):
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        num_rows, density = 1 + seed % 8, (0.15, 0.35, 0.6)[seed % 3]
        labels, ref_labels = (torch.rand(n, 4, generator=generator) < density for n in (num_rows, 9))
        embeddings, ref_emb = (torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in (num_rows, 9))
        inputs = (embeddings, labels, ref_emb, ref_labels) if with_references else (embeddings, labels)
        embeddings.requires_grad_()
        expected = naive_baseline(loss_class.__name__, 0.3, *inputs)
        first, labels, *references = (x.to(device) for x in inputs)
        loss = loss_class(temperature=0.3, engine=("auto", "reference")[seed % 2])(first, labels, None, *references)
        torch.testing.assert_close(loss.cpu(), expected, rtol=1e-10, atol=1e-13, msg=lambda m, s=seed: f"{s}: {m}")
        gradients = [torch.autograd.grad(x, embeddings)[0] for x in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12, msg=lambda m, s=seed: f"{s}: {m}")


@pytest.mark.parametrize("loss_class", FORMULAS)
def test_one_hot_labels_give_pml_supcon_loss(loss_class, generator):
    classes = torch.arange(24) % 4  # every anchor has a positive, otherwise the baselines differ
    embeddings = torch.randn(24, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    loss = loss_class(temperature=0.2)(embeddings, torch.nn.functional.one_hot(classes, 4))
    expected = pml_losses.SupConLoss(temperature=0.2)(embeddings, classes)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(x, embeddings)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss_class", FORMULAS)
def test_takes_a_distance_and_mined_pairs(loss_class, generator):
    labels = torch.rand(10, 4, generator=generator) < 0.4
    embeddings = torch.randn(10, 3, generator=generator)
    loss_fn = loss_class(temperature=0.5, distance=LpDistance())
    similarity = -LpDistance()(embeddings, embeddings) / 0.5
    torch.testing.assert_close(loss_fn.distance(embeddings), similarity)
    miner = LabelOverlapMiner(loss_fn.positive_threshold, loss_fn.negative_threshold)
    torch.testing.assert_close(loss_fn(embeddings, labels, miner(embeddings, labels)), loss_fn(embeddings, labels))


@pytest.mark.parametrize("loss_class", FORMULAS)
def test_without_positives_loss_and_gradient_are_zero(loss_class):
    embeddings = torch.randn(3, 2, requires_grad=True)
    loss = loss_class()(embeddings, torch.eye(3))
    loss.backward()
    assert loss == 0
    assert torch.equal(embeddings.grad, torch.zeros(3, 2))


def test_multi_sup_con_threshold():
    loss_fn = losses.MultiSupConLoss(threshold=0.3)
    assert (loss_fn.positive_threshold, loss_fn.negative_threshold) == (0.3, 1)
    with pytest.raises(ValueError, match="positive_threshold must be in"):
        losses.MultiSupConLoss(threshold=2)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        losses.MultiSupConLoss(temperature=0)
