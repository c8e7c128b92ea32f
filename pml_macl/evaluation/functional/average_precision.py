"""Average precision."""

import torch
from torch import Tensor

from pml_macl.checks import check_choice, check_per_query, check_ranks

AP_DENOMINATORS = ("relevant", "hits", "min")


def average_precision(relevance: Tensor, num_relevant: Tensor, denominator: str = "relevant") -> Tensor:
    r"""Mean of the precisions at the ranks of the relevant references.

    .. math:: \frac{1}{D} \sum_{j \le k} rel_j \cdot P@j

    Libraries divide by different D if only the first k are ranked: PML by the number of all relevant references,
    torchmetrics by the number among the first k. Over the full ranking all choices agree.

    Args:
        relevance: (queries, k) 1 or True where the reference at that rank is relevant.
        num_relevant: (queries,) R, the relevant references of the whole reference set.
        denominator: D: ``"relevant"`` is R, ``"hits"`` the relevant references among the k, ``"min"`` is min(R, k).

    Returns:
        (queries,) float64 in [0, 1]; NaN without a relevant reference, 0 where none is among the k.

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
    hits = is_relevant.cumsum(dim=1, dtype=torch.int32)  # whole numbers: deterministic on a GPU
    precision_sum = hits.mul_(is_relevant).double() @ (1 / ranks)
    if denominator == "hits":
        return precision_sum / (relevance.sum(dim=1).clamp(min=1) * (num_relevant > 0))
    return precision_sum / (num_relevant if denominator == "relevant" else num_relevant.clamp(max=len(ranks)))
