"""Gather the rows of all processes, with gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Concatenate the rows of all processes in the order of their ranks. All processes must call this function.

    Its backward pass adds up the gradients that all processes computed for a row, so all must call ``backward`` too.
    The function of the same purpose in ``torch.distributed.nn`` is deprecated and needs equally many rows per process.

    Args:
        rows: (n, ...) rows of this process; n may differ between processes.
        sizes: n of each process.

    Returns:
        (sum of sizes, ...) rows.
    """
    gathered: Tensor = _GatherRows.apply(rows, sizes)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        rank = torch.distributed.get_rank()
        ctx.own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        gradient = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient[ctx.own], None
