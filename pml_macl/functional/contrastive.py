"""Supervised contrastive losses of positive pairs, and their weighted mean."""

import torch
from torch import Tensor


def positive_pair_losses(logits: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Compute the negative log-likelihood of each positive among all positives and negatives of its anchor.

    .. math:: \ell_{ip} = -\log \frac{\exp(x_{ip})}{\sum_{k \in P(i) \cup N(i)} \exp(x_{ik})}

    P(i) are the positives of anchor i and N(i) its negatives. The formula is equation 2 of Khosla et al., Supervised
    Contrastive Learning, arXiv 2004.11362, before the mean over the positives.

    Args:
        logits: (N, M) similarities divided by temperatures. Half precision is computed in float32.
        positives: (N, M) booleans, True for the positives.
        negatives: (N, M) booleans, True for the negatives.

    Returns:
        The (K,) losses of the K positive pairs, their (K,) anchors and their (K,) positives, in row order.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 9.0]])
        >>> positive_pair_losses(logits, torch.tensor([[True, False, False]]), torch.tensor([[False, True, False]]))
        (tensor([0.6931]), tensor([0]), tensor([0]))
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    # With -inf instead of the smallest number, a row without candidates would have NaN gradients.
    candidates = logits.masked_fill(~(positives | negatives), torch.finfo(logits.dtype).min)
    anchors, indices = positives.nonzero(as_tuple=True)
    return -candidates.log_softmax(dim=1)[anchors, indices], anchors, indices


def weighted_anchor_mean(
    losses: Tensor, anchors: Tensor, weights: Tensor, anchor_weights: Tensor, divide_by_count: bool = False
) -> Tensor:
    r"""Compute the weighted mean of the losses of each anchor, then the weighted mean of the anchors.

    .. math::
        L = \sum_i a_i \sum_{p \in P(i)} \frac{w_{ip}}{\sum_{q \in P(i)} w_{iq}} \ell_{ip} \Big/ \sum_i a_i

    The sums over i include the anchors whose pair weights sum to more than 0.

    Args:
        losses: (K,) losses :math:`\ell_{ip}` of the positive pairs.
        anchors: (K,) anchor of each loss, in [0, N).
        weights: (K,) weights :math:`w_{ip}` of the pairs, >= 0.
        anchor_weights: (N,) weights :math:`a_i` of the anchors, >= 0.
        divide_by_count: divide the weights of an anchor by :math:`|P(i)|` instead of by their sum.

    Returns:
        () weighted mean; 0 if no anchor has a positive weight.

    Example:
        >>> losses, anchors = torch.tensor([1.0, 4.0, 2.0]), torch.tensor([0, 0, 2])
        >>> weighted_anchor_mean(losses, anchors, torch.tensor([2.0, 1.0, 1.0]), torch.ones(3))
        tensor(2.)
    """
    totals = torch.zeros_like(anchor_weights).index_add(
        0, anchors, torch.ones_like(weights) if divide_by_count else weights
    )
    used_anchors = anchor_weights * (totals > 0)
    coefficients = used_anchors[anchors] * weights / _or_one(totals)[anchors]
    return (coefficients * losses).sum() / _or_one(used_anchors.sum())


def _or_one(divisors: Tensor) -> Tensor:
    return torch.where(divisors > 0, divisors, 1)
