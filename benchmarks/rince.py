"""A loss that ranks the positives of an anchor, as a baseline for graded overlap."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from pml_macl import jaccard_similarity, shared_label_counts

RANKS = (1.0, 0.5, 0.0)  # smallest Jaccard similarity of each rank; the last one takes any shared label


class RINCELoss(nn.Module):
    r"""Ranking Info Noise Contrastive Estimation (Hoffmann et al., AAAI 2022, arXiv 2201.11736), its "out" variant.

    .. math::

        L = \sum_r \operatorname*{mean}_i \operatorname*{mean}_{p \in P_r(i)}
        -\log \frac{e^{s_{ip} / \tau_r}}{e^{s_{ip} / \tau_r} + \sum_{n \in N_r(i)} e^{s_{in} / \tau_r}}

    s is the cosine similarity. The positives of rank r, :math:`P_r`, are negatives of those of higher ranks:
    :math:`N_r` holds all references of lower ranks and those that share no label. The paper leaves ranks and
    temperatures to the task. Here, the Jaccard similarity gives the rank (1, at least 0.5, any shared label), and
    :math:`\tau_r = r \tau`, since the paper asks for temperatures that grow from rank to rank. Anchors without
    positives of a rank do not count in its mean.

    Args:
        temperature: the temperature of the first rank, > 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: None = None) -> Tensor:
        unit = normalize(embeddings, dim=1)
        similarity = unit @ unit.T
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        jaccard = jaccard_similarity(labels, labels).to(unit.dtype)
        relevant = (shared_label_counts(labels, labels) > 0) & ~itself
        ranked, loss = itself, embeddings.sum() * 0
        for rank, smallest in enumerate(RANKS, 1):
            positives = relevant & (jaccard >= smallest) & ~ranked
            ranked = ranked | positives
            logits = similarity / (rank * self.temperature)
            negatives = logits.masked_fill(ranked, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
            terms = softplus(negatives - logits).where(positives, 0).sum(dim=1)
            counts = positives.sum(dim=1)
            loss = loss + (terms / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
        return loss
