"""The fused engine: computes the weighted contrastive loss and its gradient, one block of anchors at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pml_macl.pairs import PairBlock, Pairs

OfBlock = Callable[[PairBlock], Tensor]


@dataclass(frozen=True)
class Terms:
    """What the distance and the reducer contribute to the loss: temperatures and weights.

    Attributes:
        temperatures: returns the temperatures of a block, in a shape that broadcasts to (n, M).
        weights: returns the weights of a block, >= 0, in a shape that broadcasts to (n, M).
        anchor_weights: (N,) weights of the anchors, >= 0.
        divide_by_count: divide the weights of an anchor by the number of its positives instead of by their sum.
        parameters: learnable tensors that ``temperatures`` depends on.
        observe: called with each block and its temperatures, to record statistics; None records none.
    """

    temperatures: OfBlock
    weights: OfBlock
    anchor_weights: Tensor
    divide_by_count: bool = False
    parameters: Sequence[Tensor] = ()
    observe: Callable[[PairBlock, Tensor], None] | None = None


def contrastive_loss(query: Tensor, reference: Tensor | None, pairs: Pairs, terms: Terms) -> Tensor:
    r"""Compute the weighted mean of the losses of all positive pairs, with an analytic gradient.

    .. math::
        L = \frac{1}{\sum_i a_i} \sum_i a_i \sum_{p \in P(i)} \frac{w_{ip}}{\sum_{q \in P(i)} w_{iq}}
            \Bigl[-\log \frac{\exp(s_{ip} / \tau_{ip})}{\sum_{k \in P(i) \cup N(i)} \exp(s_{ik} / \tau_{ik})}\Bigr],
        \quad s_{ij} = q_i \cdot r_j

    Here :math:`a_i` are the anchor weights, :math:`w_{ip}` the pair weights, :math:`\tau_{ij}` the temperatures, and
    P(i) and N(i) the positives and negatives of anchor i. Value and gradient equal those of
    :func:`~pml_macl.functional.positive_pair_losses` followed by :func:`~pml_macl.functional.weighted_anchor_mean`,
    but this function keeps no (N, M) matrix for the backward pass. It has no second derivative. If the pairs have a
    ``share``, the sums over i run over the anchors of all processes, and the gradient is that of the share's anchors
    times the number of processes.

    Args:
        query: (N, D) embeddings of the anchors, float32 or float64.
        reference: (M, D) embeddings of the references; None uses ``query``.
        pairs: the label sets, positives and negatives.
        terms: the temperatures and weights.

    Returns:
        () loss; 0 if no anchor has a positive weight.

    Raises:
        RuntimeError: in ``backward`` with ``create_graph=True``.
    """
    loss: Tensor = _ContrastiveLoss.apply(query, reference, pairs, terms, *terms.parameters)
    return loss


class _ContrastiveLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, where each block has everything that the gradient needs."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, reference: Tensor | None, pairs: Pairs, terms: Terms, *parameters: Tensor
    ) -> Tensor:
        needed = (*ctx.needs_input_grad[:2], *ctx.needs_input_grad[4:])
        gradients = [
            torch.zeros_like(x) if x is not None and is_needed else None
            for x, is_needed in zip((query, reference, *parameters), needed, strict=True)
        ]
        total, total_weight = query.new_zeros(()), query.new_zeros(())
        with torch.autocast(query.device.type, enabled=False):
            for rows in pairs.row_blocks():
                losses, weights = _add_block(rows, query, reference, pairs, terms, gradients)
                total += losses.sum()
                total_weight += weights.sum()
        if pairs.share is not None:
            total, total_weight = pairs.share.sum_over_processes(total, total_weight)
        divisor = torch.where(total_weight > 0, total_weight, 1)
        of_gradients = divisor if pairs.share is None else divisor / pairs.share.num_processes
        ctx.save_for_backward(*(None if gradient is None else gradient / of_gradients for gradient in gradients))
        return total / divisor

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # torch's once_differentiable does not raise for a constant grad_output; second derivatives would be wrong.
        if torch.is_grad_enabled():
            raise RuntimeError(
                'the fused engine has no second derivatives, got create_graph=True; use engine="reference" in the loss'
            )
        gradients = [None if gradient is None else gradient * grad_output for gradient in ctx.saved_tensors]
        return *gradients[:2], None, None, *gradients[2:]


def _add_block(
    rows: slice,
    query: Tensor,
    reference: Tensor | None,
    pairs: Pairs,
    terms: Terms,
    gradients: list[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Return the (n, 1) weighted losses and weights of n anchors, and add their gradients to ``gradients``."""
    weights, totals, temperatures, ignored, own = _terms_of_block(pairs[rows], terms)
    row_weights = weights.sum(dim=1, keepdim=True)
    totals = row_weights if totals is None else totals
    used = terms.anchor_weights[rows, None] * (totals > 0)
    scale = used / torch.where(totals > 0, totals, 1)

    divisors = temperatures.detach()
    others = query if reference is None else reference
    # With one temperature per anchor, dividing the embeddings takes fewer operations than dividing the logits.
    per_pair = divisors.ndim > 0 and divisors.shape[-1] > 1
    logits = (query[rows] @ others.T).div_(divisors) if per_pair else (query[rows] / divisors) @ others.T
    slopes = logits / divisors if temperatures.requires_grad else None
    largest = _exclude(logits, ignored, own).amax(dim=1, keepdim=True)
    logits.sub_(largest)  # before the weighted sum: both terms of the loss would be large, and cancel
    weighted = torch.linalg.vecdot(weights, logits)[:, None]
    likelihoods = logits.exp_()
    denominators = likelihoods.sum(dim=1, keepdim=True)
    losses = scale * (row_weights * denominators.log() - weighted)

    # The negative gradient with respect to the logits, without the factor `scale`.
    descent = weights.addcmul_(likelihoods, row_weights / denominators, value=-1)
    if slopes is not None:
        _add_gradients_of_parameters(temperatures, slopes.mul_(descent).mul_(scale), terms.parameters, gradients)
    if per_pair:
        descent.div_(divisors)
    else:
        scale = scale / divisors
    _add_gradients(rows, query, reference, descent, scale, gradients)
    return losses, used


def _terms_of_block(
    block: PairBlock, terms: Terms
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """Evaluate the terms of a block.

    Returns:
        The (n, M) weights, 0 except for positive pairs; the (n, 1) numbers of positives, or None unless
        ``terms.divide_by_count``; the temperatures; the ignored pairs and the own pairs, or None.
    """
    weights = block.of_positives(terms.weights(block))
    counts = block.of_positives(1.0).sum(dim=1, keepdim=True) if terms.divide_by_count else None
    with torch.set_grad_enabled(bool(terms.parameters)):
        temperatures = terms.temperatures(block)
    if terms.observe is not None:
        terms.observe(block, temperatures.detach())
    return weights, counts, temperatures, block.ignored, block.own


def _exclude(logits: Tensor, ignored: Tensor | None, own: Tensor | None) -> Tensor:
    """Make the logits of excluded pairs so small that their likelihood is 0; -inf would turn an empty row into NaN."""
    smallest = torch.finfo(logits.dtype).min
    if ignored is not None:
        logits.add_(ignored.view(torch.uint8).to(logits.dtype), alpha=smallest / 2)
    return logits if own is None else logits.scatter_(1, own, smallest)


def _add_gradients(
    rows: slice,
    query: Tensor,
    reference: Tensor | None,
    descent: Tensor,
    scale: Tensor,
    gradients: list[Tensor | None],
) -> None:
    """Add the gradients of the embeddings; ``descent * scale`` is the negative gradient of the similarities."""
    of_query, of_reference = gradients[:2]
    if reference is None and of_query is not None and len(descent) == len(query):
        # The block contains every row as an anchor and as a reference; one product gives both parts of the gradient.
        descent = descent.mul_(scale)
        of_query.addmm_(descent + descent.T, query, alpha=-1)
        return
    others, of_others = (query, of_query) if reference is None else (reference, of_reference)
    if of_query is not None:
        of_query[rows] += (descent @ others).mul_(-scale)
    if of_others is not None:
        of_others.addmm_(descent.T, query[rows] * -scale)


def _add_gradients_of_parameters(
    temperatures: Tensor, slopes: Tensor, parameters: Sequence[Tensor], gradients: list[Tensor | None]
) -> None:
    """Add the gradients of the parameters; ``slopes`` is the (n, M) gradient of the temperatures."""
    found = torch.autograd.grad(
        temperatures, parameters, slopes.sum_to_size(temperatures.shape), allow_unused=True, materialize_grads=True
    )
    for total, gradient in zip(gradients[2:], found, strict=True):
        if total is not None:
            total += gradient
