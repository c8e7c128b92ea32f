"""Confidence intervals of MACL's difference to the other methods: a paired bootstrap over test queries and seeds."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from retrieval_findings import METRICS
from retrieval_report import test_runs
from torch import Tensor
from training import read_runs, records_folder

from pml_macl.evaluation import average_precision, ndcg
from pml_macl.evaluation.functional.label_mean_average_precision_by_frequency import frequency_thirds
from pml_macl.labels import jaccard_similarity, shared_label_counts

RESAMPLES = 2000


def write_comparisons(folder: Path) -> None:
    """Write ``comparisons.jsonl``: the 95 % interval of MACL's difference to each other method, on each metric.

    Each resample draws seeds and queries with replacement, and uses the same ones for both methods. The references stay
    as they are.
    """
    lines = []
    for data, by_loss in test_runs(read_runs(folder)).items():
        drawn = {loss: resampled_means(folder, runs) for loss, runs in by_loss.items()}
        for macl in (loss for loss in drawn if loss.startswith("MACL")):
            for other in (loss for loss in drawn if not loss.startswith("MACL")):
                for metric in METRICS:
                    low, high = interval(drawn[macl][metric], drawn[other][metric])
                    lines.append(
                        {"data": data, "metric": metric, "macl": macl, "other": other, "low": low, "high": high}
                    )
    (folder / "comparisons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def resampled_means(folder: Path, runs: list[dict[str, Any]]) -> dict[str, Tensor]:
    """(runs, resamples) means of each metric, from the embeddings that the runs have stored."""
    by_run = []
    for run in sorted(runs, key=lambda run: run["seed"]):
        path = records_folder(folder, run) / "embeddings.npz"
        if not path.is_file():
            raise SystemExit(f"error: {path} does not exist; run the benchmark on this machine, which writes it")
        with np.load(path, allow_pickle=False) as file:
            embeddings, labels = torch.from_numpy(file["embeddings"]), torch.from_numpy(file["labels"])
        by_run.append(query_values(embeddings, labels, torch.tensor(run["counts"])))
    return {metric: torch.stack([resample(values[metric]) for values in by_run]) for metric in METRICS}


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


@cache
def draws(num_queries: int) -> Tensor:
    """(resamples, queries) how often each resample contains each query. Runs with the same queries share the draws."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(num_queries, (RESAMPLES, num_queries), generator=generator)
    return torch.zeros(drawn.shape, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones((), dtype=torch.float64).expand_as(drawn)
    )


def resample(values: Tensor) -> Tensor:
    """The mean of a metric for each resample of the queries.

    Args:
        values: (queries, 1), or (queries, classes), averaged over the queries of each class first; NaN does not count.
    """
    weights = draws(len(values))
    sums = weights @ values.double().nan_to_num()
    return (sums / (weights @ values.isfinite().double())).nanmean(dim=1)


def interval(ours: Tensor, theirs: Tensor) -> list[float]:
    """The 95 % interval of the difference of two (runs, resamples) means; each resample also draws runs."""
    chosen = torch.randint(len(ours), ours.shape, generator=torch.Generator().manual_seed(1))
    differences = (ours - theirs).gather(0, chosen).mean(dim=0)
    return np.quantile(differences.numpy(), (0.025, 0.975)).tolist()
