"""The losses that only the benchmark has, against loops."""

import math

import pytest
import torch
from hyp2 import HyP2Loss
from msc import MSCLoss
from rince import RINCELoss
from torch.nn.functional import cosine_similarity


def jaccard(one, other):
    union = (one | other).sum().item()
    return (one & other).sum().item() / union if union else 0.0


def naive_rince(embeddings, labels, temperature):
    total = embeddings.sum() * 0
    size = len(embeddings)
    for rank, (low, high) in enumerate(((1.0, 2.0), (0.5, 1.0), (1e-9, 0.5)), 1):
        means = []
        for i in range(size):
            others = [j for j in range(size) if j != i]
            logit = {j: cosine_similarity(embeddings[i], embeddings[j], dim=0) / (rank * temperature) for j in others}
            positives = [j for j in others if low <= jaccard(labels[i], labels[j]) < high]
            negatives = [j for j in others if jaccard(labels[i], labels[j]) < low]
            terms = [
                -(logit[p].exp() / (logit[p].exp() + sum(logit[n].exp() for n in negatives))).log() for p in positives
            ]
            if terms:
                means.append(sum(terms) / len(terms))
        if means:
            total = total + sum(means) / len(means)
    return total


def naive_hyp2(embeddings, labels, proxies, margin):
    here, absent, apart = [], [], []
    for i in range(len(embeddings)):
        for c in range(len(proxies)):
            similarity = cosine_similarity(embeddings[i], proxies[c], dim=0)
            (here if labels[i, c] else absent).append(1 - similarity if labels[i, c] else (similarity - margin).relu())
        for j in range(len(embeddings)):
            if i != j and not (labels[i] & labels[j]).any():
                apart.append((cosine_similarity(embeddings[i], embeddings[j], dim=0) - margin).relu())
    return sum(sum(terms) / len(terms) for terms in (here, absent, apart) if terms)


def naive_msc(embeddings, labels, prototypes, temperature, beta):
    losses, size = [], len(embeddings)
    for i in range(size):
        others, own = [j for j in range(size) if j != i], labels[i].nonzero().flatten().tolist()
        near = {j: (cosine_similarity(embeddings[i], embeddings[j], dim=0) / temperature).exp() for j in others}
        to = [(cosine_similarity(embeddings[i], prototype, dim=0) / temperature).exp() for prototype in prototypes]
        total, terms = sum(to) + beta * sum(near.values()), []
        for label in own:
            weights = {j: 1 / (labels[i] | labels[j]).sum().item() for j in others if labels[j, label]}
            positives = sum(weight * (near[j] / total).log() for j, weight in weights.items())
            terms.append(-((to[label] / total).log() + positives) / (1 + sum(weights.values())))
        if own:
            losses.append(sum(terms) / len(own))
    return sum(losses) / len(losses)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(9, 5, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.rand(9, 4, generator=generator) < 0.4
    labels[0] = False
    labels[1] = labels[2]
    return embeddings, labels


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_rince_equals_its_loop(batch, temperature):
    embeddings, labels = batch
    found, expected = RINCELoss(temperature)(embeddings, labels), naive_rince(embeddings, labels, temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, embeddings)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_hyp2_equals_its_loop(batch, margin):
    embeddings, labels = batch
    loss_fn = HyP2Loss(margin, 4, 5).double()
    found, expected = loss_fn(embeddings, labels), naive_hyp2(embeddings, labels, loss_fn.proxies, margin)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    leaves = (embeddings, loss_fn.proxies)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss_fn", [RINCELoss(0.1), HyP2Loss(0.1, 4, 5), MSCLoss(0.1, 4, 5)])
def test_a_batch_without_positives_has_a_finite_gradient(loss_fn):
    embeddings = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = loss_fn(embeddings, torch.zeros(3, 4, dtype=torch.bool))
    loss.backward()
    assert math.isfinite(loss.item())
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize(("temperature", "beta"), [(0.1, 0.1), (0.7, 1.0)])
def test_msc_equals_its_loop(batch, temperature, beta):
    embeddings, labels = batch
    loss = MSCLoss(temperature, num_classes=4, size=5, beta=beta).double()
    found = loss(embeddings, labels)
    expected = naive_msc(embeddings, labels, loss.prototypes, temperature, beta)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    inputs = (embeddings, loss.prototypes)
    for one, other in zip(*(torch.autograd.grad(value, inputs) for value in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
