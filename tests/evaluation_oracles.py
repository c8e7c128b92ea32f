"""Random retrieval problems, and retrieval metrics as plain Python loops that follow the definitions."""

import math

import torch

NAN = float("nan")


def naive_order(query, reference, ref_includes_query):
    """For each query, return the other references' indices, nearest first, and by index at equal distances."""
    orders = []
    for i, q in enumerate(query.double().tolist()):
        distances = [sum((a - b) ** 2 for a, b in zip(q, r, strict=True)) for r in reference.double().tolist()]
        others = [j for j in range(len(distances)) if not (ref_includes_query and i == j)]
        orders.append(sorted(others, key=lambda j, distances=distances: (distances[j], j)))
    return orders


def naive_values(query, query_labels, reference, reference_labels, ref_includes_query, **settings):
    """For each query, return a dictionary of its metrics; ``label_ap`` has the average precision of each label."""
    query_sets = [set(row.nonzero().flatten().tolist()) for row in query_labels]
    reference_sets = [set(row.nonzero().flatten().tolist()) for row in reference_labels]
    orders = naive_order(query, reference, ref_includes_query)
    ranked = [[reference_sets[j] for j in order] for order in orders]
    threshold = settings.get("relevance_threshold", 0.0)
    most = max(sum(is_relevant(q, r, threshold) for r in row) for q, row in zip(query_sets, ranked, strict=True))
    settings.setdefault("num_classes", query_labels.shape[1])
    return [naive_query(q, row, most, **settings) for q, row in zip(query_sets, ranked, strict=True)]


def jaccard(a, b):
    return len(a & b) / len(a | b) if a & b else 0.0


def is_relevant(a, b, threshold):
    return bool(a & b) and jaccard(a, b) >= threshold


def naive_query(
    own,
    ranked,
    most_relevant,
    k=None,
    relevance_threshold=0.0,
    gain="shared",
    exponential_gain=False,
    ap_denominator="relevant",
    num_classes=0,
    at_k=(),
):
    relevance = [is_relevant(own, other, relevance_threshold) for other in ranked]
    total = sum(relevance)
    if k == "max_bin_count":
        k = max(most_relevant, 1)
    k = len(ranked) if k is None else min(k, len(ranked))
    label_ap = {}
    for label in own:
        carries = [label in other for other in ranked]
        label_ap[label] = naive_ap(carries[:k], sum(carries), ap_denominator)
    if total == 0:
        return {"label_ap": label_ap}

    gains = [len(own & other) if gain == "shared" else jaccard(own, other) for other in ranked]
    top, top_gains, first_r = ranked[:k], gains[:k], relevance[: min(total, k)]
    hit_ranks = [j for j in range(1, k + 1) if relevance[j - 1]]
    mean_gain = [sum(gains[:j]) / j for j in range(1, k + 1)]
    deepest = min(4 * total, 2 * most_relevant)
    ranks = [j if j <= deepest else 1.25 * deepest for j in range(1, len(ranked) + 1) if relevance[j - 1]]

    def dcg(values):
        return sum((2**g - 1 if exponential_gain else g) / math.log2(1 + j) for j, g in enumerate(values, start=1))

    def mean(values):
        return sum(values) / k

    values_at_k = {}
    for count in at_k:
        found = sum(relevance[:count])
        values_at_k[f"recall_at_{count}"] = 1.0 if found else 0.0
        values_at_k[f"precision_at_{count}"] = found / count
        values_at_k[f"coverage_at_{count}"] = found / total

    return {
        **values_at_k,
        "label_ap": label_ap,
        "precision_at_1": float(relevance[0]),
        "r_precision": sum(first_r) / len(first_r),
        "mean_average_precision": naive_ap(relevance[:k], total, ap_denominator),
        "mean_average_precision_at_r": naive_ap(first_r, total, "relevant"),
        "mean_reciprocal_rank": 1 / hit_ranks[0] if hit_ranks else 0.0,
        "ndcg": dcg(top_gains) / dcg(sorted(gains, reverse=True)[:k]),
        "acg": mean_gain[-1],
        "weighted_average_precision": sum(mean_gain[j - 1] for j in hit_ranks) / max(len(hit_ranks), 1),
        "label_precision": mean(len(own & other) / len(other) if other else 0.0 for other in top),
        "label_recall": mean(len(own & other) / len(own) for other in top),
        "label_f1": mean(2 * len(own & other) / (len(own) + len(other)) for other in top),
        "hamming_loss": mean(len(own ^ other) / num_classes for other in top),
        "anmrr": (sum(ranks) / total - 0.5 - total / 2) / (1.25 * deepest - 0.5 - total / 2),
    }


def naive_ap(relevance, total, denominator):
    if total == 0:
        return NAN
    precisions = [sum(relevance[:j]) / j for j in range(1, len(relevance) + 1) if relevance[j - 1]]
    divisor = {"relevant": total, "hits": len(precisions), "min": min(total, len(relevance))}[denominator]
    return sum(precisions) / max(divisor, 1)


def naive_mean(values, name, counts):
    """Return what the calculator reports: the mean over queries, or for label mAP the mean over the labels' means."""
    if name == "label_mean_average_precision":
        return nan_mean(naive_label_means(values).values())
    if name.startswith("label_mean_average_precision_"):
        return naive_by_frequency(naive_label_means(values), counts)[name.rpartition("_")[2]]
    return nan_mean(value.get(name, NAN) for value in values)


def naive_by_frequency(label_means, counts):
    """Return the label mAP of the rarest, the middle and the most frequent third of the labels."""
    labels = sorted((label for label in label_means if not math.isnan(label_means[label])), key=lambda m: counts[m])
    thirds = {"tail": [], "middle": [], "head": []}
    for place, label in enumerate(labels):
        thirds[("tail", "middle", "head")[int(3 * (place + 0.5) / len(labels))]].append(label_means[label])
    return {name: nan_mean(third) for name, third in thirds.items()}


def naive_label_means(values):
    """Return the mean average precision of each label that a query carries."""
    labels = sorted({label for value in values for label in value["label_ap"]})
    return {
        label: nan_mean(value["label_ap"][label] for value in values if label in value["label_ap"]) for label in labels
    }


def nan_mean(values):
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else NAN


def random_problem(seed, num_classes=5):
    """Draw embeddings on a small grid, so that many distances are equal, with empty label sets and unused labels."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    num_queries, num_references = int(integers(1, 12, 1)), int(integers(1, 15, 1))
    query, reference = integers(-2, 3, num_queries, 2).float(), integers(-2, 3, num_references, 2).float()
    density = torch.rand(num_classes, generator=generator) * 0.8
    density[integers(0, num_classes, 1)] = 0  # a label that nobody carries
    query_labels = torch.rand(num_queries, num_classes, generator=generator) < density
    reference_labels = torch.rand(num_references, num_classes, generator=generator) < density
    ref_includes_query = bool(integers(0, 2, 1))
    if ref_includes_query:
        reference = torch.cat([query, reference])
        reference_labels = torch.cat([query_labels, reference_labels])
    return query, query_labels, reference, reference_labels, ref_includes_query
