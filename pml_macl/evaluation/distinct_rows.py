"""Finds equal rows by comparing one integer per row, which on a CPU is far faster than ``torch.unique(dim=0)``."""

import torch
from torch import Tensor

_BITS_AT_ONCE = 31  # an int64 holds these columns and the code of all columns before them


def distinct_label_sets(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the distinct label sets.

    Args:
        labels: (N, C) boolean label sets.

    Returns:
        The (S, C) distinct sets in an arbitrary order, the (N,) int64 index of each row's set, and the (S,) number of
        rows that have each set.
    """
    codes = torch.zeros(len(labels), dtype=torch.long, device=labels.device)
    counts = codes.new_full((1,), len(labels))
    for block in torch.split(labels, _BITS_AT_ONCE, dim=1):
        powers = 2.0 ** torch.arange(block.shape[1], dtype=torch.float64, device=labels.device)
        codes = (codes << _BITS_AT_ONCE) + (block.double() @ powers).long()
        _, codes, counts = torch.unique(codes, return_inverse=True, return_counts=True)
    first = codes.argsort(stable=True)[counts.cumsum(0) - counts]
    return labels[first], codes, counts


def rows_that_may_be_equal(values: Tensor) -> Tensor:
    """Return the ascending indices of rows that have the checksum of another row.

    They are all rows that equal another one, and rarely a row that does not. -0.0 equals 0.0.

    Args:
        values: (N, D) float32 or float64.
    """
    bit_type = torch.int32 if values.dtype is torch.float32 else torch.long
    # The checksum is a sum of products with odd numbers modulo a power of two. It is exact in any order of the sum.
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**30), 2**30, (values.shape[1],), generator=generator).to(values.device, bit_type)
    checksums = [
        ((part + 0.0).view(bit_type) * (2 * factors + 1)).sum(dim=1, dtype=torch.long)  # + 0.0 turns -0.0 into 0.0
        for part in torch.split(values, 2**14)
    ]
    _, codes, counts = torch.unique(torch.cat(checksums), return_inverse=True, return_counts=True)
    is_repeated: Tensor = counts[codes] > 1
    return is_repeated.nonzero().squeeze(1)
