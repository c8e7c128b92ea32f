"""Finds equal rows by comparing one whole number per row; on a CPU ``torch.unique(dim=0)`` is far slower."""

import torch
from torch import Tensor

_BITS_AT_ONCE = 31  # columns that one int64 code holds beside the code of the columns before them


def distinct_label_sets(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The distinct label sets, in no particular order.

    Args:
        labels: (N, C) boolean label sets.

    Returns:
        The (S, C) distinct sets, the (N,) int64 index of each row's set among them, and (S,) how many rows have each.
    """
    codes = torch.zeros(len(labels), dtype=torch.long, device=labels.device)
    counts = codes.new_full((1,), len(labels))
    for block in torch.split(labels, _BITS_AT_ONCE, dim=1):
        powers = 2.0 ** torch.arange(block.shape[1], dtype=torch.float64, device=labels.device)
        codes = (codes << _BITS_AT_ONCE) + (block.double() @ powers).long()
        _, codes, counts = torch.unique(codes, return_inverse=True, return_counts=True)
    first = codes.argsort(stable=True)[counts.cumsum(0) - counts]
    return labels[first], codes, counts


def may_have_equal_rows(values: Tensor) -> bool:
    """Whether two rows have the same checksum: always true if two rows are equal, and very rarely if not.

    Args:
        values: (N, D) float32 or float64, without -0.0.
    """
    bits = values.view(torch.int32 if values.dtype is torch.float32 else torch.long)
    # Products with odd numbers, summed modulo a power of two: exact, whatever the order of the sum.
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**30), 2**30, (values.shape[1],), generator=generator).to(values.device, bits.dtype)
    checksums = torch.cat(
        [(part * (2 * factors + 1)).sum(dim=1, dtype=torch.long) for part in torch.split(bits, 2**14)]
    )
    return len(torch.unique(checksums)) < len(values)
