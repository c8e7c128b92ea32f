"""Base class of the miners for multi-hot labels."""

from typing import Any

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from pml_macl.checks import check_batch, check_callable, in_float32
from pml_macl.deferred_check import DeferredCheck
from pml_macl.relations import Relation


class BaseMultiLabelMiner(BaseMiner):
    """Base class of PML miners that take multi-hot labels.

    Subclasses implement ``mine``, as for PML's ``BaseMiner``. ``mine`` receives boolean label sets. Its ``ref_emb`` and
    ``ref_labels`` are None if the caller gave no references and the batch is compared with itself. With a ``relation``,
    labels are not checked to be multi-hot, and ``mine`` receives them as given.
    """

    relation: Relation | None

    def __init__(self, relation: Relation | None = None, **kwargs: Any) -> None:
        check_callable("relation", relation)
        super().__init__(**kwargs)
        self.relation = relation
        self.deferred_check = DeferredCheck()

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Select pairs or triplets of a batch.

        Args:
            embeddings: (N, D) embeddings of the anchors.
            labels: (N, C) multi-hot label sets; with a relation, any (N, ...) labels.
            ref_emb: (M, D) embeddings of the references; None uses the batch itself and never pairs a row with itself.
            ref_labels: (M, C) multi-hot label sets of the references, or (M, ...) labels; required with ``ref_emb``.

        Returns:
            Pairs (a1, p, a2, n) or triplets (a, p, n): int64 indices on the device of ``embeddings``.

        Raises:
            TypeError, ValueError: an argument has a wrong type, shape or value.
        """
        self.reset_stats()
        labels, ref_labels = check_batch(
            embeddings, labels, ref_emb, ref_labels, deferred=self.deferred_check, multi_hot=self.relation is None
        )
        output: tuple[Tensor, ...]
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            embeddings = in_float32(embeddings)
            references = None if ref_emb is None else ref_emb.to(embeddings.dtype)
            output = self.mine(embeddings, labels, references, ref_labels)
        self.output_assertion(output)
        return output
