"""The Jaccard similarity with one weight per label."""

import torch
from torch import Tensor

from pml_macl.label_table import sum_over_shared_labels
from pml_macl.labels import check_labels, shared_label_counts


def weighted_jaccard_similarity(labels: Tensor, ref_labels: Tensor, label_weights: Tensor) -> Tensor:
    r"""Compute the Jaccard similarity of each pair of label sets, with one weight per label.

    .. math:: J^v_{ij} = \sum_{l \in Y_i \cap Y_j} v_l \Big/ \sum_{l \in Y_i \cup Y_j} v_l

    This is Ioffe's weighted Jaccard similarity (Improved Consistent Sampling, Weighted Minhash and L1 Sketching, ICDM
    2010) of the sets' weight vectors. With equal weights, it is :func:`~pml_macl.jaccard_similarity`. With
    :math:`v_l = (n_{max} / n_l)^\rho`, a shared rare label counts more than a shared frequent one. An empty label set
    has the similarity 0 to every set.

    Args:
        labels: (N, C) multi-hot label sets.
        ref_labels: (M, C) multi-hot label sets.
        label_weights: (C,) floating-point weight of each label, > 0, for example
            ``statistics.inverse_frequency() ** rho``.

    Returns:
        (N, M) similarities in [0, 1], in the dtype of ``label_weights``.

    Raises:
        TypeError, ValueError: labels are not multi-hot, or their number of classes is not that of ``label_weights``.

    Example:
        >>> labels, ref_labels = torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0]])
        >>> weighted_jaccard_similarity(labels, ref_labels, torch.tensor([1.0, 3.0, 2.0]))
        tensor([[0.2500, 0.5000, 1.0000]])
    """
    labels = check_labels(labels, num_classes=len(label_weights))
    ref_labels = check_labels(ref_labels, num_classes=len(label_weights), name="ref_labels")
    weights = label_weights.to(labels.device)
    shared = sum_over_shared_labels(labels, ref_labels, weights)
    union = (labels * weights).sum(dim=1)[:, None] + (ref_labels * weights).sum(dim=1) - shared
    similarity = torch.where(shared > 0, shared / union, 0.0).clamp_(max=1)  # rounding can exceed 1
    counts = shared_label_counts(labels, ref_labels)  # exact, unlike the sums of weights
    are_equal = (counts > 0) & (counts == labels.sum(dim=1)[:, None]) & (counts == ref_labels.sum(dim=1))
    return similarity.masked_fill_(are_equal, 1)
