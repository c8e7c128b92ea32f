"""A memory of past embeddings and their label sets."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.utils import common_functions as c_f
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from torch import Tensor, nn

from pml_macl.checks import check_batch, check_embeddings, check_indices_tuple, check_integer
from pml_macl.deferred_check import DeferredCheck
from pml_macl.labels import label_dtype
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss
from pml_macl.pairs import Pairs, without_own


class MultiLabelCrossBatchMemory(CrossBatchMemory):
    r"""PML's ``CrossBatchMemory`` for label sets: positives and negatives come from past batches too.

    Wang et al., Cross-Batch Memory for Embedding Learning, arXiv 1912.06798. The last ``memory_size`` embeddings and
    their label sets are kept in a queue. Each batch is enqueued first. Then the loss takes the batch as anchors and the
    queue as references, and leaves out the pair of each row with its own enqueued copy. Gradients flow into the batch
    only.

    ``miner`` selects the pairs, from the batch and the queue. Without a miner, label overlap does, with the thresholds
    of the loss: its ``positive_threshold`` and ``negative_threshold``, or the ``threshold`` of a
    ``MultiLabelLossWrapper``. For a loss with neither, rows that share a label are positives and all others negatives.

    As in MoCo (He et al., arXiv 1911.05722) the queue can also hold the output of another network: rows that
    ``enqueue_mask`` marks are enqueued and are not anchors, and all other rows are anchors and are not enqueued. Label
    statistics that the loss learns count each anchor once, and nothing in the queue.

    Unlike PML's class, this one saves the position of the queue with the rest of its state, leaves the queue unchanged
    if a call fails, and reads ``indices_tuple`` as the enqueued copies of the batch, wherever they are in the queue.

    Args:
        loss: loss that accepts multi-hot labels and references: :class:`MACLLoss`, a baseline, a PML loss in a
            ``MultiLabelLossWrapper``, or another ``BaseMetricLossFunction`` with a ``forward`` of its own.
        embedding_size: D, >= 1.
        num_classes: C, >= 1.
        memory_size: length of the queue, >= 1.
        miner: miner of pairs or triplets that accepts multi-hot labels and references; None uses label overlap. A miner
            that keeps only the most similar positives would choose the enqueued copies, which are left out afterwards.
            With a triplet loss use a miner that limits the pairs, since the loss joins all positives of an anchor with
            all its negatives.
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

    memory_size: int
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
        self.deferred_check = DeferredCheck()

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Accept any name: the constructor looks at the loss itself."""

    @property
    def queue_idx(self) -> int:
        """Where the next row will be enqueued."""
        return self._num_enqueued % self.memory_size

    @property
    def has_been_filled(self) -> bool:
        """Whether the whole queue is in use."""
        return self._num_enqueued >= self.memory_size

    def reset_queue(self) -> None:
        """Empty the queue."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, self.num_classes, dtype=torch.bool))
        self.register_buffer("num_enqueued", torch.zeros((), dtype=torch.long))
        self._num_enqueued = 0  # the same number where it can be read without waiting for a GPU

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
        labels, _ = check_batch(embeddings, labels, num_classes=self.num_classes, deferred=self.deferred_check)
        check_indices_tuple(indices_tuple, len(embeddings), len(embeddings), self.deferred_check)
        new_embeddings, new_labels = embeddings, labels
        if enqueue_mask is not None:
            if indices_tuple is not None:
                raise ValueError("indices_tuple cannot be combined with enqueue_mask; give one of them")
            enqueued, anchors = (
                mask.nonzero().squeeze(1).to(embeddings.device, non_blocking=True)
                for mask in (_check_mask(enqueue_mask, len(embeddings)), ~enqueue_mask)
            )
            new_embeddings, new_labels = embeddings[enqueued], labels[enqueued]
            embeddings, labels = embeddings[anchors], labels[anchors]
        slots, undo = self._enqueue(new_embeddings, new_labels)
        num_enqueued = self._num_enqueued + len(slots)
        memory, memory_labels = self.embedding_memory[:num_enqueued], self.label_memory[:num_enqueued]
        own_slots = slots if enqueue_mask is None else None
        try:
            if self.miner is None and indices_tuple is None and _takes_own(self.loss):
                # Later batches overwrite the queue, so a graph that keeps its references gets a copy.
                references = memory if self.loss.is_fused() else memory.clone()
                loss = self.loss(embeddings, labels, None, references, memory_labels, own=own_slots)
            else:
                pairs = self.create_indices_tuple(embeddings, labels, memory, memory_labels, indices_tuple, own_slots)
                loss = self.loss(embeddings, labels, pairs, memory.clone(), memory_labels)
        except BaseException:  # whatever it was, a failed call leaves the queue as it was
            undo()
            raise
        self._count(num_enqueued)
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
        slots, _ = self._enqueue(embeddings, labels)
        self._count(self._num_enqueued + len(slots))

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
        pairs = without_own(pairs, own_slots)
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
        block = Pairs(
            labels,
            memory_labels,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            dtype=label_dtype(embeddings),
        )[:]
        return (*block.positives.nonzero(as_tuple=True), *block.negatives.nonzero(as_tuple=True))

    def _enqueue(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """Write rows into the queue; returns where they are, and a function that takes them out again."""
        if len(embeddings) > self.memory_size:
            raise ValueError(
                f"embeddings to enqueue must be at most memory_size ({self.memory_size}), got {len(embeddings)}; "
                "use smaller batches or a larger memory"
            )
        slots = (self.queue_idx + torch.arange(len(embeddings), device=embeddings.device)) % self.memory_size
        before = self.embedding_memory, self.label_memory
        # The queue takes the type and the device of the embeddings, as PML's does.
        memory, label_memory = self.embedding_memory.to(embeddings), self.label_memory.to(embeddings.device)
        replaced = memory[slots], label_memory[slots]
        memory[slots], label_memory[slots] = embeddings.detach(), labels
        self.embedding_memory, self.label_memory = memory, label_memory

        def undo() -> None:
            memory[slots], label_memory[slots] = replaced
            self.embedding_memory, self.label_memory = before

        return slots, undo

    def _count(self, num_enqueued: int) -> None:
        self.num_enqueued = torch.full_like(self.num_enqueued, num_enqueued)
        self._num_enqueued = num_enqueued

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # A queue that was saved in float64 comes back in float64.
        saved = state_dict.get(prefix + "embedding_memory")
        if isinstance(saved, Tensor):
            self.embedding_memory = self.embedding_memory.to(saved.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_enqueued = int(self.num_enqueued)


def _takes_own(loss: nn.Module) -> bool:
    """Whether the loss leaves out own copies itself, so that nobody has to list all other pairs."""
    return type(loss).forward is MultiLabelContrastiveLoss.forward


def _check_part(name: str, part: nn.Module, base: type[nn.Module], wrapper: str) -> None:
    """Raise unless this is a PML loss or miner whose ``forward`` is not PML's, which refuses multi-hot labels."""
    if not isinstance(part, base):
        raise TypeError(f"{name} must be a {base.__name__}, got {type(part).__name__}")
    if type(part).forward is base.forward:
        raise ValueError(
            f"{name} must accept multi-hot labels, and {type(part).__name__} takes one class per row; "
            f"wrap it in a {wrapper}"
        )


def _check_mask(enqueue_mask: Tensor, num_rows: int) -> Tensor:
    if not isinstance(enqueue_mask, Tensor):
        raise TypeError(f"enqueue_mask must be a torch.Tensor, got {type(enqueue_mask).__name__}")
    if enqueue_mask.dtype is not torch.bool or enqueue_mask.shape != (num_rows,):
        raise ValueError(
            f"enqueue_mask must be torch.bool with one entry per embedding ({num_rows}), "
            f"got {enqueue_mask.dtype} of shape {tuple(enqueue_mask.shape)}"
        )
    return enqueue_mask
