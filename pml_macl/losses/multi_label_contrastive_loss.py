"""The contrastive loss on label sets."""

from typing import Any

import torch
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity
from pytorch_metric_learning.reducers import BaseReducer, DivisorReducer, MultipleReducers
from pytorch_metric_learning.regularizers import BaseRegularizer
from torch import Tensor
from torch.nn.functional import normalize

from pml_macl.checks import check_choice, check_range
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.functional import (
    PairTerms,
    fused_contrastive_loss,
    masks_from_indices,
    positive_negative_masks,
    positive_pair_losses,
)
from pml_macl.labels import label_dtype, label_overlap
from pml_macl.losses.base_multi_label_loss import BaseMultiLabelLoss, check_reducer
from pml_macl.reducers import (
    FrequencyWeightedReducer,
    MulSupConReducer,
    PairWeightedReducer,
    SimilarityDissimilarityReducer,
)
from pml_macl.statistics import LabelStatistics, check_statistics

ENGINES = ("auto", "fused", "reference")
FUSED_REDUCERS = (FrequencyWeightedReducer, MulSupConReducer, SimilarityDissimilarityReducer)


class MultiLabelContrastiveLoss(BaseMultiLabelLoss):
    r"""The supervised contrastive loss on label sets that MACL and its baselines are settings of.

    .. math::
        L = \frac{1}{\sum_i a_i} \sum_i a_i \sum_{p \in P(i)} \hat w_{ip}
            \Bigl[-\log \frac{\exp(s_{ip} / \tau_{ip})}{\sum_{k \in P(i) \cup N(i)} \exp(s_{ik} / \tau_{ik})}\Bigr]

    over the anchors that have a positive. :math:`P(i)` are the rows that share a label with the anchor and have a
    Jaccard similarity of at least ``positive_threshold``, :math:`N(i)` the others of at most ``negative_threshold``,
    or both are what ``indices_tuple`` says. The distance gives the logits :math:`s_{ij} / \tau_{ij}`; the class emits
    the loss in brackets for each positive pair, and the reducer weighs it. As it stands, with one temperature and equal
    weights, it is SupCon with any shared label (:class:`SupConAnyLoss`). A batch without a positive pair gives a
    differentiable 0.

    Args:
        num_classes: number of classes C; without ``label_statistics`` the label frequencies are then learnt from the
            training batches (a batch is counted before it is weighted; only in training mode with gradients enabled).
        label_statistics: label frequencies to use as they are. With neither, those of the batch are used.
        positive_threshold: smallest Jaccard similarity of a positive pair, in [0, 1]; 0 takes any shared label.
        negative_threshold: largest Jaccard similarity of a negative pair, in [0, 1]; 0 takes no shared label, 1 keeps
            every row that is not a positive.
        engine: ``"fused"`` computes value and gradient in one pass over row chunks and keeps no (N, M) matrix for
            backward; ``"reference"`` takes one readable step after the other and serves every distance and reducer;
            ``"auto"`` is fused where that is possible: cosine similarity under ``TemperatureScheduledSimilarity``,
            one of this package's reducers, no collected stats. The fused gradient cannot be differentiated again.
        **kwargs: for PML's ``BaseMetricLossFunction``: ``distance`` (a ``TemperatureScheduledSimilarity``, or any PML
            distance, which is then the similarity under the default temperature), ``reducer`` (any of PML's but for
            ``DivisorReducer`` and ``ClassWeightedReducer``), ``embedding_regularizer``, ``embedding_reg_weight``,
            ``collect_stats``.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a number is out of its range, ``num_classes`` disagrees with ``label_statistics``, or the reducer
            cannot work on label sets.
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
        **kwargs: Any,
    ) -> None:
        check_choice("engine", engine, ENGINES)
        check_range("positive_threshold", positive_threshold, 0, 1)
        check_range("negative_threshold", negative_threshold, 0, 1)
        check_statistics(label_statistics)
        if "temperature" in kwargs:
            raise TypeError(
                f"{type(self).__name__} takes no temperature: it is the distance's; give "
                "distance=TemperatureScheduledSimilarity(temperature=...)"
            )
        regularizer = kwargs.get("embedding_regularizer")
        if regularizer is not None and not isinstance(regularizer, BaseRegularizer):
            raise TypeError(
                "embedding_regularizer must be a pytorch_metric_learning regularizer, "
                f"got {type(regularizer).__name__}; construct one"
            )
        if kwargs.get("reducer") is not None:
            _check_reducer(kwargs["reducer"])
        super().__init__(**kwargs)
        if not isinstance(self.distance, TemperatureScheduledSimilarity):
            self.distance = self.similarity_under_temperature(self.distance)
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
                f"got {num_classes} and statistics of {sorted(sizes)} classes"
            )
        self.num_classes = next(iter(sizes), None)
        self.engine = engine
        self.add_to_recordable_attributes(list_of_names=["positive_threshold", "negative_threshold"], is_stat=False)
        self.add_to_recordable_attributes(
            list_of_names=["num_pos_pairs", "num_neg_pairs", "anchors_without_positives", "mean_positive_overlap"],
            is_stat=True,
        )

    def similarity_under_temperature(self, distance: BaseDistance | None) -> TemperatureScheduledSimilarity:
        """Default temperatures over a PML distance, or over the cosine similarity."""
        return TemperatureScheduledSimilarity(overlap_scale=0, rarity_scale=0, distance=distance)

    def get_default_distance(self) -> TemperatureScheduledSimilarity:
        return self.similarity_under_temperature(None)

    def get_default_reducer(self) -> PairWeightedReducer:
        return FrequencyWeightedReducer(power=0)

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        reason = self._not_fused()
        if self.engine == "fused" and reason is not None:
            raise ValueError(f'engine="fused" is not possible with {reason}; take engine="auto" or "reference"')
        if self.engine != "reference" and reason is None:
            return self._fused_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        positives, negatives = self._pairs(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        statistics = self._statistics(labels)
        logits = self.distance(embeddings, ref_emb, labels, ref_labels, statistics)
        losses, anchors, indices = positive_pair_losses(logits, positives, negatives)
        if len(losses) == 0:
            zero_losses: dict[str, Any] = self.zero_losses()
            return zero_losses
        return {
            "loss": {
                "losses": losses,
                "indices": (anchors, indices),
                "reduction_type": "pos_pair",
                "ref_labels": ref_labels,
                "label_statistics": statistics,
            }
        }

    def _pair_reducer(self) -> BaseReducer:
        """The reducer of the pair losses, where others reduce the regularizer's."""
        if not isinstance(self.reducer, MultipleReducers):
            return self.reducer
        named: dict[str, BaseReducer] = dict(self.reducer.reducers)  # torch's ModuleDict has no get
        return named.get("loss", self.reducer.default_reducer)

    def _not_fused(self) -> str | None:
        """What asks for the reference engine, or None."""
        reducer = self._pair_reducer()
        similarity = self.distance.distance
        if type(reducer) not in FUSED_REDUCERS:  # a subclass may weigh in its own way
            return f"the reducer {type(reducer).__name__}"
        if type(self.distance) is not TemperatureScheduledSimilarity or type(similarity) is not CosineSimilarity:
            return f"the distance {type(similarity).__name__}"
        if similarity.p != 2 or similarity.power != 1:
            return "a norm or power of the cosine similarity"
        if any(part.collect_stats for part in (self, self.distance, similarity, reducer)):
            return "collected stats"
        return None

    def _fused_loss(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> dict[str, Any]:
        other_labels = labels if ref_labels is None else ref_labels
        masks = None
        if indices_tuple is not None:
            masks = masks_from_indices(indices_tuple, len(labels), len(other_labels), embeddings.device)
        statistics = self._statistics(labels)
        dtype = label_dtype(embeddings)
        query = normalize(embeddings.to(dtype))
        reference = None if ref_emb is None else normalize(ref_emb.to(dtype))
        reducer = self._pair_reducer()
        frequencies = reducer.label_statistics or statistics
        terms = PairTerms(
            labels=labels,
            ref_labels=other_labels,
            anchor_temperatures=self.distance.anchor_temperatures(labels, statistics, dtype),
            anchor_weights=reducer.anchor_weights(labels, ref_labels, frequencies, dtype),
            divide_by_count=reducer.divide_by_count,
            overlap_scale=self.distance.overlap_scale,
            min_temperature=self.distance.min_temperature,
            positive_threshold=self.positive_threshold,
            negative_threshold=self.negative_threshold,
            exclude_self=ref_emb is None and masks is None,
            masks=masks,
            **reducer.weight_terms(labels, ref_labels, frequencies),
        )
        loss = fused_contrastive_loss(query, reference, terms)
        self.distance.advance()
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}

    def _pairs(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor | None,
        ref_labels: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(N, M) masks of the positives and of the negatives."""
        other_labels = labels if ref_labels is None else ref_labels
        shared, jaccard = label_overlap(labels, other_labels, label_dtype(embeddings))
        if indices_tuple is None:
            positives, negatives = positive_negative_masks(
                shared, jaccard, self.positive_threshold, self.negative_threshold, exclude_self=ref_emb is None
            )
        else:
            positives, negatives = masks_from_indices(indices_tuple, len(labels), len(other_labels), shared.device)
        self._set_stats(positives, negatives, jaccard)
        return positives, negatives

    def _statistics(self, labels: Tensor) -> LabelStatistics:
        if self.label_statistics is None:
            return LabelStatistics.from_labels(labels)
        if self.learns_statistics and self.training and torch.is_grad_enabled():
            self.label_statistics.update(labels)
        return self.label_statistics

    def _set_stats(self, positives: Tensor, negatives: Tensor, jaccard: Tensor) -> None:
        if self.collect_stats:
            num_positives, num_negatives = positives.sum(), negatives.sum()
            without = (~positives.any(dim=1)).sum()
            overlap = jaccard[positives].sum() / num_positives.clamp(min=1)
            counts = torch.stack([num_positives, num_negatives, without]).tolist()
            self.num_pos_pairs, self.num_neg_pairs, self.anchors_without_positives = counts
            self.mean_positive_overlap = overlap.item()


def _check_reducer(reducer: BaseReducer) -> None:
    check_reducer(reducer)
    if any(isinstance(module, DivisorReducer) for module in reducer.modules()):
        raise ValueError("DivisorReducer is not supported: this loss has no divisor; use FrequencyWeightedReducer")
