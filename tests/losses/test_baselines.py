"""Each baseline against a loop over its paper's formula; on one-hot labels they are PML's SupConLoss."""

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.distances import LpDistance

from pml_macl import losses
from pml_macl.miners import LabelOverlapMiner


def jaccard(first, second):
    return len(first & second) / len(first | second) if first | second else 0.0


def mean(values):
    return sum(values) / len(values) if values else None


# Each takes the label set i, those of the others as {p: set}, and -log p_ip as a function of p; it returns the terms
# whose mean over all anchors is the loss.


def sup_con_any(anchor, others, loss):
    return [mean([loss(p) for p, labels in others.items() if labels & anchor])]


def sup_con_exact(anchor, others, loss):
    return [mean([loss(p) for p, labels in others.items() if labels and labels == anchor])]


def multi_sup_con(anchor, others, loss):
    return [mean([jaccard(anchor, s) * loss(p) for p, s in others.items() if s & anchor and jaccard(anchor, s) >= 0.5])]


def jaccard_sup_con(anchor, others, loss):
    total = sum(jaccard(anchor, labels) for labels in others.values())
    return [sum(jaccard(anchor, labels) * loss(p) for p, labels in others.items()) / total if total else None]


def mul_sup_con(anchor, others, loss):
    return [mean([loss(p) for p, labels in others.items() if label in labels]) for label in anchor]


def similarity_dissimilarity(anchor, others, loss):
    return [mean([len(anchor & s) / len(s) / (1 + len(anchor - s)) * loss(p) for p, s in others.items() if anchor & s])]


FORMULAS = {
    losses.SupConAnyLoss: sup_con_any,
    losses.SupConExactLoss: sup_con_exact,
    losses.MultiSupConLoss: multi_sup_con,
    losses.JaccardSupConLoss: jaccard_sup_con,
    losses.MulSupConLoss: mul_sup_con,
    losses.SimilarityDissimilarityLoss: similarity_dissimilarity,
}


def naive(formula, temperature, embeddings, labels, ref_emb=None, ref_labels=None):
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    ref_rows = rows if ref_labels is None else [set(row.nonzero().flatten().tolist()) for row in ref_labels]
    references = embeddings if ref_emb is None else ref_emb
    terms = []
    for i, anchor in enumerate(rows):
        others = {p: s for p, s in enumerate(ref_rows) if ref_emb is not None or p != i}
        logits = {
            k: embeddings[i] @ references[k] / embeddings[i].norm() / references[k].norm() / temperature for k in others
        }
        if not others:
            continue
        log_sum = torch.logsumexp(torch.stack(list(logits.values())), dim=0)
        terms += formula(anchor, others, lambda p, x=logits, y=log_sum: y - x[p])
    terms = [term for term in terms if term is not None]
    return sum(terms) / len(terms) if terms else (embeddings * 0).sum()


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
        expected = naive(FORMULAS[loss_class], 0.3, *inputs)
        first, labels, *references = (x.to(device) for x in inputs)
        loss = loss_class(temperature=0.3, engine=("auto", "reference")[seed % 2])(first, labels, None, *references)
        torch.testing.assert_close(loss.cpu(), expected, rtol=1e-10, atol=1e-13, msg=lambda m, s=seed: f"{s}: {m}")
        gradients = [torch.autograd.grad(x, embeddings)[0] for x in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12, msg=lambda m, s=seed: f"{s}: {m}")


@pytest.mark.parametrize("loss_class", FORMULAS)
def test_one_hot_labels_give_pml_supcon_loss(loss_class, generator):
    classes = torch.arange(24) % 4  # MulSupCon and the others differ where an anchor has no positive: none here
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
def test_nothing_to_pull_together_is_a_differentiable_zero(loss_class):
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
