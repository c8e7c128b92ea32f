"""The loss of the joint batch of several processes."""

from typing import Any

import torch
from pytorch_metric_learning.utils.distributed import is_distributed
from torch import Tensor, nn

from pml_macl.batch_share import BatchShare
from pml_macl.checks import check_batch
from pml_macl.gather import gather_rows
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss
from pml_macl.losses.multi_label_cross_batch_memory import MultiLabelCrossBatchMemory, check_mask

ADVICE = "use DistributedLossWrapper of pytorch_metric_learning, in which each process computes the whole loss"


class MultiLabelDistributedLossWrapper(nn.Module):
    """Computes the loss of the joint batch of several processes, each process for its own anchors.

    Each process calls the wrapper with its own embeddings and labels. The wrapper gathers those of all processes. Each
    process then computes the loss terms of its own anchors against all images, and the processes add up their terms.
    Every process therefore gets the loss of the joint batch. With a model in ``DistributedDataParallel``, which
    averages the gradients of all processes, the gradients equal those of one process on the joint batch.

    PML's ``DistributedLossWrapper`` gives the same gradients, but every process computes the terms of all anchors, and
    it returns the loss times the number of processes.

    The processes may have different numbers of images, also none. The loss counts each image once if it learns label
    frequencies. A ``MultiLabelCrossBatchMemory`` in the wrapper enqueues the joint batch, so all processes have the
    same queue; its ``memory_size`` must be at least the size of the joint batch. Statistics of ``collect_stats``
    describe the anchors of one process. If the loss has parameters, such as a ``LearnableTemperature``, wrap it in
    ``DistributedDataParallel`` too.

    Without ``torch.distributed``, or with one process, the wrapper returns the output of the loss. All processes must
    call the wrapper, and the backward pass, equally often. If the batch of one process is invalid, all processes
    raise an error.

    Args:
        loss: :class:`MACLLoss`, a baseline or another subclass of :class:`MultiLabelContrastiveLoss`, or a
            :class:`MultiLabelCrossBatchMemory` without a miner around one of them. The loss must use the fused engine.

    Raises:
        TypeError: the mean over the anchors of the loss cannot be split, for example that of a PML loss in a
            ``MultiLabelLossWrapper``.
        ValueError: the loss needs the reference engine, the memory has a miner, or the learnt label statistics are
            synchronised, which would count each image once per process.

    Example:
        >>> from pml_macl.losses import MACLLoss
        >>> loss_fn = MultiLabelDistributedLossWrapper(MACLLoss(num_classes=2))  # here in one process
        >>> loss_fn(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([[1, 0], [1, 0], [0, 1]]))
        tensor(0.7201)
    """

    def __init__(self, loss: MultiLabelContrastiveLoss | MultiLabelCrossBatchMemory) -> None:
        super().__init__()
        _check_loss(loss)
        self.loss = loss

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: None = None,
        enqueue_mask: Tensor | None = None,
    ) -> Any:
        """Compute the loss of the joint batch.

        Args:
            embeddings: (n, D) embeddings of this process, n >= 0.
            labels: (n, C) multi-hot label sets, also for a loss with a relation.
            indices_tuple: must be None; PML's trainers pass it.
            enqueue_mask: (n,) ``torch.bool`` for a :class:`MultiLabelCrossBatchMemory`: True for rows to enqueue, the
                other rows are the anchors. All processes or none pass a mask.

        Returns:
            The output of the loss for the joint batch, on every process: a () tensor.

        Raises:
            TypeError, ValueError: an argument has a wrong type, shape or value, here or in another process, or the
                processes disagree in D or C. The state does not change.
        """
        _check_loss(self.loss)
        if indices_tuple is not None:
            raise ValueError(
                f"indices_tuple must be None, got {type(indices_tuple).__name__}: the thresholds of the loss select "
                f"the pairs of the joint batch; to use a miner, {ADVICE}"
            )
        if enqueue_mask is not None and not isinstance(self.loss, MultiLabelCrossBatchMemory):
            raise ValueError(
                f"enqueue_mask needs a MultiLabelCrossBatchMemory, got {type(self.loss).__name__}; leave it out"
            )
        options = {} if enqueue_mask is None else {"enqueue_mask": enqueue_mask}
        if not is_distributed() or torch.distributed.get_world_size() == 1:
            return self.loss(embeddings, labels, **options)
        labels, sizes = _agree(embeddings, labels, enqueue_mask, self.loss.num_classes)
        columns = labels if enqueue_mask is None else torch.cat([labels, enqueue_mask[:, None].to(labels.device)], 1)
        columns = gather_rows(columns.byte(), sizes).bool()
        if enqueue_mask is not None:
            columns, options["enqueue_mask"] = columns[:, :-1], columns[:, -1]
        rank = torch.distributed.get_rank()
        share = BatchShare(sum(sizes[:rank]), sum(sizes[: rank + 1]), len(sizes))
        return self.loss(gather_rows(embeddings, sizes), columns, share=share, **options)


def _check_loss(loss: nn.Module) -> None:
    """Raise unless each process can compute the terms of its own anchors."""
    is_memory = isinstance(loss, MultiLabelCrossBatchMemory)
    inner = loss.loss if is_memory else loss
    if not isinstance(inner, MultiLabelContrastiveLoss) or type(inner).forward is not MultiLabelContrastiveLoss.forward:
        raise TypeError(
            "loss must be a MultiLabelContrastiveLoss, such as MACLLoss, or a MultiLabelCrossBatchMemory of one, got "
            f"{type(loss).__name__}{f' of {type(inner).__name__}' if is_memory else ''}; for other losses, {ADVICE}"
        )
    reason = inner.fallback
    if reason is not None:
        raise ValueError(f"loss must use the fused engine, which is not possible with {reason}; {ADVICE}")
    if is_memory and loss.miner is not None:
        raise ValueError(f"the memory must have no miner, got {type(loss.miner).__name__}; {ADVICE}")
    if inner.learns_statistics and inner.label_statistics is not None and inner.label_statistics.synchronize:
        raise ValueError(
            "label_statistics.synchronize must be False, got True: the wrapper passes the labels of all processes to "
            "the loss, so each image would be counted once per process"
        )


def _agree(
    embeddings: Tensor, labels: Tensor, enqueue_mask: Tensor | None, num_classes: int | None
) -> tuple[Tensor, list[int]]:
    """Check the batch of this process, and that those of the others fit.

    Returns:
        The (n, C) boolean label sets of this process, and the number of rows of each process.
    """
    error: TypeError | ValueError | None = None
    header = [0] * 6
    try:
        labels, _ = check_batch(embeddings, labels, num_classes=num_classes)
        if enqueue_mask is not None:
            check_mask(enqueue_mask, len(embeddings))
        needs_gradient = embeddings.requires_grad and torch.is_grad_enabled()
        header = [1, *embeddings.shape, labels.shape[1], enqueue_mask is not None, needs_gradient]
    except (TypeError, ValueError) as found:
        error = found
    own = torch.tensor(header, device=getattr(embeddings, "device", "cpu"))
    headers = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(headers, own)  # before any error: the other processes wait for this one
    if error is not None:
        raise error
    valid, sizes, *others = torch.stack(headers).T.tolist()
    if not all(valid):
        raise ValueError(f"process {valid.index(0)} got an invalid batch; its own error says what is wrong")
    names = ("embedding size", "number of classes", "use of enqueue_mask", "need for gradients")
    for name, values in zip(names, others, strict=True):
        if len(set(values)) > 1:
            raise ValueError(f"all processes must have the same {name}, got {values} in the order of their ranks")
    return labels, sizes
