"""What the reducers that weigh pairs by their labels have in common."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from pytorch_metric_learning.reducers import BaseReducer
from torch import Tensor

from pml_macl.functional import weighted_anchor_mean
from pml_macl.labels import check_labels, label_dtype
from pml_macl.statistics import LabelStatistics, check_statistics


class PairWeightedReducer(BaseReducer, ABC):
    r"""Mean over the losses of each anchor, then over the anchors, with weights that depend on labels.

    .. math:: L = \sum_i a_i \sum_p \frac{w_{ip}}{\sum_q w_{iq}} \ell_{ip} \Big/ \sum_i a_i

    over the anchors with a weight. A subclass gives :math:`w_{ip}` by :meth:`pair_weights` and, unless all anchors
    count alike, :math:`a_i` by :meth:`anchor_weights`. By reduction type:

    - ``pos_pair``: as above;
    - ``triplet``: as above, with the weight of its anchor and positive;
    - ``neg_pair``: a negative shares no labels to weigh, so the pairs of an anchor count alike, and the anchors by
      :math:`a_i`;
    - ``element``: the mean over rows, weighted by :math:`a_i`;
    - ``already_reduced``: unchanged.

    The reducer reads ``ref_labels`` and ``label_statistics`` from the loss's dictionary entry if they stand there, as
    PML's ``DivisorReducer`` reads ``divisor``. Without ``ref_labels`` both sides of a pair are rows of ``labels``.
    1-D class indices, as PML's own losses hand on, count as label sets of one label.

    Args:
        label_statistics: label frequencies for the weights; None takes those of the loss, and those of the batch if it
            has none.
        divide_by_count: divide by the number of an anchor's losses instead of by the sum of their weights.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Raises:
        TypeError: ``label_statistics`` is of another type.
    """

    def __init__(
        self, label_statistics: LabelStatistics | None = None, divide_by_count: bool = False, **kwargs: Any
    ) -> None:
        check_statistics(label_statistics)
        super().__init__(**kwargs)
        self.label_statistics = label_statistics
        self.divide_by_count = divide_by_count

    @abstractmethod
    def pair_weights(
        self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics, dtype: torch.dtype
    ) -> Tensor:
        """Weight of each pair.

        Args:
            labels: (N, C) boolean label sets of the anchors.
            ref_labels: (M, C) boolean label sets of the others; None is ``labels``.
            statistics: label frequencies.
            dtype: floating-point type of the result.

        Returns:
            (N, M) weights, >= 0.
        """

    def anchor_weights(
        self, labels: Tensor, ref_labels: Tensor | None, statistics: LabelStatistics, dtype: torch.dtype
    ) -> Tensor:
        """Weight of each anchor, (N,), >= 0; arguments as of :meth:`pair_weights`."""
        return torch.ones(len(labels), dtype=dtype, device=labels.device)

    def unpack_loss_info(self, loss_info: dict[str, Any]) -> tuple[Any, Any, str, dict[str, Any]]:
        losses, indices, reduction_type, kwargs = super().unpack_loss_info(loss_info)
        if reduction_type != "already_reduced":
            kwargs = {name: loss_info.get(name) for name in ("ref_labels", "label_statistics")}
        return losses, indices, reduction_type, kwargs

    def element_reduction(
        self, losses: Tensor, loss_indices: Tensor, embeddings: Tensor, labels: Tensor, **entry: Any
    ) -> Tensor:
        anchor_weights, _ = self._weights(losses, embeddings, labels, with_pairs=False, **entry)
        weights = anchor_weights[loss_indices]
        rows = torch.arange(len(losses), device=losses.device)  # one loss each
        # Some of PML's losses come as (rows, 1).
        return weighted_anchor_mean(losses.flatten(), rows, torch.ones_like(weights), weights)

    def neg_pair_reduction(
        self, losses: Tensor, loss_indices: tuple[Tensor, Tensor], embeddings: Tensor, labels: Tensor, **entry: Any
    ) -> Tensor:
        anchor_weights, _ = self._weights(losses, embeddings, labels, with_pairs=False, **entry)
        return weighted_anchor_mean(losses, loss_indices[0], anchor_weights.new_ones(len(losses)), anchor_weights)

    def pos_pair_reduction(
        self, losses: Tensor, loss_indices: tuple[Tensor, ...], embeddings: Tensor, labels: Tensor, **entry: Any
    ) -> Tensor:
        anchor_weights, pair_weights = self._weights(losses, embeddings, labels, with_pairs=True, **entry)
        anchors, positives = loss_indices[:2]
        weights = pair_weights[anchors, positives]
        return weighted_anchor_mean(losses, anchors, weights, anchor_weights, self.divide_by_count)

    def triplet_reduction(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.pos_pair_reduction(*args, **kwargs)

    @torch.no_grad()
    def _weights(
        self,
        losses: Tensor,
        embeddings: Tensor,
        labels: Tensor | None,
        with_pairs: bool,
        ref_labels: Tensor | None = None,
        label_statistics: LabelStatistics | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(N,) weights of the anchors and (N, M) of the pairs, or () where none are asked for."""
        if labels is None:
            raise ValueError("labels are needed to weigh losses by label frequency, got None; give them to the loss")
        statistics = self.label_statistics or label_statistics
        if labels.ndim == 1:
            num_classes = -1 if statistics is None else statistics.num_classes
            labels = torch.nn.functional.one_hot(labels.long(), num_classes)
        labels = check_labels(labels).to(embeddings.device)
        if statistics is None:
            statistics = LabelStatistics.from_labels(labels)
        check_labels(labels, num_classes=statistics.num_classes)
        given = (labels, ref_labels, statistics, label_dtype(losses))
        pair_weights = self.pair_weights(*given) if with_pairs else labels.new_empty(())
        return self.anchor_weights(*given), pair_weights
