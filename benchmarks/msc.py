"""A loss whose positives are images and learnt prototypes of the labels, as a baseline for rare labels."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class MSCLoss(nn.Module):
    r"""Multi-label Supervised Contrastive loss (Audibert et al., ECML PKDD 2024, arXiv 2404.08720).

    .. math::

        L = \operatorname*{mean}_i \frac{-1}{|y_i|} \sum_{l \in y_i} \frac{1}{Z_{il}} \Bigl( \log p_{il}
        + \sum_{j \ne i, \, l \in y_j} \frac{\log p_{ij}}{|y_i \cup y_j|} \Bigr), \qquad
        Z_{il} = 1 + \sum_{j \ne i, \, l \in y_j} \frac{1}{|y_i \cup y_j|}

    .. math::

        p_{ia} = \frac{e^{s_{ia} / \tau}}{\sum_l e^{s_{il} / \tau} + \beta \sum_{j \ne i} e^{s_{ij} / \tau}}

    :math:`s_{ij}` is the cosine similarity of two images, :math:`s_{il}` that of an image and the learnt prototype of a
    label. So each label of an anchor has a positive, its prototype, and counts the same. This is our reading of the
    variant with prototypes and without a queue of earlier batches. Images and prototypes count alike as positives, and
    :math:`\beta` is 0.1 as in the authors' configuration. Anchors without labels do not count.

    Args:
        temperature: :math:`\tau`, > 0.
        num_classes: number of labels.
        size: size of the embeddings.
        beta: weight of the images in the denominator.
    """

    def __init__(self, temperature: float, num_classes: int, size: int = 128, beta: float = 0.1) -> None:
        super().__init__()
        self.temperature, self.beta = temperature, beta
        self.prototypes = nn.Parameter(torch.randn(num_classes, size))

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: None = None) -> Tensor:
        unit, has = normalize(embeddings, dim=1), labels.to(embeddings.dtype)
        sizes = has.sum(dim=1)
        closeness = 1 / (sizes[:, None] + sizes - has @ has.T).clamp(min=1)  # 1 / the size of the union
        closeness = closeness - closeness.diag().diag()
        by_label = has / (1 + closeness @ has)
        weights = torch.cat([by_label, (by_label @ has.T) * closeness], dim=1)
        logits = unit @ torch.cat([normalize(self.prototypes, dim=1), unit]).T / self.temperature
        shares = torch.cat([torch.ones_like(has), self.beta * (1 - torch.eye(len(unit)).to(has))], dim=1)
        terms = logits - torch.logsumexp(logits + shares.log(), dim=1, keepdim=True)
        return -((weights * terms).sum(dim=1) / sizes.clamp(min=1)).sum() / (sizes > 0).sum().clamp(min=1)
