"""A reducer that weighs pairs and anchors by how rare their labels are."""

from typing import Any

import torch
from pytorch_metric_learning.reducers import BaseReducer
from torch import Tensor

from pml_macl.checks import check_choice, check_range, check_statistics
from pml_macl.functional import anchor_weights, pairwise_label_weights, weighted_anchor_mean
from pml_macl.labels import check_labels, label_dtype, label_overlap
from pml_macl.statistics import LabelStatistics

LEVELS = ("cooccurrence", "label")


class FrequencyWeightedReducer(BaseReducer):
    r"""Weighted mean in which rare labels count more: the pairwise label reweighting (PLR) of MACL.

    Amir and Aptoula, Multi-Label Adaptive Contrastive Learning, arXiv 2512.16294, name the idea (rare label
    co-occurrences weigh more); the formula is this package's:

    .. math::
        w_{ip} = J_{ip}^{\text{overlap_power}} \Bigl(\sum_{l \le m \in S_{ip}} n_{max} / n_{lm}\Bigr)^{\text{power}},
        \quad a_i = \Bigl(\frac{1}{|Y_i|} \sum_{l \in Y_i} n_{max} / n_l\Bigr)^{\text{anchor_power}}

    .. math::
        L = \sum_i a_i \sum_p \frac{w_{ip}}{\sum_q w_{iq}} \ell_{ip} \Big/ \sum_i a_i

    over the anchors with a weight. By reduction type:

    - ``pos_pair``: as above. A pair that shares no label weighs 0 unless both powers are 0.
    - ``triplet``: as above, with the weight of its anchor and positive.
    - ``neg_pair``: a negative shares no labels to weigh, so the pairs of an anchor count alike, and the anchors by
      :math:`a_i`.
    - ``element``: the mean over rows, weighted by :math:`a_i`.
    - ``already_reduced``: unchanged.

    The reducer reads ``ref_labels`` and ``label_statistics`` from the loss's dictionary entry if they stand there, as
    PML's ``DivisorReducer`` reads ``divisor``. Without ``ref_labels`` both sides of a pair are rows of ``labels``.
    1-D class indices, as PML's own losses hand on, count as label sets of one label.

    Args:
        label_statistics: frequencies to weigh by; None takes those of the loss, and those of the batch if it has none.
        power: power of the frequencies, >= 0; 0 switches them off.
        level: ``"cooccurrence"`` sums over the pairs of shared labels, single labels included; ``"label"`` over single
            labels only.
        overlap_power: power of the Jaccard similarity, >= 0; 0 is MACL, 1 its weighted variant.
        anchor_power: power of the anchors' weights, >= 0; 0 weighs all anchors alike.
        **kwargs: for PML's ``BaseReducer``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a power is negative or ``level`` unknown.

    Example:
        >>> reducer = FrequencyWeightedReducer(LabelStatistics.from_labels(torch.tensor([[1, 0], [1, 0], [1, 1]])))
        >>> labels = torch.tensor([[1, 1], [1, 0], [0, 1]])
        >>> losses = {"losses": torch.tensor([1.0, 5.0]), "indices": (torch.tensor([0, 0]), torch.tensor([1, 2]))}
        >>> reducer({"loss": {**losses, "reduction_type": "pos_pair"}}, torch.zeros(3, 2), labels)  # weights 1 and 3
        tensor(4.)
    """

    def __init__(
        self,
        label_statistics: LabelStatistics | None = None,
        power: float = 1.0,
        level: str = "cooccurrence",
        overlap_power: float = 0.0,
        anchor_power: float = 0.0,
        **kwargs: Any,
    ) -> None:
        for name, value in (("power", power), ("overlap_power", overlap_power), ("anchor_power", anchor_power)):
            check_range(name, value, 0)
        check_choice("level", level, LEVELS)
        check_statistics(label_statistics)
        super().__init__(**kwargs)
        self.label_statistics = label_statistics
        self.power = power
        self.level = level
        self.overlap_power = overlap_power
        self.anchor_power = anchor_power
        self.add_to_recordable_attributes(list_of_names=["power", "overlap_power", "anchor_power"], is_stat=False)

    def unpack_loss_info(self, loss_info: dict[str, Any]) -> tuple[Any, Any, str, dict[str, Any]]:
        losses, indices, reduction_type, kwargs = super().unpack_loss_info(loss_info)
        if reduction_type != "already_reduced":
            kwargs = {name: loss_info.get(name) for name in ("ref_labels", "label_statistics")}
        return losses, indices, reduction_type, kwargs

    def element_reduction(
        self,
        losses: Tensor,
        loss_indices: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        ref_labels: Tensor | None = None,
        label_statistics: LabelStatistics | None = None,
    ) -> Tensor:
        labels, _, statistics = self._label_sets(embeddings, labels, None, label_statistics)
        weights = self._anchor_weights(labels, statistics, label_dtype(losses))[loss_indices]
        rows = torch.arange(len(losses), device=losses.device)  # one loss each
        # Some of PML's losses come as (rows, 1).
        return weighted_anchor_mean(losses.flatten(), rows, torch.ones_like(weights), weights)

    def pos_pair_reduction(
        self,
        losses: Tensor,
        loss_indices: tuple[Tensor, Tensor],
        embeddings: Tensor,
        labels: Tensor,
        ref_labels: Tensor | None = None,
        label_statistics: LabelStatistics | None = None,
    ) -> Tensor:
        labels, ref_labels, statistics = self._label_sets(embeddings, labels, ref_labels, label_statistics)
        anchors, positives = loss_indices[0], loss_indices[1]
        dtype = label_dtype(losses)
        weights = self._pair_weights(labels, ref_labels, statistics, dtype)[anchors, positives]
        return weighted_anchor_mean(losses, anchors, weights, self._anchor_weights(labels, statistics, dtype))

    def neg_pair_reduction(
        self,
        losses: Tensor,
        loss_indices: tuple[Tensor, Tensor],
        embeddings: Tensor,
        labels: Tensor,
        ref_labels: Tensor | None = None,
        label_statistics: LabelStatistics | None = None,
    ) -> Tensor:
        labels, _, statistics = self._label_sets(embeddings, labels, None, label_statistics)
        weights = self._anchor_weights(labels, statistics, label_dtype(losses))
        return weighted_anchor_mean(losses, loss_indices[0], weights.new_ones(len(losses)), weights)

    def triplet_reduction(
        self, losses: Tensor, loss_indices: tuple[Tensor, Tensor, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        return self.pos_pair_reduction(losses, loss_indices[:2], *args, **kwargs)

    def _label_sets(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        ref_labels: Tensor | None,
        label_statistics: LabelStatistics | None,
    ) -> tuple[Tensor, Tensor, LabelStatistics]:
        """Checked label sets of both sides of the pairs and the statistics to weigh them by."""
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
        return labels, labels if ref_labels is None else ref_labels, statistics

    @torch.no_grad()
    def _pair_weights(
        self, labels: Tensor, ref_labels: Tensor, statistics: LabelStatistics, dtype: torch.dtype
    ) -> Tensor:
        _, jaccard = label_overlap(labels, ref_labels, dtype)
        by_label = self.level == "label"
        inverse_counts = statistics.inverse_frequency() if by_label else statistics.inverse_cooccurrence()
        return pairwise_label_weights(labels, ref_labels, jaccard, inverse_counts, self.power, self.overlap_power)

    @torch.no_grad()
    def _anchor_weights(self, labels: Tensor, statistics: LabelStatistics, dtype: torch.dtype) -> Tensor:
        return anchor_weights(labels, statistics.inverse_frequency(), self.anchor_power, dtype)
