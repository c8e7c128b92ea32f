"""Agreement of the label sets of retrieved references with that of the query (Chaudhuri et al., TGRS 2018).

Each metric is a mean over the first k ranks. The precision of a reference without labels is 0.
"""

from torch import Tensor

from pml_macl.checks import check_integer, check_per_query, check_ranks, check_same_shape


def label_precision(shared: Tensor, reference_sizes: Tensor) -> Tensor:
    r"""Compute the share of a retrieved reference's labels that the query carries too, averaged over ranks.

    .. math:: \frac{1}{k} \sum_{j \le k} |Y_q \cap Y_j| / |Y_j|

    Args:
        shared: (queries, k) number of labels that query and reference share.
        reference_sizes: (queries, k) number of labels of the reference.

    Returns:
        (queries,) float64 in [0, 1].

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> import torch
        >>> label_precision(torch.tensor([[2, 1]]), torch.tensor([[2, 4]]))
        tensor([0.6250], dtype=torch.float64)
    """
    check_same_shape("shared", shared, "reference_sizes", reference_sizes)
    return (shared.double() / reference_sizes.clamp(min=1)).mean(dim=1)


def label_recall(shared: Tensor, query_sizes: Tensor) -> Tensor:
    r"""Compute the share of the query's labels that a retrieved reference carries too, averaged over ranks.

    .. math:: \frac{1}{k} \sum_{j \le k} |Y_q \cap Y_j| / |Y_q|

    Args:
        shared: (queries, k) number of labels that query and reference share.
        query_sizes: (queries,) number of labels of the query.

    Returns:
        (queries,) float64 in [0, 1]; NaN for a query without labels.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> import torch
        >>> label_recall(torch.tensor([[2, 1]]), torch.tensor([4]))
        tensor([0.3750], dtype=torch.float64)
    """
    check_ranks("shared", shared)
    check_per_query("query_sizes", query_sizes, len(shared))
    return shared.double().mean(dim=1) / query_sizes


def label_f1(shared: Tensor, query_sizes: Tensor, reference_sizes: Tensor) -> Tensor:
    r"""Compute the F1 score of each retrieved reference, averaged over ranks.

    The F1 score is the harmonic mean of label precision and label recall:

    .. math:: \frac{1}{k} \sum_{j \le k} 2 |Y_q \cap Y_j| / (|Y_q| + |Y_j|)

    Args:
        shared: (queries, k) number of labels that query and reference share.
        query_sizes: (queries,) number of labels of the query.
        reference_sizes: (queries, k) number of labels of the reference.

    Returns:
        (queries,) float64 in [0, 1]; NaN if the query and one of its references both have no labels.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> import torch
        >>> label_f1(torch.tensor([[2, 1]]), torch.tensor([2]), torch.tensor([[2, 4]]))
        tensor([0.6667], dtype=torch.float64)
    """
    check_same_shape("shared", shared, "reference_sizes", reference_sizes)
    check_per_query("query_sizes", query_sizes, len(shared))
    return (2 * shared.double() / (reference_sizes.double() + query_sizes[:, None])).mean(dim=1)


def hamming_loss(shared: Tensor, query_sizes: Tensor, reference_sizes: Tensor, num_classes: int) -> Tensor:
    r"""Compute the share of the classes in which query and retrieved reference differ, averaged over ranks.

    Smaller is better.

    .. math:: \frac{1}{k} \sum_{j \le k} |Y_q \,\triangle\, Y_j| / C

    Args:
        shared: (queries, k) number of labels that query and reference share.
        query_sizes: (queries,) number of labels of the query.
        reference_sizes: (queries, k) number of labels of the reference.
        num_classes: number of classes C, at least 1.

    Returns:
        (queries,) float64 in [0, 1].

    Raises:
        ValueError: the shapes do not fit each other, or ``num_classes`` is less than 1.

    Example:
        >>> import torch
        >>> hamming_loss(torch.tensor([[2, 1]]), torch.tensor([2]), torch.tensor([[2, 4]]), num_classes=8)
        tensor([0.2500], dtype=torch.float64)
    """
    check_same_shape("shared", shared, "reference_sizes", reference_sizes)
    check_per_query("query_sizes", query_sizes, len(shared))
    check_integer("num_classes", num_classes)
    return (reference_sizes.double() - 2 * shared.double() + query_sizes[:, None]).mean(dim=1) / num_classes
