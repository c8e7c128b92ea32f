"""Which pairs are positive and which are negative."""

from collections.abc import Sequence

import torch
from torch import Tensor


def positive_negative_masks(
    shared: Tensor,
    jaccard: Tensor,
    positive_threshold: float = 0.0,
    negative_threshold: float = 0.0,
    exclude_self: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Positives and negatives of each anchor by label overlap.

    .. math::
        P(i) = \{j : |S_{ij}| \ge 1, J_{ij} \ge \text{positive_threshold}\}, \quad
        N(i) = \{j \notin P(i) : J_{ij} \le \text{negative_threshold}\}

    Pairs in between are in neither.

    Args:
        shared: (N, M) number of shared labels.
        jaccard: (N, M) Jaccard similarity.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1].
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1].
        exclude_self: the references are the anchors themselves, so the diagonal is in neither.

    Returns:
        Two (N, M) boolean masks: positives, negatives.

    Example:
        >>> shared, jaccard = torch.tensor([[1, 2, 0]]), torch.tensor([[0.2, 1.0, 0.0]])
        >>> positive_negative_masks(shared, jaccard, positive_threshold=0.5)
        (tensor([[False,  True, False]]), tensor([[False, False,  True]]))
    """
    positives = (shared >= 1) & (jaccard >= positive_threshold)
    negatives = ~positives & (jaccard <= negative_threshold)
    if exclude_self:
        positives.fill_diagonal_(False)
        negatives.fill_diagonal_(False)
    return positives, negatives


def masks_from_indices(
    indices_tuple: Sequence[Tensor], num_rows: int, num_references: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Positives and negatives that a miner has chosen.

    Args:
        indices_tuple: pairs (a1, p, a2, n) or triplets (a, p, n); a pair counts once however often it stands there.
        num_rows: N, number of anchors.
        num_references: M, number of references.
        device: where the masks are made.

    Returns:
        Two (N, M) boolean masks: positives, negatives.

    Raises:
        ValueError: a pair is given as a positive and as a negative; on a GPU a device-side assertion.
    """
    anchors, positives, *rest = (index.to(device) for index in indices_tuple)
    neg_anchors, negatives = rest if len(rest) == 2 else (anchors, rest[0])
    positive_mask = torch.zeros(num_rows, num_references, dtype=torch.bool, device=device)
    negative_mask = torch.zeros_like(positive_mask)
    positive_mask[anchors.long(), positives.long()] = True
    negative_mask[neg_anchors.long(), negatives.long()] = True
    contradict = (positive_mask & negative_mask).any()
    if contradict.is_cuda:  # never waited for
        torch._assert_async(~contradict, "indices_tuple holds a pair both as a positive and as a negative")
    elif contradict:
        raise ValueError("indices_tuple holds a pair both as a positive and as a negative; each pair is one of them")
    return positive_mask, negative_mask
