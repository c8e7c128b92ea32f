"""The part of a batch that one of several processes computes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchShare:
    """The anchors of one process in the joint batch of all processes.

    Every process has the embeddings and label sets of the joint batch and computes the loss terms of its own anchors.
    Then the processes add up their terms, so each of them has the loss of the joint batch.

    Args:
        start: first row of the joint batch that is an anchor of this process.
        stop: row after the last one; equal to ``start`` if this process has no anchors.
        num_processes: number of processes. The gradient of a share is multiplied by it, because
            ``DistributedDataParallel`` averages the gradients of all processes.
    """

    start: int
    stop: int
    num_processes: int

    def __len__(self) -> int:
        """Number of anchors of this process."""
        return self.stop - self.start

    def subset(self, kept: Tensor) -> "BatchShare":
        """Return the share of the batch that keeps the rows where the (B,) booleans are True; the host waits."""
        start, length = (int(part.sum()) for part in (kept[: self.start], kept[self.start : self.stop]))
        return BatchShare(start, start + length, self.num_processes)

    def sum_over_processes(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return each () tensor summed over all processes. All processes must call this method."""
        sums = torch.stack(values)
        torch.distributed.all_reduce(sums)
        return sums.unbind()
