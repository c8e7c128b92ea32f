"""The formulas as naive float64 loops, which share no code with the package."""

import math

import torch


def counts_of(labels):
    """Label co-occurrence counts as nested lists: n[l][m]."""
    num_classes = labels.shape[1]
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    return [[sum(1 for row in rows if {k, m} <= row) for m in range(num_classes)] for k in range(num_classes)]


def naive_rarity(counts):
    """Log-rarity of each label. A label that never occurs counts as 1."""
    seen = [max(counts[k][k], 1) for k in range(len(counts))]
    high, low = max(seen), min(seen)
    if high == low:
        return [0.0] * len(seen)
    return [math.log(high / n) / math.log(high / low) for n in seen]


def naive_pair_weight(first, second, counts, power=1.0, level="cooccurrence", overlap_power=0.0):
    shared = sorted(first & second)
    union = first | second
    jaccard = len(shared) / len(union) if union else 0.0
    high = max(1, max(counts[k][k] for k in range(len(counts))))
    total = 0.0
    for x, k in enumerate(shared):
        for m in shared[x:]:
            if level == "label" and k != m:
                continue
            total += high / max(counts[k][m], 1)
    return jaccard**overlap_power * total**power


def naive_anchor_weight(row, counts, anchor_power=0.0):
    high = max(1, max(counts[k][k] for k in range(len(counts))))
    mean = sum(high / max(counts[k][k], 1) for k in row) / len(row) if row else 0.0
    return mean**anchor_power


def naive_temperature(
    first, second, rarity, temperature=0.2, overlap_scale=1.0, rarity_scale=0.3, min_temperature=0.01
):
    union = first | second
    jaccard = len(first & second) / len(union) if union else 0.0
    mean_rarity = sum(rarity[k] for k in first) / len(first) if first else 0.0
    return max(temperature * (1 + overlap_scale * jaccard) * (1 - rarity_scale * mean_rarity), min_temperature)


def naive_pairs(rows, ref_rows, positive_threshold=0.0, negative_threshold=0.0, exclude_self=True):
    """The set of positives and the set of negatives of each anchor."""
    positives, negatives = [], []
    for i, first in enumerate(rows):
        positives.append(set())
        negatives.append(set())
        for j, second in enumerate(ref_rows):
            if exclude_self and i == j:
                continue
            union = first | second
            jaccard = len(first & second) / len(union) if union else 0.0
            if first & second and jaccard >= positive_threshold:
                positives[i].add(j)
            elif jaccard <= negative_threshold:
                negatives[i].add(j)
    return positives, negatives


def pairs_of(indices_tuple, num_rows):
    """The set of positives and the set of negatives of each anchor, from pairs or triplets of a miner."""
    positives, negatives = [set() for _ in range(num_rows)], [set() for _ in range(num_rows)]
    if len(indices_tuple) == 3:
        indices_tuple = (indices_tuple[0], indices_tuple[1], indices_tuple[0], indices_tuple[2])
    a1, p, a2, n = (index.tolist() for index in indices_tuple)
    for anchor, other in zip(a1, p, strict=True):
        positives[anchor].add(other)
    for anchor, other in zip(a2, n, strict=True):
        negatives[anchor].add(other)
    return positives, negatives


def naive_macl(
    embeddings,
    labels,
    ref_emb=None,
    ref_labels=None,
    indices_tuple=None,
    counts=None,
    positive_threshold=0.0,
    negative_threshold=0.0,
    weights=None,
    temperatures=None,
):
    """MACL as loops over pairs. ``weights`` may contain ``anchor_power``. By default the batch gives the counts."""
    weights = dict(weights or {})
    anchor_power = weights.pop("anchor_power", 0.0)
    temperatures = temperatures or {}
    counts = counts_of(labels) if counts is None else counts
    rarity = naive_rarity(counts)
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    ref_rows = rows if ref_labels is None else [set(row.nonzero().flatten().tolist()) for row in ref_labels]
    others = embeddings if ref_emb is None else ref_emb
    if indices_tuple is None:
        positives, negatives = naive_pairs(rows, ref_rows, positive_threshold, negative_threshold, ref_emb is None)
    else:
        positives, negatives = pairs_of(indices_tuple, len(rows))

    numerator = (embeddings * 0).sum()
    denominator = 0.0
    for i, row in enumerate(rows):
        pair_weights = {p: naive_pair_weight(row, ref_rows[p], counts, **weights) for p in positives[i]}
        if sum(pair_weights.values()) == 0:
            continue
        logits = {}
        for k in positives[i] | negatives[i]:
            cosine = embeddings[i] @ others[k] / (embeddings[i].norm() * others[k].norm())
            logits[k] = cosine / naive_temperature(row, ref_rows[k], rarity, **temperatures)
        log_sum = torch.logsumexp(torch.stack(list(logits.values())), dim=0)
        inner = sum(w * (log_sum - logits[p]) for p, w in pair_weights.items()) / sum(pair_weights.values())
        anchor = naive_anchor_weight(row, counts, anchor_power)
        numerator = numerator + anchor * inner
        denominator += anchor
    return numerator / denominator if denominator else numerator


def jaccard(first, second):
    return len(first & second) / len(first | second) if first | second else 0.0


def mean(values):
    return sum(values) / len(values) if values else None


# Each function takes the label set of anchor i, the label sets of the other images as {p: set}, and the loss of a pair
# as a function of p. It returns terms; the mean of the terms of all anchors is the loss.


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


BASELINES = {
    "SupConAnyLoss": sup_con_any,
    "SupConExactLoss": sup_con_exact,
    "MultiSupConLoss": multi_sup_con,
    "JaccardSupConLoss": jaccard_sup_con,
    "MulSupConLoss": mul_sup_con,
    "SimilarityDissimilarityLoss": similarity_dissimilarity,
}


def naive_baseline(name, temperature, embeddings, labels, ref_emb=None, ref_labels=None, own=None):
    """A baseline as loops over the formula of its paper. ``own`` is the index of each anchor among the references."""
    own = range(len(labels)) if ref_emb is None else own
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    ref_rows = rows if ref_labels is None else [set(row.nonzero().flatten().tolist()) for row in ref_labels]
    references = embeddings if ref_emb is None else ref_emb
    terms = []
    for i, anchor in enumerate(rows):
        others = {p: s for p, s in enumerate(ref_rows) if own is None or p != own[i]}
        logits = {
            k: embeddings[i] @ references[k] / embeddings[i].norm() / references[k].norm() / temperature for k in others
        }
        if not others:
            continue
        log_sum = torch.logsumexp(torch.stack(list(logits.values())), dim=0)
        terms += BASELINES[name](anchor, others, lambda p, x=logits, y=log_sum: y - x[p])
    terms = [term for term in terms if term is not None]
    return sum(terms) / len(terms) if terms else (embeddings * 0).sum()
