"""The Jaccard similarity with weights from label frequencies, alone and in losses."""

import copy

import pytest
import torch

from pml_macl import FrequencyWeightedJaccard, LabelStatistics, jaccard_similarity
from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory
from pml_macl.miners import LabelOverlapMiner


@pytest.fixture
def labels(generator):
    return torch.rand(24, 5, generator=generator) < torch.tensor([0.8, 0.5, 0.3, 0.2, 0.1])


def similarity(labels, counts, power):
    """By a loop over pairs."""
    weights = [(max(counts) / max(count, 1)) ** power for count in counts]
    rows = [{column for column, has in enumerate(row) if has} for row in labels.tolist()]
    return [[sum(weights[c] for c in a & b) / (sum(weights[c] for c in a | b) or 1) for b in rows] for a in rows]


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_equals_the_loop(labels, power):
    statistics = LabelStatistics.from_labels(labels)
    found = FrequencyWeightedJaccard(statistics, power)(labels, labels)
    expected = similarity(labels, statistics.counts.tolist(), power)
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-6)


def test_power_0_gives_the_jaccard_similarity_and_the_same_loss(labels, generator):
    statistics = LabelStatistics.from_labels(labels)
    relation = FrequencyWeightedJaccard(statistics, power=0)
    assert torch.equal(relation(labels, labels), jaccard_similarity(labels))
    embeddings = torch.randn(24, 8, generator=generator)
    plain, related = MACLLoss(label_statistics=statistics), MACLLoss(label_statistics=statistics, relation=relation)
    assert torch.allclose(related(embeddings, labels), plain(embeddings, labels), rtol=1e-6)


def test_the_loss_follows_its_temperatures(labels, generator):
    """MACL in float64 by a loop, with the weighted similarity in the temperatures."""
    statistics = LabelStatistics.from_labels(labels)
    loss_fn = MACLLoss(label_statistics=statistics, relation=FrequencyWeightedJaccard(statistics))
    loss_fn.distance.rarity_scale = 0.0
    embeddings = torch.randn(24, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    found = loss_fn(embeddings, labels)

    counts, together = statistics.counts.tolist(), statistics.cooccurrence.tolist()
    jaccard = similarity(labels, counts, 1.0)
    cosine = torch.nn.functional.normalize(embeddings) @ torch.nn.functional.normalize(embeddings).T
    rows = [[column for column, has in enumerate(row) if has] for row in labels.tolist()]
    losses = []
    for i, row in enumerate(rows):
        logits = torch.stack([cosine[i, j] / (0.2 * (1 + jaccard[i][j])) for j in range(24)])
        others = [j for j in range(24) if j != i]
        weights = {}
        for j in others:
            shared = [c for c in row if c in rows[j]]
            if shared:
                weights[j] = sum(max(counts) / together[a][b] for a in shared for b in shared if a <= b)
        if weights:
            denominator = torch.logsumexp(logits[others], 0)
            losses.append(sum(w * (denominator - logits[j]) for j, w in weights.items()) / sum(weights.values()))
    expected = torch.stack(losses).mean()
    assert torch.allclose(found, expected, rtol=1e-6)  # the relation computes in float32
    (gradient,) = torch.autograd.grad(found, embeddings, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, embeddings)
    assert torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-7)


def test_with_learnt_statistics_a_memory_and_a_miner(labels, generator):
    loss_fn = MACLLoss(num_classes=5)
    loss_fn.relation = FrequencyWeightedJaccard(loss_fn.label_statistics)
    memory = MultiLabelCrossBatchMemory(loss_fn, 8, 5, memory_size=48)
    embeddings = torch.randn(24, 8, generator=generator, requires_grad=True)
    memory(embeddings, labels)
    assert loss_fn.relation.label_statistics.counts.tolist() == labels.sum(0).tolist()
    memory(embeddings, labels).backward()
    assert embeddings.grad.isfinite().all()
    miner = LabelOverlapMiner(positive_threshold=0.5, relation=loss_fn.relation)
    anchors, positives, _, _ = miner(embeddings.detach(), labels)
    values = loss_fn.relation(labels, labels)
    expected = (values >= 0.5) & ~torch.eye(24, dtype=torch.bool)
    assert set(zip(anchors.tolist(), positives.tolist(), strict=True)) == set(map(tuple, expected.nonzero().tolist()))


def test_it_is_copied_and_saved_with_the_loss(labels):
    statistics = LabelStatistics.from_labels(labels)
    loss_fn = MACLLoss(label_statistics=statistics, relation=FrequencyWeightedJaccard(statistics, power=0.5))
    assert "relation.label_statistics.cooccurrence" in loss_fn.state_dict()
    copied = copy.deepcopy(loss_fn)
    assert copied.relation.label_statistics is copied.label_statistics
    assert "power=0.5" in repr(loss_fn)


def test_bad_arguments(labels):
    with pytest.raises(TypeError, match="label_statistics must be given, got None"):
        FrequencyWeightedJaccard(None)
    with pytest.raises(TypeError, match="label_statistics must be a LabelStatistics, got int"):
        FrequencyWeightedJaccard(3)
    with pytest.raises(ValueError, match="power"):
        FrequencyWeightedJaccard(LabelStatistics.from_labels(labels), power=-1)
    with pytest.raises(ValueError, match=r"one column per class \(5\)"):
        FrequencyWeightedJaccard(LabelStatistics.from_labels(labels))(labels[:, :3], labels[:, :3])
