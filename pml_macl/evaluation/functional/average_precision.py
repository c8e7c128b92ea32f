"""Average precision."""

import torch
from torch import Tensor

from pml_macl.checks import check_choice, check_per_query, check_ranks

AP_DENOMINATORS = ("relevant", "hits", "min")


def average_precision(relevance: Tensor, num_relevant: Tensor, denominator: str = "relevant") -> Tensor:
    r"""Compute the mean of the precisions at the ranks of the relevant references.

    .. math:: \frac{1}{D} \sum_{j \le k} rel_j \cdot P@j

    If only the first k references are ranked, libraries divide by different D. PML divides by the number of all
    relevant references, torchmetrics by the number among the first k. Over the full ranking, all choices agree.

    With ``"relevant"``, the largest possible value is k / R if R is larger than k: 0.02 for k = 20 and R = 1000. With
    ``"min"``, a perfect ranking gets 1 for any k.

    Args:
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.
        num_relevant: (queries,) R, the number of relevant references in the whole reference set.
        denominator: D: ``"relevant"`` is R, ``"hits"`` is the number of relevant references among the k, and ``"min"``
            is min(R, k).

    Returns:
        (queries,) float64 in [0, 1]; NaN without a relevant reference, 0 if none is among the k.

    Raises:
        ValueError: the shapes do not fit each other, or ``denominator`` is unknown.

    Example:
        >>> average_precision(torch.tensor([[1, 0, 1]]), torch.tensor([3]))
        tensor([0.5556], dtype=torch.float64)
        >>> average_precision(torch.tensor([[1, 0, 1]]), torch.tensor([3]), denominator="hits")
        tensor([0.8333], dtype=torch.float64)
    """
    check_ranks("relevance", relevance)
    check_per_query("num_relevant", num_relevant, len(relevance))
    check_choice("denominator", denominator, AP_DENOMINATORS)
    ranks = torch.arange(1, 1 + relevance.shape[1], dtype=torch.float64, device=relevance.device)
    is_relevant = relevance.bool()
    hits = is_relevant.cumsum(dim=1, dtype=torch.int32)  # sums of integers are deterministic on a GPU
    precision_sum = hits.mul_(is_relevant).double() @ (1 / ranks)
    if denominator == "hits":
        return precision_sum / (relevance.sum(dim=1).clamp(min=1) * (num_relevant > 0))
    return precision_sum / (num_relevant if denominator == "relevant" else num_relevant.clamp(max=len(ranks)))
