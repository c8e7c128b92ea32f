"""The contrastive loss on label sets in one pass over row chunks, without an (N, M) matrix kept for backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pml_macl.functional.pair_weights import label_factors

_ELEMENTS_AT_ONCE = 2**18  # of a chunk's matrices, which then stay in a processor's cache


@dataclass(frozen=True)
class PairTerms:
    """What the weights, temperatures and masks of all pairs are made of; see the functions of the reference path.

    Attributes:
        labels: (N, C) boolean label sets of the anchors.
        ref_labels: (M, C) boolean label sets of the references.
        anchor_temperatures: (N,) temperature of each anchor with a reference that shares nothing.
        anchor_weights: (N,) weights of the anchors.
        inverse_counts: as for :func:`pairwise_label_weights`.
        power: power of the frequencies.
        overlap_power: power of the Jaccard similarity in the weights.
        divide_by_count: as for :func:`weighted_anchor_mean`.
        overlap_scale: as for :func:`pairwise_temperatures`.
        min_temperature: as for :func:`pairwise_temperatures`.
        positive_threshold: as for :func:`positive_negative_masks`.
        negative_threshold: as for :func:`positive_negative_masks`.
        exclude_self: the references are the anchors.
        masks: (N, M) positives and negatives that a miner has chosen, in place of the thresholds.
    """

    labels: Tensor
    ref_labels: Tensor
    anchor_temperatures: Tensor
    anchor_weights: Tensor
    inverse_counts: Tensor
    power: float
    overlap_power: float
    divide_by_count: bool
    overlap_scale: float
    min_temperature: float
    positive_threshold: float
    negative_threshold: float
    exclude_self: bool
    masks: tuple[Tensor, Tensor] | None


def fused_contrastive_loss(query: Tensor, reference: Tensor, terms: PairTerms) -> Tensor:
    """Weighted mean of the losses of all positive pairs, with an analytic gradient.

    The same value and gradient as :func:`positive_pair_losses` and :func:`weighted_anchor_mean` on the logits, masks
    and weights of the reference path, where each step stands by itself.

    Args:
        query: (N, D) embeddings of the anchors, whose products are the similarities; float32 or float64.
        reference: (M, D) embeddings of the references.
        terms: labels and settings of the pairs.

    Returns:
        () loss; 0 where no anchor has a weight.
    """
    loss: Tensor = _FusedContrastiveLoss.apply(query, reference, terms)
    return loss


class _FusedContrastiveLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, where all that it needs is at hand."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, reference: Tensor, terms: PairTerms) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            loss, *gradients = _loss_and_gradients(query, reference, terms, ctx.needs_input_grad[:2])
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        # torch's once_differentiable would let a constant grad_output pass and give wrong second derivatives.
        if torch.is_grad_enabled():
            raise RuntimeError('the fused engine has no second derivatives; use engine="reference" with create_graph')
        gradients = [None if gradient is None else gradient * grad_output for gradient in ctx.saved_tensors]
        return gradients[0], gradients[1], None


def _loss_and_gradients(
    query: Tensor, reference: Tensor, terms: PairTerms, needs_gradient: tuple[bool, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    num_rows, num_references = len(query), len(reference)
    labels, ref_labels = terms.labels.to(query), terms.ref_labels.to(query)
    sizes, ref_sizes = labels.sum(dim=1), ref_labels.sum(dim=1)
    factors = label_factors(terms.labels, terms.ref_labels, terms.inverse_counts.to(query)) if terms.power else None
    total, total_weight = query.new_zeros(()), query.new_zeros(())
    query_gradient = torch.zeros_like(query) if needs_gradient[0] else None
    reference_gradient = torch.zeros_like(reference) if needs_gradient[1] else None
    rows_at_once = max(1, _ELEMENTS_AT_ONCE // max(1, num_references))
    for start in range(0, num_rows if num_references else 0, rows_at_once):
        rows = slice(start, min(start + rows_at_once, num_rows))
        shared = labels[rows] @ ref_labels.T
        union = (sizes[rows, None] + ref_sizes).sub_(shared).clamp_(min=1)
        jaccard = torch.div(shared, union, out=union)
        positives, left_out = _masks(terms, rows, shared, jaccard)
        weights = _weights(terms, rows, factors, jaccard).mul_(positives)
        sums = positives.sum(dim=1, dtype=query.dtype) if terms.divide_by_count else weights.sum(dim=1)
        used = terms.anchor_weights[rows] * (sums > 0)
        weights.mul_((used / torch.where(sums > 0, sums, 1))[:, None])

        temperatures = jaccard.mul_(terms.overlap_scale).add_(1).mul_(terms.anchor_temperatures[rows, None])
        temperatures.clamp_(min=terms.min_temperature)
        logits = (query[rows] @ reference.T).div_(temperatures)
        if left_out is not None:
            logits.masked_fill_(left_out, torch.finfo(logits.dtype).min)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        row_weights = weights.sum(dim=1)
        total -= (weights * logits).sum()
        likelihoods = logits.exp_()
        denominators = likelihoods.sum(dim=1)
        total += (row_weights * denominators.log()).sum()
        total_weight += used.sum()
        if query_gradient is None and reference_gradient is None:
            continue
        gradient = likelihoods.mul_((row_weights / denominators)[:, None]).sub_(weights).div_(temperatures)
        if query_gradient is not None:
            query_gradient[rows] = gradient @ reference
        if reference_gradient is not None:
            reference_gradient.addmm_(gradient.T, query[rows])
    scale = 1 / torch.where(total_weight > 0, total_weight, 1)
    gradients = (None if g is None else g.mul_(scale) for g in (query_gradient, reference_gradient))
    return total * scale, *gradients  # type: ignore[return-value]  # two gradients, as many as the names above


def _masks(terms: PairTerms, rows: slice, shared: Tensor, jaccard: Tensor) -> tuple[Tensor, Tensor | None]:
    """Positives of a chunk, and what is neither positive nor negative; None where that is nothing."""
    if terms.masks is not None:
        positives, negatives = (mask[rows] for mask in terms.masks)
        return positives, ~(positives | negatives)
    positives = shared >= 1
    left_out = None
    if terms.positive_threshold > 0:
        positives &= jaccard >= terms.positive_threshold
    if terms.negative_threshold < 1 and (terms.positive_threshold > 0 or terms.negative_threshold > 0):
        left_out = ~positives & (jaccard > terms.negative_threshold)
    if terms.exclude_self:
        own = torch.arange(rows.start, rows.stop, device=shared.device)[:, None]
        positives.scatter_(1, own, False)
        left_out = torch.zeros_like(positives) if left_out is None else left_out
        left_out.scatter_(1, own, True)
    return positives, left_out


def _weights(terms: PairTerms, rows: slice, factors: tuple[Tensor, Tensor] | None, jaccard: Tensor) -> Tensor:
    """Weights of a chunk's pairs, in a tensor of their own."""
    if factors is None:
        weights = torch.ones_like(jaccard)
    else:
        weights = factors[0][rows] @ factors[1].T
        if terms.power != 1:
            weights.pow_(terms.power)
    if terms.overlap_power == 1:
        weights.mul_(jaccard)
    elif terms.overlap_power != 0:
        weights.mul_(jaccard**terms.overlap_power)
    return weights
