"""Base class of the reducers that weight pairs by their labels."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from pytorch_metric_learning.reducers import BaseReducer
from torch import Tensor

from pml_macl.checks import check_bool
from pml_macl.functional import weighted_anchor_mean
from pml_macl.labels import check_labels, check_num_classes, label_dtype
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.statistics import LabelStatistics, check_statistics


class PairWeightedReducer(BaseReducer, ABC):
    r"""Base class of reducers whose weights depend on labels: a weighted mean per anchor, then over anchors.

    .. math:: L = \sum_i a_i \sum_p \frac{w_{ip}}{\sum_q w_{iq}} \ell_{ip} \Big/ \sum_i a_i

    The sum over i runs over the anchors whose pairs have a weight above 0. A subclass implements :meth:`pair_weights`
    for :math:`w_{ip}`. It overrides :meth:`anchor_weights` for :math:`a_i` unless all anchors have equal weight. The
    losses of this package call both methods in either engine. The reduction type of a PML loss decides which weights
    apply:

    - ``pos_pair``: the formula above.
    - ``triplet``: the formula above, with the weight of anchor and positive.
    - ``neg_pair``: equal weights for the pairs of an anchor, and :math:`a_i` for the anchors.
    - ``element``: the mean over rows, weighted by :math:`a_i`.
    - ``already_reduced``: no weights; the loss passes through unchanged.

    The reducer reads label sets and frequencies from the entries ``pairs`` and ``ref_labels`` of the loss dictionary if
    they exist, just as PML's ``DivisorReducer`` reads ``divisor``. PML's own losses pass 1-D class indices, which the
    reducer treats as label sets of one label. A positive has the class of its anchor, so references need no labels.

    Args:
        label_statistics: label frequencies; None uses those of the loss, or those of the batch if the loss has none.
        divide_by_count: divide the weighted sum of an anchor by the number of its losses, not by the sum of weights.
        **kwargs: arguments of PML's ``BaseReducer``: ``collect_stats``.

    Raises:
        TypeError: ``label_statistics`` is not a ``LabelStatistics``, or ``divide_by_count`` is not a bool.
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
        """Compute the weight of each pair in a block of anchors.

        Args:
            block: n anchors and M references. Other parts share its matrices, so do not change them in place.

        Returns:
            Finite weights >= 0 that broadcast to (n, M). Only the weights of positive pairs are used. They receive no
            gradient.
        """

    def anchor_weights(self, pairs: Pairs) -> Tensor:
        """Compute the weight of each anchor.

        Args:
            pairs: the pairs of the batch.

        Returns:
            (N,) weights >= 0. The default is 1 for each anchor.
        """
        return torch.ones(len(pairs), dtype=pairs.dtype, device=pairs.device)

    def statistics_of(self, pairs: Pairs) -> LabelStatistics:
        """Return the label frequencies: the reducer's own, or those of the pairs if it has none.

        Args:
            pairs: the pairs of the batch.

        Returns:
            The label frequencies.

        Raises:
            ValueError: the frequencies and the labels have different numbers of classes.
        """
        statistics = self.label_statistics or pairs.statistics
        check_num_classes(pairs.labels, statistics.num_classes)
        return statistics

    def unpack_loss_info(self, loss_info: dict[str, Any]) -> tuple[Any, Any, str, dict[str, Any]]:
        losses, indices, reduction_type, _ = super().unpack_loss_info(loss_info)
        names = ("num_losses",) if reduction_type == "already_reduced" else ("pairs", "ref_labels")
        return losses, indices, reduction_type, {name: loss_info[name] for name in names if name in loss_info}

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
        # Some PML losses return shape (rows, 1).
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
        pairs = self._pairs(losses, embeddings, labels, **entry)
        if entry.get("pairs") is None and labels.ndim == 1:
            positives = anchors  # of the same class
        elif not entry and len(positives) and positives.max() >= pairs.num_references:
            raise ValueError(
                f"ref_labels must reach the reducer if the loss takes ref_emb, got {pairs.num_references} labels and a "
                f"pair with reference {int(positives.max())}; put ref_labels into the entry that compute_loss returns"
            )
        with torch.no_grad():
            weights = pairs.to_tensor(self.pair_weights(pairs[:]))
        weights = weights.expand(len(pairs), pairs.num_references)[anchors, positives]
        return weighted_anchor_mean(losses, anchors, weights, self._anchor_weights(pairs), self.divide_by_count)

    def triplet_reduction(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.pos_pair_reduction(*args, **kwargs)

    @torch.no_grad()
    def _anchor_weights(self, pairs: Pairs) -> Tensor:
        return pairs.to_tensor(self.anchor_weights(pairs))

    def _pairs(
        self,
        losses: Tensor,
        embeddings: Tensor,
        labels: Tensor | None,
        pairs: Pairs | None = None,
        ref_labels: Tensor | None = None,
    ) -> Pairs:
        """Return the pairs that the loss passed, or create them from its labels."""
        if pairs is not None:
            return pairs
        if labels is None:
            raise ValueError(
                f"{type(self).__name__} needs labels to compute weights, got None; pass labels to the loss"
            )
        if labels.ndim == 1:
            if self.label_statistics is None:
                _, labels = torch.unique(labels, return_inverse=True)
            num_classes = -1 if self.label_statistics is None else self.label_statistics.num_classes
            labels = torch.nn.functional.one_hot(labels.long(), num_classes)
        labels = check_labels(labels).to(embeddings.device)
        return Pairs(labels, ref_labels, statistics=self.label_statistics, dtype=label_dtype(losses))
