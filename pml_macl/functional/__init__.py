"""The formulas of the losses, distances and reducers as functions of tensors, without state and without PML."""

from pml_macl.functional.contrastive import positive_pair_losses, weighted_anchor_mean
from pml_macl.functional.pair_masks import masks_from_indices, positive_negative_masks
from pml_macl.functional.pair_temperatures import pairwise_temperatures
from pml_macl.functional.pair_weights import anchor_weights, mean_over_labels, pairwise_label_weights
from pml_macl.functional.weighted_jaccard import weighted_jaccard_similarity
from pml_macl.label_table import sum_over_shared_labels

__all__ = [
    "anchor_weights",
    "masks_from_indices",
    "mean_over_labels",
    "pairwise_label_weights",
    "pairwise_temperatures",
    "positive_negative_masks",
    "positive_pair_losses",
    "sum_over_shared_labels",
    "weighted_anchor_mean",
    "weighted_jaccard_similarity",
]
