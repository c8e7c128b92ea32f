"""The MACL loss against a learnt proxy of each label."""

from typing import Any

import torch
from pytorch_metric_learning.losses.mixins import WeightRegularizerMixin
from torch import Tensor, nn

from pml_macl.batch_share import BatchShare
from pml_macl.checks import check_integer
from pml_macl.losses.macl_loss import MACLLoss
from pml_macl.statistics import LabelStatistics


class ProxyMACLLoss(WeightRegularizerMixin, MACLLoss):
    r"""MACL whose references are learnt proxies, one per label, in the place of the batch.

    .. math::
        L = \frac{1}{\sum_i a_i} \sum_i a_i \sum_{l \in Y_i} \hat w_{il}
            \Bigl[-\log \frac{\exp(s_{il} / \tau_{il})}{\sum_{k} \exp(s_{ik} / \tau_{ik})}\Bigr]

    :math:`s_{il}` is the similarity of image i and the proxy of label l. The temperature :math:`\tau_{il}` and the
    weights :math:`\hat w_{il}` and :math:`a_i` are those of :class:`MACLLoss` for a reference that has the label l
    alone. So the proxies of the labels of an image are its positives, and all other proxies its negatives. An image
    without labels does not count.

    Proxies of classes are from Movshovitz-Attias et al., No Fuss Distance Metric Learning using Proxies, ICCV 2017,
    and Audibert et al., arXiv 2404.08720, learn them for labels. The MACL paper has none; this combination is ours. Add
    it to :class:`MACLLoss` with PML's ``MultipleLosses``, and give its parameters to an optimizer. The loss compares
    all images with all proxies, and ignores the pairs of ``indices_tuple``, which are rows of the batch.

    Args:
        num_classes: number of classes C, >= 1.
        embedding_size: size D of the embeddings, >= 1.
        label_statistics: label frequencies, as for :class:`MACLLoss`; None counts labels over the training batches.
        **kwargs: the arguments of :class:`MACLLoss`, and ``weight_init_func``, ``weight_regularizer`` and
            ``weight_reg_weight`` of PML's losses with proxies. By default, the proxies start from a normal
            distribution.

    Attributes:
        proxies: (C, D) parameter, a proxy per label. The loss converts them to the dtype and device of the embeddings.

    Raises:
        TypeError, ValueError: an argument is invalid, as for :class:`MACLLoss`.

    Example:
        >>> import torch
        >>> from pytorch_metric_learning.losses import MultipleLosses
        >>> labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]])
        >>> proxy_loss = ProxyMACLLoss(num_classes=3, embedding_size=2)
        >>> loss_fn = MultipleLosses({"batch": MACLLoss(num_classes=3), "proxies": proxy_loss})
        >>> optimizer = torch.optim.AdamW(loss_fn.parameters(), lr=0.01)
        >>> loss_fn(torch.randn(4, 2), labels).backward()
        >>> proxy_loss.proxies.grad.shape
        torch.Size([3, 2])
    """

    proxy_labels: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        label_statistics: LabelStatistics | None = None,
        **kwargs: Any,
    ) -> None:
        check_integer("num_classes", num_classes)
        check_integer("embedding_size", embedding_size)
        super().__init__(num_classes=num_classes, label_statistics=label_statistics, **kwargs)
        self.proxies = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.weight_init_func(self.proxies)
        self.register_buffer("proxy_labels", torch.eye(num_classes, dtype=torch.bool), persistent=False)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
        own: Tensor | None = None,
        share: BatchShare | None = None,
    ) -> dict[str, Any]:
        if ref_emb is not None:
            raise ValueError("ref_emb must be None, because the references are the proxies; use MACLLoss for others")
        if embeddings.shape[1] != self.proxies.shape[1]:
            raise ValueError(
                f"embeddings must have embedding_size={self.proxies.shape[1]} columns, got {embeddings.shape[1]}"
            )
        self.check_references(len(embeddings), len(self.proxies), given=True)
        proxies = self.without_zero_rows(self.proxies.to(embeddings))
        # Indices of a miner are rows of the batch, not proxies.
        loss_dict = super().compute_loss(
            embeddings, labels, None, proxies, self.proxy_labels.to(labels.device), share=share
        )
        self.add_weight_regularization_to_loss_dict(loss_dict, self.proxies)
        return loss_dict
