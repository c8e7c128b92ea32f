"""The contrastive loss on label sets in one pass over row chunks, without an (N, M) matrix kept for backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pml_macl.functional.shared_sums import SharedSums

_ELEMENTS_AT_ONCE = 2**20  # of a chunk's matrices: enough work for all threads, little memory,
_ROWS_AT_ONCE = 32  # but at least so many rows: products of fewer are slow


@dataclass(frozen=True)
class PairTerms:
    r"""What the weights, temperatures and masks of all pairs are made of; see the functions of the reference path.

    Attributes:
        labels: (N, C) boolean label sets of the anchors.
        ref_labels: (M, C) boolean label sets of the references.
        anchor_temperatures: (N,) temperature of each anchor with a reference that shares nothing.
        anchor_weights: (N,) weights of the anchors.
        divide_by_count: as for :func:`weighted_anchor_mean`.
        overlap_scale: as for :func:`pairwise_temperatures`.
        min_temperature: as for :func:`pairwise_temperatures`.
        positive_threshold: as for :func:`positive_negative_masks`.
        negative_threshold: as for :func:`positive_negative_masks`.
        exclude_self: the references are the anchors.
        masks: (N, M) positives and negatives that a miner has chosen, in place of the thresholds.
        inverse_counts: as for :func:`pairwise_label_weights`; not needed where ``power`` is 0.
        power: power of the frequencies.
        overlap_power: power of the Jaccard similarity in the weights.
        dissimilarity: multiply the weights by :math:`|S_{ij}| / (|Y_j| (1 + |Y_i \setminus Y_j|))`.
    """

    labels: Tensor
    ref_labels: Tensor
    anchor_temperatures: Tensor
    anchor_weights: Tensor
    divide_by_count: bool
    overlap_scale: float
    min_temperature: float
    positive_threshold: float
    negative_threshold: float
    exclude_self: bool
    masks: tuple[Tensor, Tensor] | None = None
    inverse_counts: Tensor | None = None
    power: float = 0.0
    overlap_power: float = 0.0
    dissimilarity: bool = False


def fused_contrastive_loss(query: Tensor, reference: Tensor | None, terms: PairTerms) -> Tensor:
    """Weighted mean of the losses of all positive pairs, with an analytic gradient.

    The same value and gradient as :func:`positive_pair_losses` and :func:`weighted_anchor_mean` on the logits, masks
    and weights of the reference path, where each step stands by itself.

    Args:
        query: (N, D) embeddings of the anchors, whose products are the similarities; float32 or float64.
        reference: (M, D) embeddings of the references; None is ``query``.
        terms: labels and settings of the pairs.

    Returns:
        () loss; 0 where no anchor has a weight.
    """
    loss: Tensor = _FusedContrastiveLoss.apply(query, reference, terms)
    return loss


class _FusedContrastiveLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, where all that it needs is at hand."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, reference: Tensor | None, terms: PairTerms) -> Tensor:
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
    query: Tensor, ref_emb: Tensor | None, terms: PairTerms, needs_gradient: tuple[bool, ...]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    reference = query if ref_emb is None else ref_emb
    num_rows, num_references = len(query), len(reference)
    pairs = _Pairs(query, reference, terms)
    total, total_weight = query.new_zeros(()), query.new_zeros(())
    rows_at_once = max(_ROWS_AT_ONCE, _ELEMENTS_AT_ONCE // max(1, num_references))
    # Where one chunk holds each row as anchor and as reference, one product gives both parts of its gradient.
    is_joint = ref_emb is None and num_rows <= rows_at_once
    query_gradient = torch.zeros_like(query) if needs_gradient[0] else None
    needs_reference = needs_gradient[ref_emb is not None] and not is_joint
    reference_gradient = torch.zeros_like(reference) if needs_reference else None
    for start in range(0, num_rows if num_references else 0, rows_at_once):
        rows = slice(start, min(start + rows_at_once, num_rows))
        losses, used, scale, descent = pairs.chunk(rows)
        total += losses.sum()
        total_weight += used.sum()
        scale = scale / pairs.anchor_temperatures[rows]
        if is_joint:
            descent = descent.mul_(scale) + descent.T
            scale = torch.ones_like(scale)
        if query_gradient is not None:
            query_gradient[rows] = (descent @ reference).mul_(-scale)
        if reference_gradient is not None:
            reference_gradient.addmm_(descent.T, query[rows] * -scale)
        del descent  # before the next chunk needs its memory
    if ref_emb is None and query_gradient is not None and reference_gradient is not None:
        query_gradient, reference_gradient = query_gradient.add_(reference_gradient), None
    divisor = torch.where(total_weight > 0, total_weight, 1)
    gradients = (None if g is None else g.div_(divisor) for g in (query_gradient, reference_gradient))
    return total / divisor, *gradients  # type: ignore[return-value]  # two gradients, as many as the names above


class _Pairs:
    """What the losses of a chunk of anchors are computed from."""

    def __init__(self, query: Tensor, reference: Tensor, terms: PairTerms) -> None:
        self.query, self.reference, self.terms = query, reference, terms
        labels, ref_labels = terms.labels, terms.ref_labels
        # An empty set shares nothing, so its size does not matter, but 0 / 0 would.
        self.sizes = labels.sum(dim=1, keepdim=True, dtype=query.dtype).clamp(min=1)
        self.ref_sizes = ref_labels.sum(dim=1, dtype=query.dtype)
        self.counts = SharedSums(labels, ref_labels, query.new_ones(labels.shape[1]))
        self.rarities = None
        if terms.power and terms.inverse_counts is not None:
            self.rarities = SharedSums(labels, ref_labels, terms.inverse_counts.to(query))
        # Below this bound a temperature is the smallest one whatever the overlap, and the anchor's may be 0.
        bound = terms.min_temperature / max(1.0, 1 + terms.overlap_scale)
        self.anchor_temperatures = terms.anchor_temperatures.clamp(min=bound)[:, None]

    def chunk(self, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses and weights of n anchors, (n,), and what their gradient is made of.

        Returns:
            The (n,) losses times the anchors' weights, the (n,) weights, the (n, 1) factor and the (n, M) descent:
            their product is the negative gradient in the logits, times the pair's share of the temperature.
        """
        weights, jaccard, left_out, counts = self._weights(rows)
        row_weights = weights.sum(dim=1)
        sums = row_weights if counts is None else counts
        used = self.terms.anchor_weights[rows] * (sums > 0)
        scale = (used / torch.where(sums > 0, sums, 1))[:, None]
        row_weights = row_weights[:, None]

        # What depends on the anchor alone is taken out of the temperatures, to where it costs a row and not a matrix.
        anchor_temperatures = self.anchor_temperatures[rows]
        temperatures = torch.add(jaccard.new_ones(()), jaccard, alpha=self.terms.overlap_scale, out=jaccard)
        torch.maximum(temperatures, self.terms.min_temperature / anchor_temperatures, out=temperatures)
        logits = ((self.query[rows] / anchor_temperatures) @ self.reference.T).div_(temperatures)
        if left_out is not None:
            logits.masked_fill_(left_out, torch.finfo(logits.dtype).min)
        if self.terms.exclude_self:
            logits.scatter_(1, _own(rows, logits), torch.finfo(logits.dtype).min)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        weighted = torch.linalg.vecdot(weights, logits)[:, None]
        likelihoods = logits.exp_()
        denominators = likelihoods.sum(dim=1, keepdim=True)
        losses = scale * (row_weights * denominators.log() - weighted)
        descent = weights.addcmul_(likelihoods, row_weights / denominators, value=-1).div_(temperatures)
        return losses[:, 0], used, scale, descent

    def _weights(self, rows: slice) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Weights and Jaccard similarities, what is neither positive nor negative, and the positives of each row.

        The last two are None where nothing is left out and where the weights are not divided by a count.
        """
        terms = self.terms
        shared = self.counts[rows]
        union = (self.sizes[rows] + self.ref_sizes).sub_(shared)
        jaccard = torch.div(shared, union, out=union)
        positives, left_out = _masks(terms, rows, shared, jaccard)
        weights = torch.ones_like(jaccard) if self.rarities is None else self.rarities[rows]
        if terms.power not in (0, 1):
            weights.pow_(terms.power)
        if terms.overlap_power == 1:
            weights.mul_(jaccard)
        elif terms.overlap_power != 0:
            weights.mul_(jaccard**terms.overlap_power)
        if terms.dissimilarity:
            weights.mul_(shared).div_(self.ref_sizes.clamp(min=1)).div_((1 + self.sizes[rows]) - shared)
        if positives is not None:
            weights.mul_(positives)
        if terms.exclude_self:
            weights.scatter_(1, _own(rows, weights), 0)
        if not terms.divide_by_count:
            return weights, jaccard, left_out, None
        counted = shared >= 1 if positives is None else positives
        if terms.exclude_self:
            counted = counted.scatter(1, _own(rows, weights), False)
        return weights, jaccard, left_out, counted.sum(dim=1, dtype=weights.dtype)


def _own(rows: slice, like: Tensor) -> Tensor:
    """(n, 1) column of each row's pair with itself."""
    return torch.arange(rows.start, rows.stop, device=like.device)[:, None]


def _masks(terms: PairTerms, rows: slice, shared: Tensor, jaccard: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Positives of a chunk, None where the weights are 0 off them, and what is neither positive nor negative, or None.

    The pair of an anchor with itself is left to the caller.
    """
    if terms.masks is not None:
        positives, negatives = (mask[rows] for mask in terms.masks)
        return positives, ~(positives | negatives)
    if terms.positive_threshold > 0:
        positives = jaccard >= terms.positive_threshold  # so it shares a label
        left_out = ~positives & (jaccard > terms.negative_threshold) if terms.negative_threshold < 1 else None
        return positives, left_out
    return (shared >= 1 if terms.power == terms.overlap_power == terms.dissimilarity == 0 else None), None
