"""Embeddings that keep what the backbone knows."""

import torch
from torch import Tensor, nn

from pml_macl.checks import check_range


class JoinedEmbedder(nn.Module):
    r"""Joins the embeddings of a trained head with the features of the backbone.

    .. math:: z = \bigl(\sqrt{1 - w} \; e / \lVert e \rVert, \; \sqrt{w} \; x / \lVert x \rVert\bigr)

    The cosine similarity of two joined embeddings is :math:`1 - w` times that of the embeddings e plus w times that of
    the features x. A head forgets what its training labels do not need; the features still tell labels apart that were
    not among them. Use it as the embedder of :class:`MultiLabelInferenceModel` or of PML's testers, after training.

    Args:
        embedder: maps (N, F) features to (N, D) embeddings.
        weight: the weight w of the features, in [0, 1].

    Raises:
        TypeError: ``embedder`` is not a module, or ``weight`` is not a number.
        ValueError: ``weight`` is outside [0, 1].

    Example:
        >>> embedder = torch.nn.Linear(2, 1, bias=False)
        >>> torch.nn.init.ones_(embedder.weight).requires_grad
        True
        >>> JoinedEmbedder(embedder, weight=0.36)(torch.tensor([[3.0, 4.0]]))
        tensor([[0.8000, 0.3600, 0.4800]], grad_fn=<CatBackward0>)
    """

    def __init__(self, embedder: nn.Module, weight: float = 0.5) -> None:
        super().__init__()
        if not isinstance(embedder, nn.Module):
            raise TypeError(f"embedder must be a torch module, got {type(embedder).__name__}")
        check_range("weight", weight, 0, 1)
        self.embedder = embedder
        self.weight = weight

    def forward(self, features: Tensor) -> Tensor:
        """Compute the joined embeddings.

        Args:
            features: (N, F) features.

        Returns:
            (N, D + F) embeddings of length 1.
        """
        return join_embeddings(self.embedder(features), features, self.weight)

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


def join_embeddings(embeddings: Tensor, features: Tensor, weight: float) -> Tensor:
    """Join embeddings with features as :class:`JoinedEmbedder` does.

    Args:
        embeddings: (N, D) embeddings of a head.
        features: (N, F) features of the backbone.
        weight: the weight of the features, in [0, 1].

    Returns:
        (N, D + F) embeddings of length 1.
    """
    unit, unit_features = (torch.nn.functional.normalize(part, dim=1) for part in (embeddings, features))
    return torch.cat([(1 - weight) ** 0.5 * unit, weight**0.5 * unit_features], dim=1)
