"""The contrastive loss on label sets, which MACL and its baselines configure."""

import copy
from typing import Any

import torch
from pytorch_metric_learning.reducers import BaseReducer, DivisorReducer, MultipleReducers
from pytorch_metric_learning.regularizers import BaseRegularizer
from torch import Tensor

from pml_macl.batch_share import BatchShare
from pml_macl.checks import check_choice, check_index, check_range
from pml_macl.deferred_check import DeferredCheck
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.engine import Terms, contrastive_loss
from pml_macl.functional import positive_pair_losses
from pml_macl.labels import label_dtype
from pml_macl.losses.base_multi_label_loss import BaseMultiLabelLoss, check_reducer
from pml_macl.pair_observer import PairObserver, PairStats
from pml_macl.pairs import Pairs
from pml_macl.reducers import FrequencyWeightedReducer, PairWeightedReducer
from pml_macl.relations import Relation
from pml_macl.statistics import LabelStatistics, check_statistics

ENGINES = ("auto", "fused", "reference")


class MultiLabelContrastiveLoss(BaseMultiLabelLoss):
    r"""Supervised contrastive loss on label sets, the base class of MACL and its baselines.

    .. math::
        L = \frac{1}{\sum_i a_i} \sum_i a_i \sum_{p \in P(i)} \hat w_{ip}
            \Bigl[-\log \frac{\exp(s_{ip} / \tau_{ip})}{\sum_{k \in P(i) \cup N(i)} \exp(s_{ik} / \tau_{ik})}\Bigr]

    The outer sums run over the anchors that have a positive. The positives :math:`P(i)` share a label with the anchor,
    and their Jaccard similarity is at least ``positive_threshold``. The negatives :math:`N(i)` are the other references
    whose Jaccard similarity is at most ``negative_threshold``. The loss ignores pairs between the two thresholds. If
    ``indices_tuple`` is given, it defines positives and negatives instead.

    The distance computes the logits :math:`s_{ij} / \tau_{ij}`. This class computes the loss in brackets for each
    positive pair. The reducer applies the weights :math:`\hat w_{ip}` and :math:`a_i`. The defaults are one temperature
    and equal weights, as in :class:`SupConAnyLoss`. For a batch without a positive pair, the loss and its gradient
    are 0.

    Args:
        num_classes: number of classes C, >= 1. Without ``label_statistics``, the loss then counts labels over the
            training batches. It adds a batch to the counts before it computes the weights, and only in training mode
            with gradients enabled.
        label_statistics: label frequencies, which the loss does not change. If both ``num_classes`` and
            ``label_statistics`` are None, the loss uses the frequencies of the batch.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 accepts any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1]; 0 accepts only pairs without a
            shared label, 1 accepts all references that are not positives.
        engine: how the loss and its gradient are computed.
            ``"fused"`` processes one block of anchors at a time, computes the loss and its analytic gradient together,
            and keeps no (N, M) matrix for the backward pass. It requires ``CosineSimilarity`` or
            ``DotProductSimilarity`` (also inside a ``TemperatureScheduledSimilarity``) and a ``PairWeightedReducer``,
            the base class of all reducers in this package. It supports no second derivatives.
            ``"reference"`` supports every distance and reducer: it passes the loss of each positive pair to the
            reducer, and torch's autograd computes the gradient.
            ``"auto"`` uses the fused engine if it can, otherwise the reference engine; :attr:`fallback` names the
            reason.
        temperature: base temperature, > 0; None uses that of ``distance``, or 0.2.
        relation: function of labels (n, ...) and reference labels (M, ...) that replaces the Jaccard similarity in
            positives, thresholds, temperatures and weights. It returns an (n, M) matrix of floats in [0, 1], or
            booleans, which count as 1 and 0. Pairs above 0 that reach ``positive_threshold`` are positives. Labels may
            have any dtype and shape (N, ...) unless the distance or the reducer uses label frequencies or shared
            labels. The relation receives no gradient and is called for one block of anchors at a time.
        **kwargs: arguments of PML's ``BaseMetricLossFunction``: ``distance`` (a ``TemperatureScheduledSimilarity``, or
            a PML distance, which the loss divides by the temperatures), ``reducer`` (any PML reducer except
            ``DivisorReducer`` and ``ClassWeightedReducer``), ``embedding_regularizer``, ``embedding_reg_weight``,
            ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of its range, ``num_classes`` and ``label_statistics`` disagree, or the reducer
            does not work on label sets.
    """

    distance: TemperatureScheduledSimilarity
    label_statistics: LabelStatistics | None

    def __init__(
        self,
        num_classes: int | None = None,
        label_statistics: LabelStatistics | None = None,
        positive_threshold: float = 0.0,
        negative_threshold: float = 0.0,
        engine: str = "auto",
        temperature: float | None = None,
        relation: Relation | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("engine", engine, ENGINES)
        check_range("positive_threshold", positive_threshold, 0, 1)
        check_range("negative_threshold", negative_threshold, 0, 1)
        check_statistics(label_statistics)
        regularizer = kwargs.get("embedding_regularizer")
        if regularizer is not None and not isinstance(regularizer, BaseRegularizer):
            raise TypeError(
                "embedding_regularizer must be a pytorch_metric_learning regularizer, "
                f"got {type(regularizer).__name__}; pass an instance such as LpRegularizer()"
            )
        if kwargs.get("reducer") is not None:
            _check_reducer(kwargs["reducer"])
        distance = kwargs.pop("distance", None)
        if temperature is not None:
            distance = self.similarity_under_temperature(distance=distance, temperature=temperature)
        elif not isinstance(distance, TemperatureScheduledSimilarity):
            distance = self.similarity_under_temperature(distance=distance)
        super().__init__(relation, distance=distance, **kwargs)
        self.positive_threshold = positive_threshold
        self.negative_threshold = negative_threshold
        self.learns_statistics = label_statistics is None and num_classes is not None
        if label_statistics is None and num_classes is not None:
            label_statistics = LabelStatistics(num_classes)
        self.label_statistics = label_statistics
        sizes = {module.num_classes for module in self.modules() if isinstance(module, LabelStatistics)}
        if len(sizes | {num_classes} - {None}) > 1:
            raise ValueError(
                "num_classes and the label_statistics of the loss, its distance and its reducer must agree, "
                f"got num_classes={num_classes} and label_statistics of {sorted(sizes)} classes; use the number of "
                "label columns in all of them"
            )
        self.num_classes = next(iter(sizes), None)
        self.engine = engine
        self.add_to_recordable_attributes(list_of_names=["positive_threshold", "negative_threshold"], is_stat=False)
        self.add_to_recordable_attributes(
            list_of_names=["num_pos_pairs", "num_neg_pairs", "anchors_without_positives", "mean_positive_overlap"],
            is_stat=True,
        )

    def similarity_under_temperature(self, **options: Any) -> TemperatureScheduledSimilarity:
        """Return the distance of the loss. Subclasses override it to change the temperatures.

        Args:
            **options: arguments of ``TemperatureScheduledSimilarity``: ``temperature``, and the ``distance`` that
                computes the similarities.

        Returns:
            The distance, which divides the similarities by temperatures.
        """
        return TemperatureScheduledSimilarity(overlap_scale=0, rarity_scale=0, **options)

    def get_default_distance(self) -> TemperatureScheduledSimilarity:
        return self.similarity_under_temperature()

    def get_default_reducer(self) -> PairWeightedReducer:
        return FrequencyWeightedReducer(power=0)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None = None,
        ref_emb: Tensor | None = None,
        ref_labels: Tensor | None = None,
        own: Tensor | None = None,
        share: BatchShare | None = None,
    ) -> Any:
        """Compute the loss of a batch.

        Args:
            embeddings: (N, D) embeddings of the anchors.
            labels: (N, C) multi-hot label sets; with a relation, any (N, ...) labels.
            indices_tuple: pairs (a1, p, a2, n) or triplets (a, p, n) from a miner; None forms pairs from the labels.
            ref_emb: (M, D) embeddings of the references; None uses the batch itself and never pairs a row with itself.
            ref_labels: (M, C) multi-hot label sets of the references, or (M, ...) labels; required with ``ref_emb``.
            own: (N,) int64, for each anchor the row of ``ref_emb`` that holds its own copy, for example in a memory.
                The loss ignores these pairs. Requires ``ref_emb``.
            share: the anchors of this process, if the batch is that of several processes. Use
                :class:`MultiLabelDistributedLossWrapper`, which sets it. Requires the fused engine.

        Returns:
            The output of the reducer: a () tensor, or PML's dictionary with ``DoNothingReducer``.

        Raises:
            TypeError, ValueError: an argument has a wrong type, shape or value. The state does not change.
        """
        if own is not None:
            _check_own(own, embeddings, ref_emb, self.deferred_check)
        loss = self._check_and_compute(embeddings, labels, indices_tuple, ref_emb, ref_labels, own=own, share=share)
        self.distance.advance_after_call()
        return loss

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
        fallback = self.fallback
        if share is not None and fallback is not None:
            raise ValueError(f"share needs the fused engine, which is not possible with {fallback}")
        if self.engine == "fused" and fallback is not None:
            raise ValueError(f'engine="fused" is not possible with {fallback}; use engine="auto" or "reference"')
        pairs = Pairs(
            labels,
            ref_labels,
            own,
            indices_tuple,
            self.positive_threshold,
            self.negative_threshold,
            self.label_statistics,
            label_dtype(embeddings),
            self.deferred_check,
            self.relation,
            share,
        )
        before = None
        if self.learns_statistics and self.label_statistics and self.training and torch.is_grad_enabled():
            before = None if self.relation is None else copy.deepcopy(self.label_statistics.state_dict())
            self.label_statistics.to(pairs.device).update(pairs.labels)
        differentiate = self._by_blocks if fallback is None else self._by_autograd
        try:
            entry = differentiate(embeddings, ref_emb, pairs)
        except Exception:
            if self.label_statistics is not None and before is not None:
                self.label_statistics.load_state_dict(before)  # a relation that fails must not change them
            raise
        return {"loss": entry}

    def _by_blocks(self, embeddings: Tensor, ref_emb: Tensor | None, pairs: Pairs) -> dict[str, Any]:
        """Compute the reduced loss in the fused engine, with the weights of the reducer."""
        query, reference = self.distance.inner_products(embeddings, ref_emb)
        reducer = self._pair_reducer()
        observer = PairObserver() if any(part.collect_stats for part in (self, self.distance, reducer)) else None
        terms = Terms(
            temperatures=lambda block: pairs.to_tensor(self.distance.pair_temperatures(block)),
            weights=reducer.pair_weights,
            anchor_weights=pairs.to_tensor(reducer.anchor_weights(pairs)),
            divide_by_count=reducer.divide_by_count,
            parameters=[parameter for parameter in self.distance.parameters() if parameter.requires_grad],
            observe=observer,
        )
        loss = contrastive_loss(query, reference, pairs, terms)
        entry = {"losses": loss, "indices": None, "reduction_type": "already_reduced"}
        num_anchors = len(pairs if pairs.share is None else pairs.share)
        return entry if observer is None else {**entry, "num_losses": self._set_stats(observer.stats(num_anchors))}

    def _by_autograd(self, embeddings: Tensor, ref_emb: Tensor | None, pairs: Pairs) -> dict[str, Any]:
        """Compute the loss of each positive pair, for any distance and any reducer."""
        block = pairs[:]
        temperatures = pairs.to_tensor(self.distance.pair_temperatures(block))
        logits = self.distance.logits(embeddings, ref_emb, temperatures)
        if self.collect_stats or self.distance.collect_stats:
            observer = PairObserver()
            if pairs.num_references and len(pairs):
                observer(block, temperatures)
            self._set_stats(observer.stats(len(pairs)))
        losses, anchors, indices = positive_pair_losses(logits, block.positives, block.negatives)
        if len(losses) == 0:
            return dict(self.zero_loss())
        return {"losses": losses, "indices": (anchors, indices), "reduction_type": "pos_pair", "pairs": pairs}

    def _set_stats(self, stats: PairStats) -> int:
        """Record the statistics of this loss and its distance. Return the number of positive pairs."""
        if self.collect_stats:
            self.num_pos_pairs, self.num_neg_pairs = stats.num_positives, stats.num_negatives
            self.anchors_without_positives = stats.anchors_without_positives
            self.mean_positive_overlap = stats.mean_positive_overlap
        self.distance.set_temperature_stats(stats.min_temperature, stats.mean_temperature, stats.max_temperature)
        return stats.num_positives

    def _pair_reducer(self) -> BaseReducer:
        """Return the reducer of the pair losses; in ``MultipleReducers``, other reducers handle the regularizer."""
        if not isinstance(self.reducer, MultipleReducers):
            return self.reducer
        named: dict[str, BaseReducer] = dict(self.reducer.reducers)  # ModuleDict has no method get
        return named.get("loss", self.reducer.default_reducer)

    @property
    def fallback(self) -> str | None:
        """Why the loss uses the reference engine; None if it uses the fused engine."""
        if self.engine == "reference":
            return 'engine="reference"'
        reducer = self._pair_reducer()
        if (
            not isinstance(reducer, PairWeightedReducer)
            or type(reducer).pos_pair_reduction is not PairWeightedReducer.pos_pair_reduction
            or type(reducer).forward is not BaseReducer.forward
        ):
            return f"the reducer {type(reducer).__name__}"
        return self.distance.why_no_inner_products()


def _check_reducer(reducer: BaseReducer) -> None:
    check_reducer(reducer)
    if any(isinstance(module, DivisorReducer) for module in reducer.modules()):
        raise ValueError(
            "reducer must not be a DivisorReducer, because this loss has no divisor; use FrequencyWeightedReducer or "
            "MeanReducer"
        )


def _check_own(own: Tensor, embeddings: Tensor, ref_emb: Tensor | None, deferred: DeferredCheck) -> None:
    if not isinstance(own, Tensor) or own.dtype is not torch.int64 or own.shape != embeddings.shape[:1]:
        found = f"{own.dtype} of shape {tuple(own.shape)}" if isinstance(own, Tensor) else type(own).__name__
        raise ValueError(f"own must be an int64 tensor with one entry per embedding ({len(embeddings)}), got {found}")
    if ref_emb is None:
        raise ValueError(
            "own was given without ref_emb; pass both or neither: without ref_emb no row is paired with itself"
        )
    check_index("own", own, len(ref_emb), deferred)
