"""Base class of the losses on multi-hot labels."""

from typing import Any

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.reducers import BaseReducer, ClassWeightedReducer, MultipleReducers, PerAnchorReducer
from torch import Tensor

from pml_macl.checks import check_batch, check_callable, check_indices_tuple, in_float32
from pml_macl.deferred_check import DeferredCheck
from pml_macl.labels import label_dtype
from pml_macl.pairs import Pairs
from pml_macl.reducers import PairWeightedReducer
from pml_macl.relations import Relation


class BaseMultiLabelLoss(BaseMetricLossFunction):
    """Base class of PML losses that take multi-hot labels.

    It checks the input and passes label sets to the reducer. Subclasses implement ``compute_loss``, as for PML's
    ``BaseMetricLossFunction``. ``compute_loss`` receives boolean label sets. Its ``ref_emb`` and ``ref_labels`` are
    None if the caller gave no references and the batch is compared with itself. With a ``relation``, labels are not
    checked to be multi-hot, and ``compute_loss`` receives them as given.
    """

    num_classes: int | None = None
    relation: Relation | None

    def __init__(self, relation: Relation | None = None, **kwargs: Any) -> None:
        check_callable("relation", relation)
        super().__init__(**kwargs)
        self.relation = relation
        self.deferred_check = DeferredCheck()

    def set_reducer(self, reducer: BaseReducer | None) -> None:
        super().set_reducer(reducer)
        if reducer is None or self.reducer is reducer:
            return
        # PML deep-copies the reducer for each sub-loss. The copies must keep the caller's statistics object.
        made_by_pml = isinstance(self.reducer, MultipleReducers) and not isinstance(reducer, MultipleReducers)
        for copied in self.reducer.reducers.values() if made_by_pml else [self.reducer]:
            for original, copy in zip(reducer.modules(), copied.modules(), strict=True):
                if isinstance(original, PairWeightedReducer):
                    copy.label_statistics = original.label_statistics

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Any:
        """Compute the loss of a batch.

        Args:
            embeddings: (N, D) embeddings of the anchors.
            labels: (N, C) multi-hot label sets; with a relation, any (N, ...) labels.
            indices_tuple: pairs (a1, p, a2, n) or triplets (a, p, n) from a miner; None forms pairs from the labels.
            ref_emb: (M, D) embeddings of the references; None uses the batch itself and never pairs a row with itself.
            ref_labels: (M, C) multi-hot label sets of the references, or (M, ...) labels; required with ``ref_emb``.

        Returns:
            The output of the reducer: a () tensor, or PML's dictionary with ``DoNothingReducer``.

        Raises:
            TypeError, ValueError: an argument has a wrong type, shape or value. The state does not change.
        """
        return self._check_and_compute(embeddings, labels, indices_tuple, ref_emb, ref_labels)

    def _check_and_compute(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
        **options: Any,
    ) -> Any:
        """Do what :meth:`forward` does, and pass the options to ``compute_loss``."""
        self.reset_stats()
        check = self.deferred_check
        labels, ref_labels = check_batch(
            embeddings, labels, ref_emb, ref_labels, self.num_classes, check, multi_hot=self.relation is None
        )
        num_references = len(embeddings) if ref_emb is None else len(ref_emb)
        check_indices_tuple(indices_tuple, len(embeddings), num_references, check)
        self.check_references(len(embeddings), num_references, ref_emb is not None)
        embeddings = in_float32(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = self.without_zero_rows(embeddings)
            references = None if ref_emb is None else self.without_zero_rows(ref_emb.to(embeddings.dtype))
            loss_dict = self.compute_loss(rows, labels, indices_tuple, references, ref_labels, **options)
            if len(embeddings):  # PML's regularizers average over rows, which gives NaN for none
                self.add_embedding_regularization_to_loss_dict(loss_dict, embeddings)
            if self.relation is not None:  # otherwise a reducer would take the labels for label sets or class indices
                pairs = Pairs(labels, ref_labels, dtype=label_dtype(embeddings), deferred=check, relation=self.relation)
                for entry in loss_dict.values():
                    entry.setdefault("pairs", pairs)
            return self.reducer(loss_dict, embeddings, labels)

    def without_zero_rows(self, embeddings: Tensor) -> Tensor:
        """Set the gradient of all-zero rows to 0 if the distance normalises embeddings.

        A zero row has no direction. Normalising it would give a gradient of about 1e12, which float16 cannot hold.
        """
        if not (embeddings.requires_grad and self.distance.normalize_embeddings and embeddings.numel()):
            return embeddings
        largest = embeddings.detach().abs().amax(dim=1, keepdim=True)
        return embeddings * (largest > 0)  # the product also zeroes the gradient

    def check_references(self, num_rows: int, num_references: int, given: bool) -> None:
        """Raise if a part of the loss cannot handle these references."""
        if num_references > num_rows and any(isinstance(m, PerAnchorReducer) for m in self.reducer.modules()):
            raise ValueError(
                f"PerAnchorReducer cannot take more references ({num_references}) than rows ({num_rows}), because PML "
                "stores the pairs in a (rows, rows) matrix; use another reducer, or fewer rows in ref_emb"
            )


def check_reducer(reducer: BaseReducer) -> None:
    """Raise unless this is a PML reducer that works on label sets."""
    if not isinstance(reducer, BaseReducer):
        raise TypeError(
            f"reducer must be a pytorch_metric_learning reducer, got {type(reducer).__name__}; pass an instance such "
            "as MeanReducer()"
        )
    if any(isinstance(module, ClassWeightedReducer) for module in reducer.modules()):
        raise ValueError(
            "reducer must work on label sets, but ClassWeightedReducer needs one class per row; use "
            "FrequencyWeightedReducer, which weights by the labels that a pair shares"
        )
