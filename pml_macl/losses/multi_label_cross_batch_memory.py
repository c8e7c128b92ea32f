"""PML's cross-batch memory for multi-hot labels."""

from collections.abc import Callable
from typing import Any

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction, CrossBatchMemory
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.utils import common_functions as c_f
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from torch import Tensor, nn

from pml_macl.batch_share import BatchShare
from pml_macl.checks import check_batch, check_embeddings, check_indices_tuple, check_integer
from pml_macl.deferred_check import DeferredCheck
from pml_macl.labels import label_dtype
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss
from pml_macl.losses.proxy_macl_loss import ProxyMACLLoss
from pml_macl.miners.base_multi_label_miner import BaseMultiLabelMiner
from pml_macl.pairs import Pairs, without_own
from pml_macl.relations import Relation


class MultiLabelCrossBatchMemory(CrossBatchMemory):
    r"""PML's ``CrossBatchMemory`` for label sets: positives and negatives also come from past batches.

    Wang et al., Cross-Batch Memory for Embedding Learning, arXiv 1912.06798. A queue holds the last ``memory_size``
    embeddings and their label sets. Each call first enqueues the batch. Then the loss uses the batch as anchors and the
    queue as references, and ignores the pair of each row with its own copy in the queue. Only the batch receives
    gradients.

    ``miner`` selects the pairs of batch and queue. Without a miner, the thresholds of the loss select them: its
    ``positive_threshold`` and ``negative_threshold``, or the ``threshold`` of a ``MultiLabelLossWrapper``. If the loss
    has no thresholds, rows that share a label are positives and all others are negatives. If the loss has a
    ``relation``, it replaces the Jaccard similarity, and the queue stores labels of any dtype and shape (N, ...), which
    the first batch determines.

    The queue can also hold the output of another network, as in MoCo (He et al., arXiv 1911.05722): the rows that
    ``enqueue_mask`` marks are enqueued but are not anchors, and the other rows are anchors but are not enqueued. If the
    loss counts labels over training, it counts each anchor once and does not count the queue.

    Differences from PML's class:

    - ``state_dict`` contains the position of the queue.
    - A call that fails does not change the queue.
    - Positives and negatives in ``indices_tuple`` refer to the copies of the batch in the queue, at any position.

    Args:
        loss: loss that accepts multi-hot labels and references: :class:`MACLLoss`, a baseline, a PML loss in a
            ``MultiLabelLossWrapper``, or another ``BaseMetricLossFunction`` that overrides ``forward``.
        embedding_size: D, >= 1.
        num_classes: C, >= 1. It may be None if the loss has a ``relation``.
        memory_size: length of the queue, >= 1.
        miner: miner of pairs or triplets that accepts multi-hot labels and references; None uses the thresholds. If a
            miner keeps only the most similar positives, it selects the rows' own copies, which the loss then ignores.
            With a triplet loss, use a miner that limits the pairs: the loss combines all positives of an anchor with
            all its negatives. If the loss has a ``relation``, pass it to the miner too.
        **kwargs: arguments of PML's ``CrossBatchMemory``: ``collect_stats``.

    Attributes:
        embedding_memory: (memory_size, D) embeddings, with the dtype and device of the last batch.
        label_memory: (memory_size, C) ``torch.bool`` label sets; with a relation, (memory_size, ...) labels as given.
        num_enqueued: () int64, number of rows enqueued so far.

    Raises:
        TypeError: a size is not an integer, or ``loss`` or ``miner`` has the wrong type.
        ValueError: a size is below 1, ``loss`` or ``miner`` requires one class per row, or ``num_classes`` is None and
            ``loss`` has no relation.

    Example:
        >>> from pml_macl.losses import MACLLoss
        >>> loss_fn = MultiLabelCrossBatchMemory(MACLLoss(), embedding_size=2, num_classes=2, memory_size=4)
        >>> embeddings, labels = torch.eye(2), torch.tensor([[1, 0], [0, 1]])
        >>> loss_fn(embeddings, labels)  # no two rows share a label yet
        tensor(0.)
        >>> loss_fn(embeddings, labels)
        tensor(0.1520)
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
        num_classes: int | None = None,
        memory_size: int = 1024,
        miner: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        check_integer("embedding_size", embedding_size)
        check_integer("memory_size", memory_size)
        _check_part("loss", loss, BaseMetricLossFunction, "MultiLabelLossWrapper")
        if isinstance(loss, ProxyMACLLoss):
            raise ValueError("loss must take references, but those of ProxyMACLLoss are its proxies; use MACLLoss")
        if num_classes is not None:
            check_integer("num_classes", num_classes)
        elif getattr(loss, "relation", None) is None:
            raise ValueError(
                "num_classes must be given, got None; pass the number of label columns, or a loss with a relation"
            )
        if miner is not None:
            _check_part("miner", miner, BaseMiner, "MultiLabelMinerWrapper")
        self.num_classes = num_classes  # reset_queue, which PML's constructor calls, needs it
        super().__init__(loss, embedding_size, memory_size, miner, **kwargs)
        self.deferred_check = DeferredCheck()

    @property
    def relation(self) -> Relation | None:
        """Relation of the loss; None if the loss compares label sets."""
        relation: Relation | None = getattr(self.loss, "relation", None)
        return relation

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        """Accept any name; the constructor checks the loss itself."""

    @property
    def queue_idx(self) -> int:
        """Position in the queue where the next row is written."""
        return self._num_enqueued % self.memory_size

    @property
    def has_been_filled(self) -> bool:
        """Whether every position of the queue holds a row."""
        return self._num_enqueued >= self.memory_size

    def reset_queue(self) -> None:
        """Empty the queue."""
        self.register_buffer("embedding_memory", torch.zeros(self.memory_size, self.embedding_size))
        self.register_buffer("label_memory", torch.zeros(self.memory_size, self.num_classes or 0, dtype=torch.bool))
        self.register_buffer("num_enqueued", torch.zeros((), dtype=torch.long))
        self._num_enqueued = 0  # a copy on the host: reading the buffer would wait for the GPU

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: tuple[Tensor, ...] | None = None,
        enqueue_mask: Tensor | None = None,
        share: BatchShare | None = None,
    ) -> Any:
        """Enqueue a batch and compute its loss against the queue.

        Args:
            embeddings: (N, D) embeddings.
            labels: (N, C) multi-hot label sets; with a relation, any (N, ...) labels.
            indices_tuple: additional pairs or triplets within the batch, from a miner. Positives and negatives refer to
                the copies in the queue. Not allowed together with ``enqueue_mask``.
            enqueue_mask: (N,) ``torch.bool``, True for rows to enqueue; the other rows are the anchors. With None, all
                rows are enqueued and all rows are anchors.
            share: the anchors of this process, if the batch is that of several processes. Use
                :class:`MultiLabelDistributedLossWrapper`, which sets it.

        Returns:
            The output of the loss.

        Raises:
            TypeError, ValueError: an argument has a wrong type, shape or value, or more than ``memory_size`` rows
                would be enqueued. The queue does not change.
        """
        self.reset_stats()
        labels = self._check(embeddings, labels, self.deferred_check)
        check_indices_tuple(indices_tuple, len(embeddings), len(embeddings), self.deferred_check)
        new_embeddings, new_labels = embeddings, labels
        if enqueue_mask is not None:
            if indices_tuple is not None:
                raise ValueError("indices_tuple and enqueue_mask must not both be given; leave one of them out")
            enqueued, anchors = (
                mask.nonzero().squeeze(1).to(embeddings.device, non_blocking=True)
                for mask in (check_mask(enqueue_mask, len(embeddings)), ~enqueue_mask)
            )
            new_embeddings, new_labels = embeddings[enqueued], labels[enqueued]
            embeddings, labels = embeddings[anchors], labels[anchors]
            share = None if share is None else share.subset(~enqueue_mask)
        slots, undo = self._enqueue(new_embeddings, new_labels)
        num_enqueued = self._num_enqueued + len(slots)
        memory, memory_labels = self.embedding_memory[:num_enqueued], self.label_memory[:num_enqueued]
        own_slots = slots if enqueue_mask is None else None
        takes_own = type(self.loss).forward is MultiLabelContrastiveLoss.forward
        try:
            pairs = None
            if self.miner is not None or indices_tuple is not None or not takes_own:
                pairs = self.create_indices_tuple(embeddings, labels, memory, memory_labels, indices_tuple, own_slots)
            # Later batches overwrite the queue, so the reference engine, whose graph keeps references, gets a copy.
            references = memory if takes_own and self.loss.fallback is None else memory.clone()
            options = {"own": own_slots, "share": share} if takes_own else {}
            loss = self.loss(embeddings, labels, pairs, references, memory_labels, **options)
        except BaseException:  # also KeyboardInterrupt: an interrupted call must not change the queue
            undo()
            raise
        self._count(num_enqueued)
        return loss

    def add_to_memory(self, embeddings: Tensor, labels: Tensor) -> None:
        """Enqueue rows without computing a loss, for example to fill the queue before training.

        Args:
            embeddings: (N, D) embeddings, N <= ``memory_size``.
            labels: (N, C) multi-hot label sets; with a relation, any (N, ...) labels.

        Raises:
            TypeError, ValueError: an argument is invalid, as for :meth:`forward`.
        """
        labels = self._check(embeddings, labels)
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
        """Return the pairs or triplets of checked anchors and rows of the queue.

        Args:
            embeddings: (N, D) embeddings of the anchors.
            labels: (N, C) label sets of the anchors.
            memory: (M, D) embeddings in the queue.
            memory_labels: (M, C) label sets in the queue.
            input_indices_tuple: additional pairs or triplets within the batch.
            own_slots: (N,) row of ``memory`` that holds each anchor's own copy; None if the anchors are not enqueued.

        Returns:
            Indices (a1, p, a2, n) or (a, p, n); p and n are rows of ``memory``.
        """
        if self.miner is None:
            pairs = self._overlapping_pairs(embeddings, labels, memory_labels)
        else:
            pairs = self.miner(embeddings, labels, memory, memory_labels)
            if not isinstance(self.miner, BaseMultiLabelMiner):  # ours select existing rows
                check_indices_tuple(pairs, len(embeddings), len(memory))
        if own_slots is None:
            return pairs
        pairs = without_own(pairs, own_slots)
        if input_indices_tuple is None:
            return pairs
        given = tuple(index.to(embeddings.device, torch.long) for index in input_indices_tuple)
        if len(given) == 3:
            given = given[0], own_slots[given[1]], own_slots[given[2]]
        else:
            given = given[0], own_slots[given[1]], given[2], own_slots[given[3]]
        convert = lmu.convert_to_pairs if len(pairs) == 4 else lmu.convert_to_triplets
        added: tuple[Tensor, ...] = c_f.concatenate_indices_tuples(pairs, convert(given, labels))
        return added

    def _overlapping_pairs(self, embeddings: Tensor, labels: Tensor, memory_labels: Tensor) -> tuple[Tensor, ...]:
        """Return all pairs that the thresholds of the loss select."""
        positive_threshold, negative_threshold = getattr(self.loss, "threshold", 0.0), 1.0
        positive_threshold = getattr(self.loss, "positive_threshold", positive_threshold)
        negative_threshold = getattr(self.loss, "negative_threshold", negative_threshold)
        block = Pairs(
            labels,
            memory_labels,
            positive_threshold=positive_threshold,
            negative_threshold=negative_threshold,
            dtype=label_dtype(embeddings),
            deferred=self.deferred_check,
            relation=self.relation,
        )[:]
        return (*block.positives.nonzero(as_tuple=True), *block.negatives.nonzero(as_tuple=True))

    def _check(self, embeddings: Tensor, labels: Tensor, deferred: DeferredCheck | None = None) -> Tensor:
        """Return the checked labels of a batch. With a relation, they must look like those in the queue."""
        check_embeddings(embeddings, self.embedding_size)
        multi_hot = self.relation is None
        labels, _ = check_batch(
            embeddings, labels, num_classes=self.num_classes, deferred=deferred, multi_hot=multi_hot
        )
        expected = self.label_memory.dtype, self.label_memory.shape[1:]
        if not multi_hot and self._num_enqueued and expected != (labels.dtype, labels.shape[1:]):
            raise ValueError(
                f"labels must have the dtype and row shape of those in the queue, {expected[0]} and "
                f"{tuple(expected[1])}, got {labels.dtype} and {tuple(labels.shape[1:])}; convert them or reset_queue()"
            )
        return labels

    def _enqueue(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Callable[[], None]]:
        """Write rows into the queue. Return their positions and a function that restores the queue."""
        if len(embeddings) > self.memory_size:
            raise ValueError(
                f"embeddings to enqueue must have at most memory_size ({self.memory_size}) rows, got "
                f"{len(embeddings)}; use smaller batches or a larger memory_size"
            )
        slots = (self.queue_idx + torch.arange(len(embeddings), device=embeddings.device)) % self.memory_size
        before = self.embedding_memory, self.label_memory
        # As in PML, the queue adopts the dtype and device of the embeddings.
        memory, label_memory = self.embedding_memory.to(embeddings), self.label_memory.to(embeddings.device)
        if not self._num_enqueued and self.relation is not None:
            label_memory = labels.new_zeros(self.memory_size, *labels.shape[1:])
        replaced = memory[slots], label_memory[slots]
        memory[slots], label_memory[slots] = embeddings.detach(), labels.detach()
        self.embedding_memory, self.label_memory = memory, label_memory

        def undo() -> None:
            memory[slots], label_memory[slots] = replaced
            self.embedding_memory, self.label_memory = before

        return slots, undo

    def _count(self, num_enqueued: int) -> None:
        self.num_enqueued = torch.full_like(self.num_enqueued, num_enqueued)
        self._num_enqueued = num_enqueued

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # load_state_dict would cast a saved float64 queue to the present dtype.
        saved = state_dict.get(prefix + "embedding_memory")
        if isinstance(saved, Tensor):
            self.embedding_memory = self.embedding_memory.to(saved.dtype)
        saved = state_dict.get(prefix + "label_memory")
        if isinstance(saved, Tensor) and self.relation is not None:
            shape = (self.memory_size, *saved.shape[1:])
            self.label_memory = torch.zeros(shape, dtype=saved.dtype, device=self.label_memory.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._num_enqueued = int(self.num_enqueued)


def _check_part(name: str, part: nn.Module, base: type[nn.Module], wrapper: str) -> None:
    """Raise unless the loss or miner overrides ``forward``: PML's own ``forward`` rejects multi-hot labels."""
    if not isinstance(part, base):
        raise TypeError(f"{name} must be an instance of {base.__name__}, got {type(part).__name__}")
    if type(part).forward is base.forward:
        raise ValueError(
            f"{name} must accept multi-hot labels, but {type(part).__name__} requires one class per row; "
            f"wrap it in {wrapper}"
        )


def check_mask(enqueue_mask: Tensor, num_rows: int) -> Tensor:
    """Return ``enqueue_mask``; raise unless it holds one boolean per row."""
    if not isinstance(enqueue_mask, Tensor):
        raise TypeError(f"enqueue_mask must be a torch.Tensor, got {type(enqueue_mask).__name__}")
    if enqueue_mask.dtype is not torch.bool or enqueue_mask.shape != (num_rows,):
        raise ValueError(
            f"enqueue_mask must be torch.bool with one entry per embedding ({num_rows}), "
            f"got {enqueue_mask.dtype} of shape {tuple(enqueue_mask.shape)}"
        )
    return enqueue_mask
