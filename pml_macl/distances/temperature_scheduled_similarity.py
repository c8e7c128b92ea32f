"""A similarity under a temperature that depends on the labels and on the training step."""

from typing import Any

import torch
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity
from torch import Tensor

from pml_macl.checks import check_batch, check_instance, check_positive, check_range
from pml_macl.distances.constant_temperature import ConstantTemperature
from pml_macl.distances.scheduled_temperature import ScheduledTemperature
from pml_macl.functional import mean_over_labels, pairwise_temperatures
from pml_macl.labels import check_labels, label_dtype, label_overlap
from pml_macl.statistics import LabelStatistics, check_statistics


class TemperatureScheduledSimilarity(BaseDistance):
    r"""Similarity divided by a pairwise temperature: the dynamic temperature scaling (DTS) of MACL.

    Amir and Aptoula, Multi-Label Adaptive Contrastive Learning, arXiv 2512.16294, name what the temperature
    depends on (how many labels a pair shares, how rare the anchor's labels are); the formula is this package's:

    .. math::
        x_{ij} = s_{ij} / \tau_{ij}, \quad
        \tau_{ij} = \max\bigl(\tau(t) (1 + \text{overlap_scale} J_{ij}) (1 - \text{rarity_scale} r_i), \tau_{min}\bigr)

    with the Jaccard similarity :math:`J_{ij}` and the mean log-rarity :math:`r_i` of the anchor's labels. The
    temperature rises with overlap, because a contrastive loss equalises :math:`s_{ip} / \tau_{ip}` over the
    positives: pairs with more labels in common end up closer. Without labels only :math:`\tau(t)` applies, so the
    class stands wherever PML takes a distance.

    The schedule advances by one on each call in training mode with gradients enabled.

    Args:
        temperature: :math:`\tau`, > 0, where no ``schedule`` is given.
        overlap_scale: growth of the temperature from no overlap to equal label sets, >= 0.
        rarity_scale: fall of the temperature from the most frequent to the rarest labels, in [0, 1].
        schedule: :math:`\tau(t)`, e.g. :class:`LinearTemperature`; it replaces ``temperature``.
        distance: PML distance that gives :math:`s_{ij}`, negated unless it is inverted; None is ``CosineSimilarity``.
        label_statistics: frequencies that the rarity is computed from; None takes those of the loss that calls, and
            those of ``labels`` where there is none.
        min_temperature: :math:`\tau_{min}`, > 0.
        **kwargs: for PML's ``BaseDistance``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of its range; above all a negative ``overlap_scale``, with which the loss falls by
            raising every similarity.

    Example:
        >>> similarity = TemperatureScheduledSimilarity(temperature=0.1, rarity_scale=0.0)
        >>> similarity.temperatures(torch.tensor([[1, 1, 0], [1, 0, 0]]))
        tensor([[0.2000, 0.1500],
                [0.1500, 0.2000]])
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> similarity(embeddings)
        tensor([[10.,  0.],
                [ 0., 10.]])
    """

    def __init__(
        self,
        temperature: float = 0.1,
        overlap_scale: float = 1.0,
        rarity_scale: float = 0.3,
        schedule: ConstantTemperature | ScheduledTemperature | None = None,
        distance: BaseDistance | None = None,
        label_statistics: LabelStatistics | None = None,
        min_temperature: float = 0.01,
        **kwargs: Any,
    ) -> None:
        check_instance("distance", distance, BaseDistance, "a pytorch_metric_learning distance")
        distance = CosineSimilarity() if distance is None else distance
        if isinstance(distance, TemperatureScheduledSimilarity):
            raise TypeError(
                "distance must not be a TemperatureScheduledSimilarity itself: the temperatures would multiply"
            )
        if schedule is not None and not isinstance(schedule, (ConstantTemperature, ScheduledTemperature)):
            raise TypeError(f"schedule must be a temperature schedule, got {type(schedule).__name__}")
        check_statistics(label_statistics)
        check_positive("temperature", temperature)
        check_positive("min_temperature", min_temperature)
        check_range("rarity_scale", rarity_scale, 0, 1)
        if isinstance(overlap_scale, (int, float)) and overlap_scale < 0:
            raise ValueError(
                f"overlap_scale must be >= 0, got {overlap_scale}: if the temperature falls with overlap, the loss can "
                "fall by raising every similarity, which ruins retrieval"
            )
        check_range("overlap_scale", overlap_scale, 0)
        super().__init__(
            is_inverted=True,
            normalize_embeddings=distance.normalize_embeddings,
            p=distance.p,
            **kwargs,
        )
        self.overlap_scale = overlap_scale
        self.rarity_scale = rarity_scale
        self.min_temperature = min_temperature
        self.schedule = ConstantTemperature(temperature) if schedule is None else schedule
        self.distance = distance
        self.label_statistics = label_statistics
        self.add_to_recordable_attributes(list_of_names=["temperature", "overlap_scale", "rarity_scale"], is_stat=False)
        self.add_to_recordable_attributes(
            list_of_names=["min_pair_temperature", "mean_pair_temperature", "max_pair_temperature"], is_stat=True
        )

    @property
    def temperature(self) -> Tensor:
        r""":math:`\tau(t)` at the present step, a () float64 tensor."""
        temperature: Tensor = self.schedule()
        return temperature

    def forward(
        self,
        query_emb: Tensor,
        ref_emb: Tensor | None = None,
        labels: Tensor | None = None,
        ref_labels: Tensor | None = None,
        label_statistics: LabelStatistics | None = None,
    ) -> Tensor:
        """Similarity of each query to each reference, divided by its temperature.

        Args:
            query_emb: (N, D) embeddings.
            ref_emb: (M, D) embeddings; None is ``query_emb``.
            labels: (N, C) multi-hot label sets; None applies the scheduled temperature alone.
            ref_labels: (M, C) multi-hot label sets, needed with ``ref_emb`` and ``labels``.
            label_statistics: frequencies to use where the distance has none of its own.

        Returns:
            (N, M) logits.

        Raises:
            TypeError, ValueError: shapes, types or values do not fit.
        """
        self.reset_stats()
        if labels is not None:
            labels, ref_labels = check_batch(query_emb, labels, ref_emb, ref_labels)
        elif ref_labels is not None:
            raise ValueError("ref_labels was given without labels; give both or neither")
        similarities = self._signed(self.distance(query_emb, ref_emb))
        if labels is None:
            logits = similarities / self.temperature
        else:
            temperatures = self._temperatures(labels, ref_labels, label_statistics, label_dtype(query_emb))
            self._set_stats(temperatures)
            logits = similarities / temperatures
        self.advance()
        return logits

    def advance(self) -> None:
        """Let the schedule go on by one step, in training mode with gradients enabled."""
        if self.training and torch.is_grad_enabled():
            self.schedule.advance()

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        return self._signed(self.distance.compute_mat(query_emb, ref_emb)) / self.temperature

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        return self._signed(self.distance.pairwise_distance(query_emb, ref_emb)) / self.temperature

    def temperatures(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        r"""Temperature :math:`\tau_{ij}` of each pair at the present step; nothing advances.

        Args:
            labels: (N, C) multi-hot label sets of the anchors.
            ref_labels: (M, C) multi-hot label sets; None is ``labels``.

        Returns:
            (N, M) temperatures in torch's default type.

        Raises:
            TypeError, ValueError: as :func:`~pml_macl.labels.check_labels`.
        """
        labels = check_labels(labels)
        if ref_labels is not None:
            ref_labels = check_labels(ref_labels, num_classes=labels.shape[1], name="ref_labels")
        return self._temperatures(labels, ref_labels, None, torch.get_default_dtype())

    @torch.no_grad()
    def anchor_temperatures(
        self, labels: Tensor, label_statistics: LabelStatistics | None, dtype: torch.dtype
    ) -> Tensor:
        r"""Temperature :math:`\tau(t) (1 - \text{rarity_scale} r_i)` of each anchor, without overlap.

        Args:
            labels: (N, C) boolean label sets.
            label_statistics: frequencies to use where the distance has none of its own.
            dtype: floating-point type of the result.

        Returns:
            (N,) temperatures, not clamped.

        Raises:
            ValueError: the statistics are of another number of classes.
        """
        rarity = self._anchor_rarity(labels, label_statistics)
        return (self.temperature * (1 - self.rarity_scale * rarity)).to(dtype)

    @torch.no_grad()
    def _temperatures(
        self,
        labels: Tensor,
        ref_labels: Tensor | None,
        label_statistics: LabelStatistics | None,
        dtype: torch.dtype,
    ) -> Tensor:
        rarity = self._anchor_rarity(labels, label_statistics)
        _, jaccard = label_overlap(labels, labels if ref_labels is None else ref_labels, dtype)
        return pairwise_temperatures(
            jaccard, rarity, self.temperature, self.overlap_scale, self.rarity_scale, self.min_temperature
        )

    def _anchor_rarity(self, labels: Tensor, label_statistics: LabelStatistics | None) -> Tensor:
        statistics = self.label_statistics or label_statistics or LabelStatistics.from_labels(labels)
        check_labels(labels, num_classes=statistics.num_classes)
        return mean_over_labels(labels, statistics.label_rarity().to(labels.device))

    def _signed(self, distances: Tensor) -> Tensor:
        return distances if self.distance.is_inverted else -distances

    def _set_stats(self, temperatures: Tensor) -> None:
        if self.collect_stats and temperatures.numel():
            values = torch.stack([temperatures.min(), temperatures.mean(), temperatures.max()]).tolist()
            self.min_pair_temperature, self.mean_pair_temperature, self.max_pair_temperature = values
