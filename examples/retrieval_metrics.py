"""The metrics that train.py and evaluate.py report."""

from typing import Any

import torch
from torch import Tensor

from pml_macl import LabelStatistics
from pml_macl.evaluation import MultiLabelAccuracyCalculator, average_precision

PRIMARY_METRIC = "label_mean_average_precision"
METRICS = (
    PRIMARY_METRIC,
    "label_mean_average_precision_tail",
    "ndcg",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "r_precision",
    "precision_at_1",
    "recall_at_k",
    "mean_reciprocal_rank",
)
NEED_R_RANKS = ("mean_average_precision_at_r", "r_precision")  # R: the number of relevant references of a query
AT_K = (1, 5, 10)


def make_calculator(
    statistics: LabelStatistics | None = None,
    k: int | None = None,
    device: torch.device | None = None,
    distributed: bool = False,
) -> MultiLabelAccuracyCalculator:
    """A calculator of ``METRICS``.

    Args:
        statistics: label counts that decide which labels are rare; None counts in the reference set.
        k: number of nearest references to rank, None for all. With k, average precision divides by min(R, k), where R
            is the number of relevant references, and the metrics that need more than k ranks are left out.
        device: where to compute; None uses the device of the embeddings.
        distributed: whether the processes of torch.distributed share the work.
    """
    at_k = tuple(number for number in AT_K if k is None or number <= k)
    include = tuple(name for name in METRICS if k is None or name not in NEED_R_RANKS)
    shared = ranking_settings(k, device, distributed)
    return MultiLabelAccuracyCalculator(include, label_statistics=statistics, at_k=at_k, **shared)


def measure(
    calculator: MultiLabelAccuracyCalculator,
    query: Tensor,
    query_labels: Tensor,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> dict[str, Any]:
    """The metrics of a calculator, two mAPs with a stricter relevance, and the average precision of each label.

    Args:
        calculator: what :func:`make_calculator` returned.
        query: (Q, D) embeddings.
        query_labels: (Q, C) multi-hot labels.
        reference: (M, D) embeddings; None compares each query with the other queries.
        reference_labels: (M, C) multi-hot labels of the references.
    """
    sets = (query, query_labels, reference, reference_labels)
    shared = ranking_settings(calculator.k, calculator.device, calculator.distributed)
    metrics = calculator.get_accuracy(*sets)
    for name, threshold in (("jaccard_50", 0.5), ("exact", 1.0)):
        graded = MultiLabelAccuracyCalculator(("mean_average_precision",), relevance_threshold=threshold, **shared)
        metrics[f"mean_average_precision_{name}"] = graded.get_accuracy(*sets)["mean_average_precision"]
    by_label = MultiLabelAccuracyCalculator((PRIMARY_METRIC,), return_per_class=True, **shared)
    return {**metrics, "label_average_precision": by_label.get_accuracy(*sets)[PRIMARY_METRIC]}


def measure_classifier(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """The average precision of each label, and the mean over the labels that occur.

    Args:
        logits: (N, C) outputs of a classifier, which order the images for each label.
        labels: (N, C) multi-hot labels.
    """
    order = logits.argsort(dim=0, descending=True, stable=True)
    by_label = average_precision(labels.gather(0, order).T, labels.sum(dim=0))
    return {"mean_average_precision": by_label.nanmean().item(), "label_average_precision": by_label.tolist()}


def ranking_settings(k: int | None, device: torch.device | None, distributed: bool) -> dict[str, Any]:
    """The arguments that all calculators of a measurement share."""
    denominator = "relevant" if k is None else "min"
    return {"k": k, "device": device, "ap_denominator": denominator, "distributed": distributed}
