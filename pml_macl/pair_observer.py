"""The statistics of the pairs of a batch that ``collect_stats`` records."""

from typing import NamedTuple

import torch
from torch import Tensor

from pml_macl.pairs import PairBlock


class PairStats(NamedTuple):
    """Numbers of pairs, mean Jaccard similarity of the positives, and temperatures of all pairs."""

    num_positives: int = 0
    num_negatives: int = 0
    anchors_without_positives: int = 0
    mean_positive_overlap: float = 0.0
    min_temperature: float = 0.0
    mean_temperature: float = 0.0
    max_temperature: float = 0.0


class PairObserver:
    """Collects the statistics of a batch: call the object with each block, then call :meth:`stats` once."""

    def __init__(self) -> None:
        self._counts: list[Tensor] = []
        self._overlaps: list[Tensor] = []
        self._temperatures: list[Tensor] = []

    def __call__(self, block: PairBlock, temperatures: Tensor) -> None:
        """Add a block.

        Args:
            block: the pairs of n anchors and M references.
            temperatures: the temperatures of the block, in a shape that broadcasts to (n, M).
        """
        positives = block.positives.sum(dim=1)
        self._counts.append(torch.stack([positives.sum(), block.negatives.sum(), (positives == 0).sum()]))
        self._overlaps.append((block.jaccard * block.positives).sum())
        # Blocks have different numbers of anchors, so the mean of each block is weighted by that number.
        mean = temperatures.mean() * len(positives)
        self._temperatures.append(torch.stack([temperatures.min(), mean, temperatures.max()]))

    def stats(self, num_anchors: int) -> PairStats:
        """Return the statistics of all blocks; the host waits for the GPU here.

        Args:
            num_anchors: number of anchors N. It is needed if there are no references and therefore no blocks.
        """
        if not self._counts:
            return PairStats(anchors_without_positives=num_anchors)
        positives, negatives, without = torch.stack(self._counts).sum(dim=0).tolist()
        smallest, mean, largest = torch.stack(self._temperatures).unbind(dim=1)
        values = [torch.stack(self._overlaps).sum(), smallest.min(), mean.sum() / num_anchors, largest.max()]
        overlap, *temperatures = torch.stack(values).tolist()
        return PairStats(positives, negatives, without, overlap / max(1, positives), *temperatures)
