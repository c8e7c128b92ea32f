"""Confidence intervals of MACL's difference to the best other loss: a paired bootstrap over test queries and seeds."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retrieval_findings import METRICS, best_pair
from retrieval_report import test_runs
from torch import Tensor
from training import read_runs, records_folder

from pml_macl.evaluation import average_precision, ndcg
from pml_macl.evaluation.functional.label_mean_average_precision_by_frequency import frequency_thirds
from pml_macl.labels import jaccard_similarity, shared_label_counts

RESAMPLES = 2000


def write_comparisons(folder: Path) -> None:
    """Write ``comparisons.jsonl``: the 95 % interval of the difference, for each data set and metric.

    Each resample draws seeds and queries with replacement, and uses the same ones for both losses. The references stay
    as they are.
    """
    runs = test_runs(read_runs(folder))
    lines = []
    for data, by_loss in runs.items():
        values: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for metric in METRICS:
            macl, other, _ = best_pair(by_loss, metric)
            for loss in (macl, other):
                if metric not in values[loss]:
                    values[loss] = stack_seeds(folder, by_loss[loss])
            drawn = bootstrap(values[macl][metric], values[other][metric])
            low, high = np.quantile(drawn, (0.025, 0.975))
            lines.append({"data": data, "metric": metric, "macl": macl, "other": other, "low": low, "high": high})
    (folder / "comparisons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def stack_seeds(folder: Path, runs: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Values of each metric for each seed and query: (seeds, queries, 1), or (seeds, queries, classes) per label."""
    by_seed = []
    for run in sorted(runs, key=lambda run: run["seed"]):
        path = records_folder(folder, run) / "embeddings.npz"
        if not path.is_file():
            raise SystemExit(f"error: {path} does not exist; run the benchmark on this machine, which writes it")
        with np.load(path, allow_pickle=False) as file:
            embeddings, labels = torch.from_numpy(file["embeddings"]), torch.from_numpy(file["labels"])
        by_seed.append(query_values(embeddings, labels, torch.tensor(run["counts"])))
    return {metric: torch.stack([values[metric] for values in by_seed]) for metric in by_seed[0]}


def query_values(embeddings: Tensor, labels: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Each metric before it is averaged over queries; each image is compared with all others. NaN if undefined."""
    distances = torch.cdist(embeddings.double(), embeddings.double()).fill_diagonal_(torch.inf)
    order = distances.argsort(dim=1, stable=True)[:, :-1]
    shared, jaccard = shared_label_counts(labels).double(), jaccard_similarity(labels, dtype=torch.float64)
    values = {}
    for name, threshold in (("map_any", 0.0), ("map_jaccard_50", 0.5), ("map_exact", 1.0)):
        relevance = ((shared >= 1) & (jaccard >= threshold)).gather(1, order)
        values[name] = average_precision(relevance, relevance.sum(dim=1))[:, None]
    for name, gains, k in (("ndcg", shared, len(labels)), ("ndcg_jaccard_20", jaccard, 20)):
        ideal = gains.gather(1, order).sort(dim=1, descending=True).values
        value = ndcg(gains.gather(1, order)[:, :k], ideal[:, :k])
        values[name] = value.masked_fill(ideal[:, 0] == 0, torch.nan)[:, None]
    by_label = []
    for carries in labels.T.bool():
        relevance = carries[order]
        value = average_precision(relevance, relevance.sum(dim=1))
        by_label.append(value.masked_fill(~carries, torch.nan))
    values["label_map"] = torch.stack(by_label, dim=1)
    has_value = values["label_map"].isfinite().any(dim=0)
    is_tail = frequency_thirds(counts, has_value) == 0
    values["label_map_tail"] = values["label_map"][:, is_tail]
    return values


def bootstrap(ours: Tensor, theirs: Tensor) -> list[float]:
    """Difference of the two means for each resample of seeds and queries."""
    generator = torch.Generator().manual_seed(0)
    num_seeds, num_queries = ours.shape[:2]
    differences = []
    for _ in range(RESAMPLES):
        queries = torch.randint(num_queries, (num_queries,), generator=generator)
        seeds = torch.randint(num_seeds, (num_seeds,), generator=generator)
        parts = [(values[seeds][:, queries].nanmean(dim=1).nanmean(dim=1)).mean() for values in (ours, theirs)]
        differences.append((parts[0] - parts[1]).item())
    return differences
