"""What all miners on multi-hot labels have in common."""

from typing import Any

import torch
from pytorch_metric_learning.miners import BaseMiner
from torch import Tensor

from pml_macl.checks import check_batch, in_float32
from pml_macl.deferred_check import DeferredCheck


class BaseMultiLabelMiner(BaseMiner):
    """A PML miner whose labels are multi-hot.

    Subclasses implement ``mine``, as for PML's ``BaseMiner``. It gets boolean label sets, and ``ref_emb`` and
    ``ref_labels`` as they were given: None where the batch is compared with itself.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferred_check = DeferredCheck()

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Mine a batch.

        Args:
            embeddings: (N, D) embeddings of the anchors.
            labels: (N, C) multi-hot label sets.
            ref_emb: (M, D) embeddings to take positives and negatives from; None takes them from the batch. Where it is
                given, nothing counts as a pair of a row with itself.
            ref_labels: (M, C) multi-hot label sets, needed with ``ref_emb``.

        Returns:
            Indices, int64 on the device of ``embeddings``: pairs (a1, p, a2, n) or triplets (a, p, n).

        Raises:
            TypeError, ValueError: shapes, types or values do not fit.
        """
        self.reset_stats()
        labels, ref_labels = check_batch(embeddings, labels, ref_emb, ref_labels, deferred=self.deferred_check)
        output: tuple[Tensor, ...]
        with torch.no_grad():
            references = None if ref_emb is None else in_float32(ref_emb)
            output = self.mine(in_float32(embeddings), labels, references, ref_labels)
        self.output_assertion(output)
        return output
