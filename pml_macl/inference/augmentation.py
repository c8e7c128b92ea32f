"""Database-side augmentation of embeddings."""

import torch
from torch import Tensor

from pml_macl.checks import check_embeddings, check_finite, check_integer, check_range
from pml_macl.inference.faiss_import import import_faiss


@torch.no_grad()
def augment_embeddings(embeddings: Tensor, k: int = 10, power: float = 3.0) -> Tensor:
    r"""Replace each embedding by a weighted mean of itself and its nearest neighbours.

    .. math:: x'_i \propto \sum_{j \in \{i\} \cup \text{kNN}(i)} \max(x_i \cdot x_j, 0)^{\text{power}} \, x_j

    on embeddings of length 1. Database-side augmentation is due to Turcot and Lowe (2009). The weights are those that
    Radenovic et al. (arXiv 1711.02512) use for query expansion. It needs no labels and applies to the embeddings of any
    loss, so compare losses either all with it or all without it.

    Args:
        embeddings: (N, D) embeddings of the archive; they are normalised first.
        k: number of neighbours besides the embedding itself, >= 1.
        power: exponent of the similarities, >= 0; 0 averages all neighbours alike.

    Returns:
        (N, D) embeddings of length 1, in float32 on the CPU.

    Raises:
        ImportError: faiss is not installed.
        TypeError, ValueError: an argument is of the wrong type or out of its range.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> augment_embeddings(embeddings, k=1, power=1.0)
        tensor([[0.9597, 0.2809],
                [0.9363, 0.3511],
                [0.3328, 0.9430]])
    """
    check_embeddings(embeddings)
    k = check_integer("k", k)
    check_range("power", power, 0)
    embeddings = embeddings.float().cpu()
    check_finite("embeddings", embeddings)
    unit = torch.nn.functional.normalize(embeddings, dim=1).contiguous()
    if len(unit) == 0:
        return unit
    index = import_faiss().IndexFlatIP(unit.shape[1])
    index.add(unit.numpy())
    # An embedding finds itself first; among equal embeddings it may find a twin, which makes no difference.
    similarities, neighbours = index.search(unit.numpy(), min(k + 1, len(unit)))
    weights = torch.from_numpy(similarities).clamp(min=0) ** power
    sums = torch.nn.functional.embedding_bag(torch.from_numpy(neighbours), unit, per_sample_weights=weights, mode="sum")
    return torch.nn.functional.normalize(sums, dim=1)
