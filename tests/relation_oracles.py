"""Places as labels: relations of them, and naive float64 loops over their pairs."""

import torch

from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss
from pml_macl.reducers import FrequencyWeightedReducer

SCALE = 100.0  # metres


def within_100_m(places, ref_places):
    return torch.cdist(places, ref_places) <= SCALE


def closeness(places, ref_places):
    return (1 - torch.cdist(places, ref_places) / SCALE).clamp(min=0)


def graded_macl(**kwargs):
    distance = TemperatureScheduledSimilarity(0.2, overlap_scale=0.7, rarity_scale=0, distance=kwargs.pop("base", None))
    reducer = FrequencyWeightedReducer(power=0, overlap_power=1.5)
    return MACLLoss(relation=closeness, distance=distance, reducer=reducer, **kwargs)


def naive_graded_macl(embeddings, places, others=None, other_places=None, own=None, low=0.0, high=0.0):
    """The loss of ``graded_macl`` as loops; ``own`` is the reference that each anchor leaves out."""
    if others is None:
        others, other_places, own = embeddings, places, range(len(embeddings))
    terms = []
    for i, place in enumerate(places):
        weights, logits = {}, {}
        for j, other in enumerate(other_places):
            if own is not None and own[i] == j:
                continue
            value = max(0.0, 1 - float((place - other).square().sum().sqrt()) / SCALE)
            positive = value > 0 and value >= low
            if positive:
                weights[j] = value**1.5
            if positive or value <= high or low == 0:
                cosine = embeddings[i] @ others[j] / (embeddings[i].norm() * others[j].norm())
                logits[j] = cosine / (0.2 * (1 + 0.7 * value))
        if weights:
            log_sum = torch.logsumexp(torch.stack(list(logits.values())), dim=0)
            total = sum(weights.values())
            terms.append(sum(w / total * (log_sum - logits[p]) for p, w in weights.items()))
    return torch.stack(terms).mean()


def value_and_gradient(function, embeddings):
    embeddings = embeddings.clone().requires_grad_()
    loss = function(embeddings)
    return loss.detach(), *torch.autograd.grad(loss, embeddings)


def loops_of(places, ref_places, excluded):
    positives, negatives = set(), set()
    for i, place in enumerate(places.tolist()):
        for j, other in enumerate(ref_places.tolist()):
            near = (place[0] - other[0]) ** 2 + (place[1] - other[1]) ** 2 <= SCALE**2
            if not excluded or i != j:
                (positives if near else negatives).add((i, j))
    return positives, negatives
