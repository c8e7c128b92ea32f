"""Masks of the positive and of the negative pairs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pml_macl.deferred_check import DeferredCheck


def positive_negative_masks(
    shared: Tensor,
    jaccard: Tensor | None,
    positive_threshold: float = 0.0,
    negative_threshold: float = 0.0,
    exclude_self: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Find the positives and negatives of each anchor by their shared labels.

    .. math::
        P(i) = \{j : |S_{ij}| \ge 1, J_{ij} \ge \text{positive_threshold}\}, \quad
        N(i) = \{j \notin P(i) : J_{ij} \le \text{negative_threshold}\}

    Pairs between the two thresholds are in neither mask and are ignored.

    Args:
        shared: (N, M) number of shared labels.
        jaccard: (N, M) Jaccard similarity. It may be None if ``positive_threshold`` is 0; then all pairs without a
            shared label are negatives.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1].
        exclude_self: leave the diagonal out of both masks, because the references are the anchors themselves.

    Returns:
        Two (N, M) boolean masks: positives and negatives.

    Raises:
        ValueError: ``positive_threshold`` is above 0 and ``jaccard`` is None.

    Example:
        >>> shared, jaccard = torch.tensor([[1, 2, 0]]), torch.tensor([[0.2, 1.0, 0.0]])
        >>> positive_negative_masks(shared, jaccard, positive_threshold=0.5)
        (tensor([[False,  True, False]]), tensor([[False, False,  True]]))
    """
    positives = positive_mask(shared, jaccard, positive_threshold)
    negatives = negative_mask(positives, jaccard, positive_threshold, negative_threshold)
    if exclude_self:
        positives.fill_diagonal_(False)
        negatives.fill_diagonal_(False)
    return positives, negatives


def positive_mask(shared: Tensor, jaccard: Tensor | None, positive_threshold: float) -> Tensor:
    """Return the mask of the positives, as in :func:`positive_negative_masks`."""
    if positive_threshold == 0:
        return shared >= 1
    if jaccard is None:
        raise ValueError("jaccard must be given for a positive_threshold above 0, got None; pass jaccard_similarity()")
    return jaccard >= positive_threshold  # the threshold is above 0, so the pair shares a label


def negative_mask(
    positives: Tensor, jaccard: Tensor | None, positive_threshold: float, negative_threshold: float
) -> Tensor:
    """Return the mask of the negatives, as in :func:`positive_negative_masks`."""
    if positive_threshold == 0 or negative_threshold == 1 or jaccard is None:
        return ~positives
    return ~positives & (jaccard <= negative_threshold)


def masks_from_indices(
    indices_tuple: Sequence[Tensor],
    num_rows: int,
    num_references: int,
    device: torch.device,
    deferred: DeferredCheck | None = None,
) -> tuple[Tensor, Tensor]:
    """Convert the pairs or triplets of a miner to masks.

    Args:
        indices_tuple: pairs (a1, p, a2, n) or triplets (a, p, n). Repeated pairs count once.
        num_rows: number of anchors N.
        num_references: number of references M.
        device: device of the masks.
        deferred: checks the masks without waiting for the GPU; None waits.

    Returns:
        Two (N, M) boolean masks: positives and negatives.

    Raises:
        ValueError: a pair is both a positive and a negative.
    """
    anchors, positives, *rest = (index.to(device).long() for index in indices_tuple)
    neg_anchors, negatives = rest if len(rest) == 2 else (anchors, rest[0])
    if device.type != "cpu":  # the check of the indices may be deferred, and an invalid index would abort the process
        anchors, neg_anchors = (index.clamp(0, num_rows - 1) for index in (anchors, neg_anchors))
        positives, negatives = (index.clamp(0, num_references - 1) for index in (positives, negatives))
    positive_mask = torch.zeros(num_rows, num_references, dtype=torch.bool, device=device)
    negative_mask = torch.zeros_like(positive_mask)
    positive_mask[anchors, positives] = True
    negative_mask[neg_anchors, negatives] = True
    contradict = (positive_mask & negative_mask).any()
    check = DeferredCheck() if deferred is None else deferred
    check(contradict, "indices_tuple must hold each pair either as a positive or as a negative, not as both")
    return positive_mask, negative_mask
