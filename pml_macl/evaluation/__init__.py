"""Retrieval metrics for multi-hot labels, and the calculator that computes them from embeddings."""

import importlib
from typing import TYPE_CHECKING, Any

from pml_macl.evaluation.functional.acg import acg
from pml_macl.evaluation.functional.anmrr import anmrr
from pml_macl.evaluation.functional.average_precision import average_precision
from pml_macl.evaluation.functional.average_precision_at_r import average_precision_at_r
from pml_macl.evaluation.functional.coverage_at_k import coverage_at_k
from pml_macl.evaluation.functional.label_mean_average_precision_by_frequency import (
    label_mean_average_precision_by_frequency,
)
from pml_macl.evaluation.functional.label_retrieval import hamming_loss, label_f1, label_precision, label_recall
from pml_macl.evaluation.functional.ndcg import ndcg
from pml_macl.evaluation.functional.precision_at_k import precision_at_k
from pml_macl.evaluation.functional.r_precision import r_precision
from pml_macl.evaluation.functional.recall_at_k import recall_at_k
from pml_macl.evaluation.functional.reciprocal_rank import reciprocal_rank
from pml_macl.evaluation.functional.weighted_average_precision import weighted_average_precision
from pml_macl.evaluation.multi_label_accuracy_calculator import MultiLabelAccuracyCalculator

if TYPE_CHECKING:
    from pml_macl.evaluation.multi_label_retrieval import MultiLabelRetrieval

__all__ = [
    "MultiLabelAccuracyCalculator",
    "MultiLabelRetrieval",
    "acg",
    "anmrr",
    "average_precision",
    "average_precision_at_r",
    "coverage_at_k",
    "hamming_loss",
    "label_f1",
    "label_mean_average_precision_by_frequency",
    "label_precision",
    "label_recall",
    "ndcg",
    "precision_at_k",
    "r_precision",
    "recall_at_k",
    "reciprocal_rank",
    "weighted_average_precision",
]


def __getattr__(name: str) -> Any:
    if name != "MultiLabelRetrieval":  # imports torchmetrics, which is slow
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.multi_label_retrieval").MultiLabelRetrieval


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
