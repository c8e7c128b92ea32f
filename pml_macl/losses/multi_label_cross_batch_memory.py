"""A memory of past embeddings and their label sets."""

from typing import Any

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.utils import common_functions as c_f
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from torch import Tensor, nn

from pml_macl.checks import check_batch, check_embeddings, check_indices_tuple, check_integer
from pml_macl.functional import positive_negative_masks
from pml_macl.labels import label_dtype, label_overlap


class MultiLabelCrossBatchMemory(CrossBatchMemory):
    r"""PML's ``CrossBatchMemory`` for label sets: positives and negatives come from past batches too.

    Wang et al., Cross-Batch Memory for Embedding Learning, arXiv 1912.06798. The last ``memory_size`` embeddings and
    their label sets stand in a queue. Each batch is enqueued first, then the loss takes the batch for anchors and the
    queue for references; the pair of a row with its own enqueued copy is left out. Gradients flow into the batch only.

    Which pairs there are says ``miner``, called on the batch and the queue. Without one it is label overlap, with the
    thresholds of the loss: its ``positive_threshold`` and ``negative_threshold``, or, for a ``MultiLabelLossWrapper``,
    its ``threshold``; a loss with neither takes rows that share a label as positives and all others as negatives.

    As in MoCo (He et al., arXiv 1911.05722) the queue can also hold what another network makes: rows that
    ``enqueue_mask`` marks are enqueued and are no anchors, all other rows are anchors and are not enqueued. Label
    statistics that the loss learns count each anchor once, and nothing in the queue.

    Unlike in PML, the queue's position is saved with the rest of the state, a failing call leaves the queue as it was,
    and ``indices_tuple`` refers to the enqueued copies of the batch wherever they stand in the queue.

    Args:
        loss: loss that accepts multi-hot labels and references: :class:`MACLLoss`, a baseline, a PML loss in a
            ``MultiLabelLossWrapper``, or another ``BaseMetricLossFunction`` with a ``forward`` of its own.
        embedding_size: D, >= 1.
        num_classes: C, >= 1.
        memory_size: length of the queue, >= 1.
        miner: miner of pairs or triplets that accepts multi-hot labels and references; None as said above. One that
            keeps only the most similar positives would choose the enqueued copies, which are left out afterwards. With
            a triplet loss take one that limits the pairs: the loss joins all positives of an anchor with all negatives.
        **kwargs: for PML's ``CrossBatchMemory``: ``collect_stats``.

    Attributes:
        embedding_memory: (memory_size, D) in the type and on the device of the last batch.
        label_memory: (memory_size, C) ``torch.bool``.
        num_enqueued: () int64, rows enqueued so far.

    Raises:
        TypeError: a number is not an integer, or the loss or the miner is of the wrong type.
        ValueError: a number is below 1, or the loss or the miner takes one class a row.

    Example:
        >>> from pml_macl.losses import MACLLoss
        >>> loss_fn = MultiLabelCrossBatchMemory(MACLLoss(), embedding_size=2, num_classes=2, memory_size=4)
        >>> embeddings, labels = torch.eye(2), torch.tensor([[1, 0], [0, 1]])
        >>> loss_fn(embeddings, labels)  # nothing shares a label yet
        tensor(0.)
        >>> loss_fn(embeddings, labels)
        tensor(0.0134)
        >>> loss_fn.queue_idx, loss_fn.has_been_filled
        (0, True)
    """

    embedding_memory: Tensor
    label_memory: Tensor
    num_enqueued: Tensor

    def __init__(
        self,
        loss: BaseMetricLossFunction,
        embedding_size: int,
        num_classes: int,
        memory_size: int = 1024,
        miner: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        sizes = (("embedding_size", embedding_size), ("num_classes", num_classes), ("memory_size", memory_size))
        for name, value in sizes:
            check_integer(name, value)
        _check_part("loss", loss, BaseMetricLossFunction, "MultiLabelLossWrapper")
        if miner is not None:
            _check_part("miner", miner, BaseMiner, "MultiLabelMinerWrapper")
        self.num_classes = num_classes  # reset_queue, which PML's constructor calls, needs it
        super().__init__(loss, embedding_size, memory_size, miner, **kwargs)

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Accept any name: the constructor looks at the loss itself."""

    @property
    def queue_idx(self) -> int:
        """Where the next row will be enqueued."""
        return int(self.num_enqueued) % int(self.memory_size)

    @property
    def has_been_filled(self) -> bool:
        """Whether the whole queue is in use."""
        return int(self.num_enqueued) >= int(self.memory_size)

    def reset_queue(self) -> None:
        """Empty the queue."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, self.num_classes, dtype=torch.bool))
        self.register_buffer("num_enqueued", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Any:
        """Enqueue a batch and compute its loss against the queue.

        Args:
            embeddings: (N, D) embeddings.
            labels: (N, C) multi-hot label sets.
            indices_tuple: pairs or triplets of a miner within the batch, taken in addition; positives and negatives are
                the enqueued copies. Not together with ``enqueue_mask``.
            enqueue_mask: (N,) ``torch.bool``: rows to enqueue; the others are the anchors. None enqueues all rows and
                takes them all as anchors.

        Returns:
            What the loss returns.

        Raises:
            TypeError, ValueError: shapes, types or values do not fit, or there are more rows to enqueue than
                ``memory_size``; the queue stays as it was then.
        """
        self.reset_stats()
        check_embeddings(embeddings, self.embedding_size)
        labels, _ = check_batch(embeddings, labels, num_classes=self.num_classes)
        check_indices_tuple(indices_tuple, len(embeddings), len(embeddings))
        new_embeddings, new_labels = embeddings, labels
        if enqueue_mask is not None:
            if indices_tuple is not None:
                raise ValueError("indices_tuple cannot be combined with enqueue_mask; give one of them")
            enqueue_mask = _check_mask(enqueue_mask, len(embeddings)).to(embeddings.device)
            new_embeddings, new_labels = embeddings[enqueue_mask], labels[enqueue_mask]
            embeddings, labels = embeddings[~enqueue_mask], labels[~enqueue_mask]
        # The queue with the batch in it is a new tensor. It replaces the old one when the loss is known, so a call that
        # fails changes nothing, and a graph that was built on the old one can still be differentiated.
        embedding_memory, label_memory, slots = self._enqueue(new_embeddings, new_labels)
        num_enqueued = int(self.num_enqueued) + len(slots)
        memory, memory_labels = embedding_memory[:num_enqueued], label_memory[:num_enqueued]
        own_slots = slots if enqueue_mask is None else None
        pairs = self.create_indices_tuple(embeddings, labels, memory, memory_labels, indices_tuple, own_slots)
        loss = self.loss(embeddings, labels, pairs, memory, memory_labels)
        self.embedding_memory, self.label_memory = embedding_memory, label_memory
        self.num_enqueued = torch.full_like(self.num_enqueued, num_enqueued)
        return loss

    def add_to_memory(self, embeddings: Tensor, labels: Tensor) -> None:
        """Enqueue rows without computing a loss, for instance to fill the queue before training.

        Args:
            embeddings: (N, D) embeddings, N <= ``memory_size``.
            labels: (N, C) multi-hot label sets.

        Raises:
            TypeError, ValueError: as :meth:`forward`.
        """
        check_embeddings(embeddings, self.embedding_size)
        labels, _ = check_batch(embeddings, labels, num_classes=self.num_classes)
        self.embedding_memory, self.label_memory, slots = self._enqueue(embeddings, labels)
        self.num_enqueued = self.num_enqueued + len(slots)

    def create_indices_tuple(
        self,
        embeddings: Tensor,
        labels: Tensor,
        memory: Tensor,
        memory_labels: Tensor,
        input_indices_tuple: tuple[Tensor, ...] | None = None,
        own_slots: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Pairs or triplets of checked anchors and rows of the queue.

        Args:
            embeddings: (N, D) anchors.
            labels: (N, C) their label sets.
            memory: (M, D) rows of the queue that are in use.
            memory_labels: (M, C) their label sets.
            input_indices_tuple: pairs or triplets within the batch, to be added.
            own_slots: (N,) where the anchors themselves stand in the queue; None where they do not.

        Returns:
            Indices (a1, p, a2, n) or (a, p, n); p and n are rows of ``memory``.
        """
        if self.miner is None:
            pairs = self._overlapping_pairs(embeddings, labels, memory_labels)
        else:
            pairs = self.miner(embeddings, labels, memory, memory_labels)
            check_indices_tuple(pairs, len(embeddings), len(memory))
        if own_slots is None:
            return pairs
        pairs = _without_own_copies(pairs, own_slots)
        if input_indices_tuple is None:
            return pairs
        given = tuple(index.to(embeddings.device, torch.long) for index in input_indices_tuple)
        given = (given[0], *(own_slots[x] if k % 2 or len(given) == 3 else x for k, x in enumerate(given[1:], 1)))
        convert = lmu.convert_to_pairs if len(pairs) == 4 else lmu.convert_to_triplets
        added: tuple[Tensor, ...] = c_f.concatenate_indices_tuples(pairs, convert(given, labels))
        return added

    def _overlapping_pairs(self, embeddings: Tensor, labels: Tensor, memory_labels: Tensor) -> tuple[Tensor, ...]:
        """All pairs by label overlap, with the thresholds of the loss."""
        positive_threshold, negative_threshold = getattr(self.loss, "threshold", 0.0), 1.0
        positive_threshold = getattr(self.loss, "positive_threshold", positive_threshold)
        negative_threshold = getattr(self.loss, "negative_threshold", negative_threshold)
        shared, jaccard = label_overlap(labels, memory_labels, label_dtype(embeddings))
        masks = positive_negative_masks(shared, jaccard, positive_threshold, negative_threshold)
        return tuple(index for mask in masks for index in mask.nonzero(as_tuple=True))

    def _enqueue(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queue with these rows in it, as new tensors, and where they stand."""
        if len(embeddings) > self.memory_size:
            raise ValueError(
                f"embeddings to enqueue must be at most memory_size ({self.memory_size}), got {len(embeddings)}; "
                "use smaller batches or a larger memory"
            )
        slots = (self.queue_idx + torch.arange(len(embeddings), device=embeddings.device)) % self.memory_size
        # The queue follows the type and the device of the embeddings, as PML's does.
        embedding_memory = self.embedding_memory.to(embeddings).index_copy(0, slots, embeddings.detach())
        label_memory = self.label_memory.to(embeddings.device).index_copy(0, slots, labels)
        return embedding_memory, label_memory, slots

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # A queue that was saved in float64 comes back in float64.
        saved = state_dict.get(prefix + "embedding_memory")
        if isinstance(saved, Tensor):
            self.embedding_memory = self.embedding_memory.to(saved.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _without_own_copies(indices_tuple: tuple[Tensor, ...], own_slots: Tensor) -> tuple[Tensor, ...]:
    """Leave out pairs and triplets of an anchor with its own enqueued copy."""
    if len(indices_tuple) == 3:
        a, p, n = indices_tuple
        keep = (p != own_slots[a]) & (n != own_slots[a])
        return a[keep], p[keep], n[keep]
    a1, p, a2, n = indices_tuple
    positive, negative = p != own_slots[a1], n != own_slots[a2]
    return a1[positive], p[positive], a2[negative], n[negative]


def _check_part(name: str, part: nn.Module, base: type[nn.Module], wrapper: str) -> None:
    """Raise unless this is a PML loss or miner whose ``forward`` is not PML's, which refuses multi-hot labels."""
    if not isinstance(part, base):
        raise TypeError(f"{name} must be a {base.__name__}, got {type(part).__name__}")
    if type(part).forward is base.forward:
        raise ValueError(
            f"{name} must accept multi-hot labels, and {type(part).__name__} takes one class a row; "
            f"wrap it in a {wrapper}"
        )


def _check_mask(enqueue_mask: Tensor, num_rows: int) -> Tensor:
    if not isinstance(enqueue_mask, Tensor):
        raise TypeError(f"enqueue_mask must be a torch.Tensor, got {type(enqueue_mask).__name__}")
    if enqueue_mask.dtype is not torch.bool or enqueue_mask.shape != (num_rows,):
        raise ValueError(
            f"enqueue_mask must be torch.bool with one entry an embedding ({num_rows}), "
            f"got {enqueue_mask.dtype} of shape {tuple(enqueue_mask.shape)}"
        )
    return enqueue_mask
