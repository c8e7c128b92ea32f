"""Retrieval metrics for multi-hot labels, and the accuracy calculator that computes them."""

from pml_macl.evaluation.average_precision import average_precision
from pml_macl.evaluation.average_precision_at_r import average_precision_at_r
from pml_macl.evaluation.multi_label_accuracy_calculator import MultiLabelAccuracyCalculator
from pml_macl.evaluation.ndcg import ndcg
from pml_macl.evaluation.precision_at_k import precision_at_k
from pml_macl.evaluation.r_precision import r_precision
from pml_macl.evaluation.reciprocal_rank import reciprocal_rank

__all__ = [
    "MultiLabelAccuracyCalculator",
    "average_precision",
    "average_precision_at_r",
    "ndcg",
    "precision_at_k",
    "r_precision",
    "reciprocal_rank",
]
