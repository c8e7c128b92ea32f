"""What all reducers that weigh pairs by their labels have in common."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from pytorch_metric_learning.reducers import BaseReducer
from torch import Tensor

from pml_macl.checks import check_bool
from pml_macl.functional import weighted_anchor_mean
from pml_macl.labels import check_labels, label_dtype
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.statistics import LabelStatistics, check_statistics


class PairWeightedReducer(BaseReducer, ABC):
    r"""Mean over the losses of each anchor, then over the anchors, with weights that depend on labels.

    .. math:: L = \sum_i a_i \sum_p \frac{w_{ip}}{\sum_q w_{iq}} \ell_{ip} \Big/ \sum_i a_i

    over the anchors with a weight. A subclass defines :math:`w_{ip}` by :meth:`pair_weights` and, unless all anchors
    count alike, :math:`a_i` by :meth:`anchor_weights`. The losses of this package call both methods in every engine. By
    reduction type:

    - ``pos_pair``: as above;
    - ``triplet``: as above, with the weight of its anchor and positive;
    - ``neg_pair``: a negative shares no labels to weigh, so the pairs of an anchor count alike, and the anchors are
      weighted by :math:`a_i`;
    - ``element``: the mean over rows, weighted by :math:`a_i`;
    - ``already_reduced``: unchanged.

    The reducer reads ``pairs``, or else ``ref_labels`` and ``label_statistics``, from the loss's dictionary entry if
    they are there, as PML's ``DivisorReducer`` reads ``divisor``. 1-D class indices, which PML's own losses pass on,
    count as label sets of one label. PML passes no ``ref_labels``, so the classes of the references of ``ref_emb`` are
    found from the pairs: a positive has the class of its anchor.

    Args:
        label_statistics: label frequencies for the weights; None takes those of the loss, and those of the batch if it
            has none.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Raises:
        TypeError: ``label_statistics`` is of another type, or ``divide_by_count`` is not a bool.
    """

    def __init__(
        self, label_statistics: LabelStatistics | None = None, divide_by_count: bool = False, **kwargs: Any
    ) -> None:
        check_statistics(label_statistics)
        check_bool("divide_by_count", divide_by_count)
        super().__init__(**kwargs)
        self.label_statistics = label_statistics
        self.divide_by_count = divide_by_count

    @abstractmethod
    def pair_weights(self, block: PairBlock) -> Tensor | float:
        """Weight of each pair of some anchors.

        Args:
            block: n anchors against M references. Its matrices are shared: do not change them in place.

        Returns:
            Finite weights >= 0 that broadcast to (n, M). Only those of positive pairs count. They get no gradient.
        """

    def anchor_weights(self, pairs: Pairs) -> Tensor:
        """Weight of each anchor.

        Args:
            pairs: the pairs of the batch.

        Returns:
            (N,) weights >= 0; 1 by default.
        """
        return torch.ones(len(pairs), dtype=pairs.dtype, device=pairs.labels.device)

    def statistics_of(self, pairs: Pairs) -> LabelStatistics:
        """Label frequencies to weigh by: the reducer's own, or those of the pairs.

        Raises:
            ValueError: they are of another number of classes than the labels.
        """
        statistics = self.label_statistics or pairs.statistics
        check_labels(pairs.labels, num_classes=statistics.num_classes)
        return statistics

    def unpack_loss_info(self, loss_info: dict[str, Any]) -> tuple[Any, Any, str, dict[str, Any]]:
        losses, indices, reduction_type, _ = super().unpack_loss_info(loss_info)
        names = ("num_losses",) if reduction_type == "already_reduced" else ("pairs", "ref_labels", "label_statistics")
        return losses, indices, reduction_type, {name: loss_info.get(name) for name in names}

    def already_reduced_reduction(self, losses: Tensor, *args: Any, num_losses: int | None = None) -> Tensor:
        if self.collect_stats and num_losses is not None:
            self.losses_size = num_losses
        reduced: Tensor = super().already_reduced_reduction(losses, *args)
        return reduced

    def element_reduction(
        self, losses: Tensor, loss_indices: Tensor, embeddings: Tensor, labels: Tensor, **entry: Any
    ) -> Tensor:
        pairs = self._pairs(losses, embeddings, labels, **entry)
        weights = self._anchor_weights(pairs)[loss_indices]
        rows = torch.arange(len(losses), device=losses.device)  # each row has one loss
        # Some of PML's losses have the shape (rows, 1).
        return weighted_anchor_mean(losses.flatten(), rows, torch.ones_like(weights), weights)

    def neg_pair_reduction(
        self, losses: Tensor, loss_indices: tuple[Tensor, Tensor], embeddings: Tensor, labels: Tensor, **entry: Any
    ) -> Tensor:
        anchor_weights = self._anchor_weights(self._pairs(losses, embeddings, labels, **entry))
        return weighted_anchor_mean(losses, loss_indices[0], anchor_weights.new_ones(len(losses)), anchor_weights)

    def pos_pair_reduction(
        self, losses: Tensor, loss_indices: tuple[Tensor, ...], embeddings: Tensor, labels: Tensor, **entry: Any
    ) -> Tensor:
        anchors, positives = loss_indices[:2]
        pairs = self._pairs(losses, embeddings, labels, **entry, positive_pairs=(anchors, positives))
        with torch.no_grad():
            weights = torch.as_tensor(self.pair_weights(pairs[:]), dtype=pairs.dtype, device=losses.device)
        weights = weights.expand(len(pairs), pairs.num_references)[anchors, positives]
        return weighted_anchor_mean(losses, anchors, weights, self._anchor_weights(pairs), self.divide_by_count)

    def triplet_reduction(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.pos_pair_reduction(*args, **kwargs)

    @torch.no_grad()
    def _anchor_weights(self, pairs: Pairs) -> Tensor:
        return self.anchor_weights(pairs)

    def _pairs(
        self,
        losses: Tensor,
        embeddings: Tensor,
        labels: Tensor | None,
        pairs: Pairs | None = None,
        ref_labels: Tensor | None = None,
        label_statistics: LabelStatistics | None = None,
        positive_pairs: tuple[Tensor, Tensor] | None = None,
    ) -> Pairs:
        """The pairs that the loss passed on, or those of its labels."""
        if pairs is not None:
            return pairs
        if labels is None:
            raise ValueError("labels are needed to weigh losses by label frequency, got None; give them to the loss")
        if ref_labels is None and positive_pairs is not None:
            ref_labels = _labels_of_references(labels, *positive_pairs)
        statistics = self.label_statistics or label_statistics
        if labels.ndim == 1:
            num_classes = -1 if statistics is None else statistics.num_classes
            labels, ref_labels = _one_hot(labels, ref_labels, num_classes)
        labels = check_labels(labels).to(embeddings.device)
        return Pairs(labels, ref_labels, statistics=statistics, dtype=label_dtype(losses))


def _labels_of_references(labels: Tensor, anchors: Tensor, positives: Tensor) -> Tensor | None:
    """Labels of the references of a loss that passes none on; None if the references are the batch itself.

    A positive has the class of its anchor. If that is not so within the batch, the references are others, given as
    ``ref_emb``, and the pairs tell their classes; -1 for a reference that is nobody's positive.
    """
    num_references = int(positives.max()) + 1 if len(positives) else 0
    if labels.ndim > 1:
        if num_references > len(labels):
            raise ValueError(
                f"ref_emb was given to a loss that passes no ref_labels to its reducer, got {len(labels)} labels and a "
                f"pair with reference {num_references - 1}; put ref_labels into the entry that compute_loss returns"
            )
        return None
    labels = labels.to(anchors.device)
    of_anchors = labels[anchors]
    if num_references <= len(labels) and torch.equal(labels[positives], of_anchors):
        return None
    ref_labels = of_anchors.new_full((num_references,), -1)
    ref_labels[positives] = of_anchors
    if not torch.equal(ref_labels[positives], of_anchors):
        raise ValueError(
            "ref_emb needs ref_labels to weigh pairs by label frequency, but PML passes none to its reducers, and a "
            "reference is a positive of anchors of two classes; wrap the loss in MultiLabelLossWrapper with one-hot "
            "labels"
        )
    return ref_labels


def _one_hot(labels: Tensor, ref_labels: Tensor | None, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Class indices as label sets of one label, without a label for -1."""
    labels = torch.nn.functional.one_hot(labels.long(), num_classes)
    if ref_labels is not None:
        ref_labels = ref_labels[:, None] == torch.arange(labels.shape[1], device=ref_labels.device)
    return labels, ref_labels
