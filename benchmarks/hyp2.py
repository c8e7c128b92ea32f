"""A proxy loss for multi-label retrieval, as a baseline."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pml_macl import shared_label_counts


class HyP2Loss(nn.Module):
    r"""Hybrid proxy-pair loss, after Xu et al. (ACM Multimedia 2022, arXiv 2208.06866).

    .. math::

        L = \operatorname*{mean}_{c \in Y_i} (1 - s_{ic})
        + \operatorname*{mean}_{c \notin Y_i} \max(0, s_{ic} - m)
        + \operatorname*{mean}_{|Y_i \cap Y_j| = 0} \max(0, s_{ij} - m)

    :math:`s_{ic}` is the cosine similarity of an image and the learnt proxy of a label, :math:`s_{ij}` that of two
    images. This is our reading of the paper, with weight 1 for the pairs; the paper derives the margin m from the
    number of labels, and the benchmark tunes it.

    Args:
        margin: similarity that images without a common label, or an image and a label that it lacks, may have.
        num_classes: number of labels.
        size: size of the embeddings.
    """

    def __init__(self, margin: float, num_classes: int, size: int = 128) -> None:
        super().__init__()
        self.margin = margin
        self.proxies = nn.Parameter(torch.randn(num_classes, size))

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: None = None) -> Tensor:
        unit, has = normalize(embeddings, dim=1), labels.bool()
        to_proxies = unit @ normalize(self.proxies, dim=1).T
        apart = shared_label_counts(labels, labels) == 0
        terms = (
            (1 - to_proxies, has),
            ((to_proxies - self.margin).relu(), ~has),
            ((unit @ unit.T - self.margin).relu(), apart.fill_diagonal_(fill_value=False)),
        )
        return torch.stack([term.where(mask, 0).sum() / mask.sum().clamp(min=1) for term, mask in terms]).sum()
