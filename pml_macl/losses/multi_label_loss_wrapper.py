"""Wrapper that lets PML's losses work on multi-hot labels."""

from typing import Any

import torch
from pytorch_metric_learning.losses import (
    BaseLossWrapper,
    BaseMetricLossFunction,
    MarginLoss,
    MultipleLosses,
    ThresholdConsistentMarginLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.reducers import BaseReducer, DoNothingReducer
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from torch import Tensor

from pml_macl.checks import check_range
from pml_macl.compatibility import PML_LOSSES, check_pml_part
from pml_macl.label_sets import LabelSets
from pml_macl.losses.base_multi_label_loss import BaseMultiLabelLoss, check_reducer
from pml_macl.relations import Relation


class MultiLabelLossWrapper(BaseMultiLabelLoss):
    r"""Wrapper that lets a pair or triplet loss of PML work on multi-hot labels.

    The wrapped loss compares labels to find positives and negatives. The wrapper makes two label sets equal if

    .. math:: |Y_i \cap Y_j| \ge 1 \text{ and } J_{ij} \ge \text{threshold}

    and different otherwise (:class:`~pml_macl.LabelSets`). The distance and the embedding regularizer are those of the
    wrapped loss. The reducer receives the multi-hot labels. To restrict the pairs, pass the output of a miner as
    ``indices_tuple``.

    Differences from the wrapped loss:

    - With ``triplets_per_anchor=<int>``, PML samples triplets by class. The wrapper samples that number of triplets per
      anchor.
    - A sub-loss without terms is 0, even if PML's reducer would return NaN.

    ``docs/parts/pml_parts.md`` lists the losses that work, those that the wrapper rejects, and why. Your own loss works
    if it inherits from no rejected loss, overrides ``compute_loss`` but not ``forward``, and only compares labels.
    Otherwise the wrapper raises an error.

    Args:
        loss: PML loss to wrap; it is not copied.
        threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        reducer: replaces the reducer of the wrapped loss. It keeps the ``label_statistics`` object that it was given,
            whereas PML copies the statistics of a reducer that was passed to the wrapped loss.
        relation: function of labels (n, ...) and reference labels (m, ...) that replaces the rule above. It returns an
            (n, m) matrix: booleans, True for positives, or floats in [0, 1], positive above 0 from ``threshold`` on. It
            should be symmetric. Labels may have any dtype and shape (N, ...). A ``FrequencyWeightedReducer`` then uses
            the values as its Jaccard similarity, and needs multi-hot labels unless its ``power`` is 0.
        **kwargs: arguments of PML's ``BaseMetricLossFunction``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the loss or the reducer does not work on multi-hot labels, or the threshold is out of its range.

    Example:
        >>> from pytorch_metric_learning.losses import TripletMarginLoss
        >>> loss_fn = MultiLabelLossWrapper(TripletMarginLoss(margin=1.0))
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], requires_grad=True)
        >>> loss_fn(embeddings, torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 1]]))
        tensor(0.4781, grad_fn=<MeanBackward0>)
    """

    loss: BaseMetricLossFunction

    def __init__(
        self,
        loss: BaseMetricLossFunction,
        threshold: float = 0.0,
        reducer: BaseReducer | None = None,
        relation: Relation | None = None,
        **kwargs: Any,
    ) -> None:
        _check_loss(loss)
        check_range("threshold", threshold, 0, 1)
        check_reducer(loss.reducer if reducer is None else reducer)
        for name in kwargs.keys() & {"distance", "embedding_regularizer", "embedding_reg_weight"}:
            raise TypeError(f"{name} belongs to the wrapped loss; pass it to {type(loss).__name__} instead")
        # PML's constructor sets the reducer, which depends on the sub-losses of the wrapped loss. But a module can hold
        # the wrapped loss only after the constructor. Hence a placeholder.
        super().__init__(relation, reducer=DoNothingReducer(), **kwargs)
        self.loss = loss
        self.distance = loss.distance
        self.threshold = threshold
        if reducer is None or reducer is loss.reducer:
            self.reducer = loss.reducer  # shared with the wrapped loss
        else:
            self.set_reducer(reducer)
        self.add_to_recordable_attributes(name="threshold", is_stat=False)

    def sub_loss_names(self) -> list[str]:
        names: list[str] = self.loss.sub_loss_names()
        return names

    def get_default_reducer(self) -> BaseReducer:
        return self.loss.get_default_reducer()

    def reset_stats(self) -> None:
        super().reset_stats()
        self.loss.reset_stats()

    def add_embedding_regularization_to_loss_dict(self, loss_dict: dict[str, Any], embeddings: Tensor) -> None:
        self.loss.add_embedding_regularization_to_loss_dict(loss_dict, embeddings)

    def check_references(self, num_rows: int, num_references: int, given: bool) -> None:
        if given and isinstance(self.loss, ThresholdConsistentMarginLoss):
            raise ValueError(
                f"ref_emb must be None with {type(self.loss).__name__}, because PML's loss takes positives and "
                "negatives from the batch; leave ref_emb and ref_labels out"
            )
        super().check_references(num_rows, num_references, given)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        if len(embeddings) == 0 or (ref_emb is not None and len(ref_emb) == 0):
            return dict(self.loss.zero_losses())
        if ref_emb is None or ref_labels is None:
            ref_emb = embeddings
            sets = ref_sets = LabelSets(labels, self.threshold, self.relation)
        else:
            sets, ref_sets = LabelSets.with_references(labels, ref_labels, self.threshold, self.relation)
        per_anchor: Any = getattr(self.loss, "triplets_per_anchor", "all")
        if indices_tuple is None and per_anchor != "all":
            indices_tuple = _random_triplets(sets, ref_sets, per_anchor)
        loss_dict = self.loss.compute_loss(embeddings, sets, indices_tuple, ref_emb, ref_sets)
        for name, entry in loss_dict.items():
            is_empty = isinstance(entry["losses"], Tensor) and entry["losses"].numel() == 0
            loss_dict[name] = self.loss.zero_loss() if is_empty else {**entry, "ref_labels": ref_labels}
        return dict(loss_dict)


def _random_triplets(labels: LabelSets, ref_labels: LabelSets, per_anchor: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw ``per_anchor`` triplets with replacement for each anchor that has a positive and a negative."""
    matches, differences = lmu.get_matches_and_diffs(labels, ref_labels)
    anchors = (matches.any(dim=1) & differences.any(dim=1)).nonzero().flatten()
    if len(anchors) == 0:
        return anchors, anchors, anchors
    positives = torch.multinomial(matches[anchors].float(), per_anchor, replacement=True)
    negatives = torch.multinomial(differences[anchors].float(), per_anchor, replacement=True)
    return anchors.repeat_interleave(per_anchor), positives.flatten(), negatives.flatten()


def _check_loss(loss: BaseMetricLossFunction) -> None:
    name = type(loss).__name__
    if not isinstance(loss, (BaseMetricLossFunction, BaseLossWrapper, MultipleLosses)):
        raise TypeError(
            f"loss must be a pytorch_metric_learning loss, got {name}; pass an instance such as NTXentLoss()"
        )
    check_pml_part(loss, PML_LOSSES)
    if type(loss).forward is not BaseMetricLossFunction.forward:
        raise ValueError(
            f"loss must not override forward, which the wrapper replaces, but {name} does; override compute_loss "
            "instead, or use the loss without the wrapper if it takes multi-hot labels itself"
        )
    if isinstance(loss, TripletMarginLoss) and loss.swap:
        raise ValueError(
            f"{name}(swap=True) does not work on multi-hot labels: it separates the positive from the negative of a "
            "triplet, although they may share labels; use swap=False"
        )
    if isinstance(loss, MarginLoss) and len(loss.beta) > 1:
        raise ValueError(
            f"{name}(num_classes={len(loss.beta)}) does not work on multi-hot labels: it has one beta per class and "
            "needs one class per row; leave num_classes out"
        )
