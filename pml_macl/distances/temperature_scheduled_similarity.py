"""The distance of MACL, a similarity divided by a temperature per pair."""

from typing import Any

import torch
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity, DotProductSimilarity
from torch import Tensor, nn

from pml_macl.checks import check_batch, check_bool, check_instance, check_positive, check_range
from pml_macl.distances.constant_temperature import ConstantTemperature
from pml_macl.distances.temperature_schedule import TemperatureSchedule
from pml_macl.functional import mean_over_labels, pairwise_temperatures
from pml_macl.labels import check_labels, check_num_classes, label_dtype
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.statistics import LabelStatistics, check_statistics


class TemperatureScheduledSimilarity(BaseDistance):
    r"""Similarity divided by a temperature that depends on the labels of the pair.

    This is the dynamic temperature scaling (DTS) of MACL (Amir and Aptoula, Multi-Label Adaptive Contrastive Learning,
    arXiv 2512.16294):

    .. math::
        x_{ij} = s_{ij} / \tau_{ij}, \quad
        \tau_{ij} = \max\bigl(\tau(t) (1 + \text{overlap_scale} J_{ij}) (1 - \text{rarity_scale} r_i), \tau_{min}\bigr)

    :math:`J_{ij}` is the Jaccard similarity of the pair, and :math:`r_i` is the mean log-rarity of the anchor's labels.
    The temperature rises with the Jaccard similarity, because a contrastive loss makes :math:`s_{ip} / \tau_{ip}` equal
    for all positives: pairs that share more labels end up closer. Without labels, only :math:`\tau(t)` applies, so you
    can use this class wherever PML takes a distance.

    To use your own temperatures, override :meth:`pair_temperatures`.

    Args:
        temperature: constant :math:`\tau(t)`, > 0. A ``schedule`` replaces it.
        overlap_scale: relative increase of the temperature from no shared label to equal label sets, >= 0.
        rarity_scale: relative decrease of the temperature from the most frequent to the rarest labels, in [0, 1].
        schedule: :math:`\tau(t)`, for example :class:`LinearTemperature`, or :class:`LearnableTemperature` to train it.
        distance: PML distance that computes :math:`s_{ij}`; its sign is flipped if smaller means more similar. None
            uses ``CosineSimilarity``.
        label_statistics: label frequencies for the rarity; None uses those of the calling loss, or those of ``labels``
            if there are none.
        min_temperature: :math:`\tau_{min}`, > 0.
        auto_advance: whether each call in training mode with gradients enabled advances the schedule by one step. Set
            it to False if several calls make one optimizer step, as with gradient accumulation or several views. Then
            call :meth:`advance` after each ``optimizer.step()``.
        **kwargs: arguments of PML's ``BaseDistance``: ``collect_stats``.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of its range. With a negative ``overlap_scale``, the loss could fall by raising
            every similarity.

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
        temperature: float = 0.2,
        overlap_scale: float = 1.0,
        rarity_scale: float = 0.3,
        schedule: TemperatureSchedule | None = None,
        distance: BaseDistance | None = None,
        label_statistics: LabelStatistics | None = None,
        min_temperature: float = 0.01,
        auto_advance: bool = True,
        **kwargs: Any,
    ) -> None:
        check_instance("distance", distance, BaseDistance, "a pytorch_metric_learning distance")
        distance = CosineSimilarity() if distance is None else distance
        if isinstance(distance, TemperatureScheduledSimilarity):
            raise TypeError(
                "distance must not be a TemperatureScheduledSimilarity, because both temperatures would apply; leave "
                "the temperature out, or pass the distance inside it, such as CosineSimilarity()"
            )
        check_instance("schedule", schedule, TemperatureSchedule, "a temperature schedule")
        if isinstance(temperature, nn.Parameter):
            raise TypeError(
                "temperature must be a number, got a Parameter; to train it, use schedule=LearnableTemperature(initial)"
            )
        if type(self).forward is not TemperatureScheduledSimilarity.forward:
            raise TypeError(
                f"{type(self).__name__} must not override forward, because losses do not call it; override "
                "pair_temperatures or logits"
            )
        if given := kwargs.keys() & {"normalize_embeddings", "p", "power", "is_inverted"}:
            raise TypeError(
                f"{', '.join(sorted(given))} belongs to the similarity inside; pass it there, for example "
                "distance=DotProductSimilarity(power=2)"
            )
        check_bool("auto_advance", auto_advance)
        check_statistics(label_statistics)
        check_positive("temperature", temperature)
        check_positive("min_temperature", min_temperature)
        check_range("rarity_scale", rarity_scale, 0, 1)
        if isinstance(overlap_scale, (int, float)) and overlap_scale < 0:
            raise ValueError(
                f"overlap_scale must be >= 0, got {overlap_scale}: if the temperature falls with the Jaccard "
                "similarity, raising all similarities lowers the loss, which ruins retrieval; use 0 to "
                "ignore the Jaccard similarity"
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
        self.auto_advance = auto_advance
        self.schedule = ConstantTemperature(temperature) if schedule is None else schedule
        self.distance = distance
        self.label_statistics = label_statistics
        self.add_to_recordable_attributes(list_of_names=["temperature", "overlap_scale", "rarity_scale"], is_stat=False)
        self.add_to_recordable_attributes(
            list_of_names=["min_pair_temperature", "mean_pair_temperature", "max_pair_temperature"], is_stat=True
        )

    @property
    def temperature(self) -> Tensor:
        r""":math:`\tau(t)` at the current step, a () float64 tensor (float32 on MPS) without a gradient."""
        on_mps = any(x.device.type == "mps" for x in (*self.schedule.buffers(), *self.schedule.parameters()))
        temperature: Tensor = self.schedule(torch.float32 if on_mps else torch.float64)
        return temperature.detach()

    def forward(
        self,
        query_emb: Tensor,
        ref_emb: Tensor | None = None,
        labels: Tensor | None = None,
        ref_labels: Tensor | None = None,
    ) -> Tensor:
        r"""Compute the similarity of each query to each reference, divided by the temperature of the pair.

        Args:
            query_emb: (N, D) embeddings.
            ref_emb: (M, D) embeddings; None uses ``query_emb``.
            labels: (N, C) multi-hot label sets; None applies :math:`\tau(t)` to all pairs.
            ref_labels: (M, C) multi-hot label sets; required with ``ref_emb`` and ``labels``.

        Returns:
            (N, M) logits.

        Raises:
            TypeError, ValueError: an argument has a wrong type, shape or value.
        """
        self.reset_stats()
        if labels is not None:
            labels, ref_labels = check_batch(query_emb, labels, ref_emb, ref_labels)
            pairs = Pairs(labels, ref_labels, dtype=label_dtype(query_emb))
            temperatures = pairs.to_tensor(self.pair_temperatures(pairs[:]))
            if self.collect_stats and len(pairs) and pairs.num_references:
                values = (temperatures.min(), temperatures.mean(), temperatures.max())
                self.set_temperature_stats(*(value.item() for value in values))
        elif ref_labels is not None:
            raise ValueError("ref_labels was given without labels; give both or neither")
        else:
            temperatures = self._scheduled(query_emb)
        logits = self.logits(query_emb, ref_emb, temperatures)
        self.advance_after_call()
        return logits

    def logits(self, query_emb: Tensor, ref_emb: Tensor | None, temperatures: Tensor) -> Tensor:
        """Compute the similarity of each pair, divided by its temperature. The schedule does not advance.

        Args:
            query_emb: (N, D) embeddings.
            ref_emb: (M, D) embeddings; None uses ``query_emb``.
            temperatures: temperatures > 0 that broadcast to (N, M).

        Returns:
            (N, M) logits.
        """
        return self._signed(self.distance(query_emb, ref_emb)) / temperatures

    def pair_temperatures(self, block: PairBlock) -> Tensor | float:
        r"""Compute the temperature :math:`\tau_{ij}` of each pair in a block of anchors.

        Override this method to use your own temperatures. Losses call it in either engine. Parameters of this module
        that it uses receive gradients.

        Args:
            block: n anchors and M references.

        Returns:
            Temperatures > 0 of shape (n, M), or (n, 1), () or a number if they do not depend on the references.

        Raises:
            ValueError: the label frequencies and the labels have different numbers of classes.
        """
        pairs = block.pairs
        temperature = self.schedule(pairs.dtype)
        zero = torch.zeros((), dtype=pairs.dtype, device=pairs.device)
        rarity = zero.expand(1)
        if self.rarity_scale:
            statistics = self.label_statistics or pairs.statistics
            check_num_classes(block.labels, statistics.num_classes)
            rarity = mean_over_labels(block.labels, statistics.label_rarity(pairs.dtype).to(block.labels.device))
        return pairwise_temperatures(
            block.jaccard if self.overlap_scale else zero.expand(1, 1),
            rarity,
            temperature,
            self.overlap_scale,
            self.rarity_scale,
            self.min_temperature,
        )

    def temperatures(self, labels: Tensor, ref_labels: Tensor | None = None) -> Tensor:
        r"""Compute the temperature :math:`\tau_{ij}` of each pair at the current step. The schedule does not advance.

        Args:
            labels: (N, C) multi-hot label sets of the anchors.
            ref_labels: (M, C) multi-hot label sets of the references; None uses ``labels``.

        Returns:
            (N, M) temperatures in torch's default dtype.

        Raises:
            TypeError, ValueError: labels are not multi-hot, see :func:`~pml_macl.labels.check_labels`.
        """
        labels = check_labels(labels)
        if ref_labels is not None:
            ref_labels = check_labels(ref_labels, num_classes=labels.shape[1], name="ref_labels")
        pairs = Pairs(labels, ref_labels, dtype=torch.get_default_dtype())
        return pairs.to_tensor(self.pair_temperatures(pairs[:])).detach().expand(len(pairs), pairs.num_references)

    def advance(self) -> None:
        """Advance the schedule by one step."""
        self.schedule.advance()

    def advance_after_call(self) -> None:
        """Advance the schedule if ``auto_advance`` is True, in training mode with gradients enabled."""
        if self.auto_advance and self.training and torch.is_grad_enabled():
            self.advance()

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        return self._signed(self.distance.compute_mat(query_emb, ref_emb)) / self._scheduled(query_emb)

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        return self._signed(self.distance.pairwise_distance(query_emb, ref_emb)) / self._scheduled(query_emb)

    def _scheduled(self, embeddings: Tensor) -> Tensor:
        r"""Compute :math:`\tau(t)` in the dtype for these embeddings."""
        temperature: Tensor = self.schedule(label_dtype(embeddings))
        return temperature

    def why_no_inner_products(self) -> str | None:
        """Return the reason why :meth:`inner_products` cannot give the similarities of :meth:`logits`, or None."""
        similarity = self.distance
        if type(self).logits is not TemperatureScheduledSimilarity.logits:
            return f"the logits of {type(self).__name__}"
        if (
            getattr(type(similarity), "compute_mat", None) is not DotProductSimilarity.compute_mat
            or type(similarity).forward is not BaseDistance.forward
        ):
            return f"the distance {type(similarity).__name__}"
        return None if similarity.power == 1 else "a power of the similarity"

    def inner_products(self, query_emb: Tensor, ref_emb: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Compute embeddings whose inner products are the similarities, for a loss that keeps no (N, M) matrix.

        Args:
            query_emb: (N, D) embeddings.
            ref_emb: (M, D) embeddings; None uses ``query_emb``.

        Returns:
            (N, D) and (M, D) embeddings; the second is None if ``ref_emb`` is None.
        """
        similarity = self.distance
        similarity.reset_stats()
        query = similarity.maybe_normalize(query_emb)
        reference = None if ref_emb is None else similarity.maybe_normalize(ref_emb)
        similarity.set_default_stats(
            query_emb, query_emb if ref_emb is None else ref_emb, query, query if reference is None else reference
        )
        return query, reference

    def set_temperature_stats(self, smallest: float, mean: float, largest: float) -> None:
        """Record the smallest, mean and largest temperature of the pairs of a batch if ``collect_stats`` is True."""
        if self.collect_stats:
            self.min_pair_temperature, self.mean_pair_temperature, self.max_pair_temperature = smallest, mean, largest

    def _signed(self, distances: Tensor) -> Tensor:
        return distances if self.distance.is_inverted else -distances
