"""Embeddings that keep what the backbone knows."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pml_macl.checks import check_embeddings, check_finite, check_integer, check_range, in_float32


class JoinedEmbedder(nn.Module):
    r"""Joins the embeddings of a trained head with the principal components of the backbone's features.

    .. math::

        z = \bigl(\sqrt{1 - w} \; e / \lVert e \rVert, \; \sqrt{w} \; p / \lVert p \rVert\bigr), \qquad
        p = (x / \lVert x \rVert - \mu) A

    The cosine similarity of two joined embeddings is :math:`1 - w` times that of the embeddings e plus w times that of
    the components p. A head forgets what its training labels do not need; the features x still tell labels apart that
    were not among them. The mean :math:`\mu` and the axes A come from images of the archive to search, which need no
    labels: use :meth:`fit` after training. The result is an embedder for :class:`MultiLabelInferenceModel` and for
    PML's testers.

    Args:
        embedder: maps (N, F) features to (N, D) embeddings.
        mean: (F,) mean of the normalised features.
        axes: (F, K) orthonormal axes, one per column.
        weight: the weight w of the components, in [0, 1].

    Raises:
        TypeError: ``embedder`` is not a module, or ``weight`` is not a number.
        ValueError: ``weight`` is outside [0, 1], or the shapes of ``mean`` and ``axes`` do not fit together.

    Example:
        >>> features = torch.tensor([[3.0, 4.0], [4.0, 3.0]])
        >>> embedder = torch.nn.Linear(2, 1, bias=False)
        >>> torch.nn.init.ones_(embedder.weight).requires_grad
        True
        >>> joined = JoinedEmbedder.fit(embedder, features, weight=0.36)
        >>> joined(features).abs()
        tensor([[0.8000, 0.6000],
                [0.8000, 0.6000]], grad_fn=<AbsBackward0>)
    """

    def __init__(self, embedder: nn.Module, mean: Tensor, axes: Tensor, weight: float = 0.2) -> None:
        super().__init__()
        if not isinstance(embedder, nn.Module):
            raise TypeError(f"embedder must be a torch module, got {type(embedder).__name__}")
        check_range("weight", weight, 0, 1)
        if mean.dim() != 1 or axes.dim() != 2 or len(axes) != len(mean):
            raise ValueError(
                f"mean must be (F,) and axes (F, K), got {tuple(mean.shape)} and {tuple(axes.shape)}; "
                "JoinedEmbedder.fit computes both from features"
            )
        self.embedder = embedder
        self.weight = weight
        self.mean: Tensor
        self.axes: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes)

    @classmethod
    def fit(
        cls, embedder: nn.Module, features: Tensor, weight: float = 0.2, num_components: int = 64
    ) -> "JoinedEmbedder":
        """Compute the mean and the principal axes of features, and join with these.

        Args:
            embedder: maps (N, F) features to (N, D) embeddings.
            features: (N, F) features of the archive to search, or of a sample of it; a few hundred rows are enough.
            weight: the weight of the components, in [0, 1].
            num_components: number of axes, at least 1; never more than F, nor than N - 1.

        Raises:
            TypeError, ValueError: fewer than two rows, or an argument is of the wrong type or out of its range.
        """
        check_embeddings(features, name="features")
        check_finite("features", features)
        check_integer("num_components", num_components)
        if len(features) < 2:
            raise ValueError(f"features must have at least two rows, got {len(features)}; give more images")
        unit = normalize(features.detach().double(), dim=1)
        mean = unit.mean(dim=0)
        _, _, axes = torch.linalg.svd(unit - mean, full_matrices=False)
        kept = axes[: min(num_components, len(features) - 1)].T.contiguous()
        dtype = torch.promote_types(features.dtype, torch.float32)
        return cls(embedder, mean.to(dtype), kept.to(dtype), weight)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the joined embeddings.

        Args:
            features: (N, F) features.

        Returns:
            (N, D + K) embeddings of length 1, in float32 or float64.
        """
        embeddings, features = normalize(in_float32(self.embedder(features)), dim=1), in_float32(features)
        centred = normalize(features, dim=1) - self.mean.to(features.dtype)
        components = normalize(centred @ self.axes.to(features.dtype), dim=1)
        return torch.cat([(1 - self.weight) ** 0.5 * embeddings, self.weight**0.5 * components], dim=1)

    def extra_repr(self) -> str:
        return f"num_components={self.axes.shape[1]}, weight={self.weight}"
