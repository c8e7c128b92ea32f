"""The queries that one of several processes ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from pml_macl.evaluation.retrieval_sets import RetrievalSets


@dataclass(frozen=True)
class QueryShare:
    """Divides the query chunks among processes that all have the queries and references, and adds up their sums.

    With one process, nothing is divided or sent.

    Args:
        rank: number of this process.
        num_processes: number of processes.
    """

    rank: int
    num_processes: int

    @classmethod
    def of_this_process(cls, distributed: bool) -> "QueryShare":
        """Return the share of this process in torch.distributed's default group, or all queries if there is none."""
        if distributed and torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls(0, 1)

    def same_sets(self, make_sets: Callable[[], RetrievalSets]) -> RetrievalSets:
        """Check the input in all processes, so that either all go on or all raise.

        Args:
            make_sets: checks the input of this process and returns it.

        Raises:
            TypeError, ValueError: ``make_sets`` raised it, or the input of another process differs.
            RuntimeError: ``make_sets`` raised an error in another process.
        """
        if self.num_processes == 1:
            return make_sets()
        problem: Exception | None = None
        try:
            sets = make_sets()
            summary: object = _summary(sets)
        except (TypeError, ValueError) as error:
            problem, summary = error, str(error)
        summaries: list[Any] = [None] * self.num_processes
        torch.distributed.all_gather_object(summaries, summary)
        if problem is not None:
            raise problem
        for rank, other in enumerate(summaries):
            if isinstance(other, str):
                raise RuntimeError(f"process {rank} of torch.distributed refused its input: {other}")
            if other != summaries[0]:
                raise ValueError(
                    "with distributed=True, all processes must pass the same queries, references and labels, but those "
                    f"of process {rank} differ from those of process 0; gather them first, or set distributed=False"
                )
        return sets

    def chunks(self, queries: Tensor, size: int) -> Sequence[Tensor]:
        """Divide the (Q,) queries into chunks, and return those of this process.

        The chunks are those of a single process, so each query gets the same values to the last bit. All processes use
        the smallest ``size`` that one of them has, because they may have different numbers of threads.
        """
        if self.num_processes > 1:
            smallest = torch.tensor(size, device=queries.device)
            torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
            size = int(smallest)
        return torch.split(queries, size)[self.rank :: self.num_processes]

    def add_up(self, totals: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if self.num_processes > 1:
            torch.distributed.all_reduce(totals)


def _summary(sets: RetrievalSets) -> tuple[object, ...]:
    """Return what differs, almost certainly, between different inputs. Embeddings may differ by rounding."""
    shapes = [tuple(tensor.shape) for tensor in (sets.query, sets.reference)]
    checksums = [crc32(labels.cpu().numpy().tobytes()) for labels in (sets.query_labels, sets.reference_labels)]
    return *shapes, *checksums, sets.ref_includes_query
