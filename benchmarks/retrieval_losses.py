"""The losses of the benchmark. Each has one setting that is tuned over four values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from from_examples import make_train_loss
from pytorch_metric_learning.losses import (
    BaseMetricLossFunction,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.miners import BaseMiner

from pml_macl import LabelStatistics
from pml_macl.losses import MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner

TEMPERATURES = (0.05, 0.1, 0.2, 0.4)


@dataclass
class Entry:
    """How to make and tune a loss.

    Args:
        make: makes the loss from the tuned value and the label statistics of the training split.
        grid: the values to try.
        parameter: name of the tuned argument.
        mined: "pairs" or "triplets" if a miner limits how many of them the loss gets.
    """

    make: Callable[[float, LabelStatistics], BaseMetricLossFunction]
    grid: tuple[float, float, float, float] = TEMPERATURES
    parameter: str = "temperature"
    mined: str | None = None


def from_package(name: str) -> Callable[[float, LabelStatistics], BaseMetricLossFunction]:
    """A loss by the name that train.py gives it; it collects no statistics of the pairs, which takes time."""
    return partial(make_train_loss, name, collect_stats=False)


def wrapped(
    make: Callable[[float], BaseMetricLossFunction],
) -> Callable[[float, LabelStatistics], BaseMetricLossFunction]:
    return lambda value, statistics: MultiLabelLossWrapper(make(value))


LOSSES = {
    "MACL": Entry(from_package("macl")),
    "MACL, weighted": Entry(from_package("macl-weighted")),
    "SupCon any": Entry(from_package("supcon-any")),
    "SupCon exact": Entry(from_package("supcon-exact")),
    "MultiSupCon": Entry(from_package("multi-supcon")),
    "Jaccard SupCon": Entry(from_package("jaccard-supcon")),
    "MulSupCon": Entry(from_package("mul-supcon")),
    "Similarity-Dissimilarity": Entry(from_package("similarity-dissimilarity")),
    "PML TripletMargin": Entry(
        wrapped(lambda value: TripletMarginLoss(margin=value)), (0.05, 0.1, 0.2, 0.4), "margin", "triplets"
    ),
    "PML MultiSimilarity": Entry(wrapped(lambda value: MultiSimilarityLoss(base=value)), (0.1, 0.3, 0.5, 0.7), "base"),
    "PML Contrastive": Entry(
        wrapped(lambda value: ContrastiveLoss(neg_margin=value)), (0.3, 0.5, 0.8, 1.1), "neg_margin"
    ),
    "PML NTXent": Entry(wrapped(lambda value: NTXentLoss(value)), TEMPERATURES, mined="pairs"),
}


def make_loss_and_miner(
    name: str, value: float, statistics: LabelStatistics
) -> tuple[BaseMetricLossFunction, BaseMiner | None]:
    """Make a loss with this value of its tuned setting, and the miner that limits its memory, if it needs one."""
    entry = LOSSES[name]
    miner = None
    if entry.mined is not None:  # all triplets of a multi-label batch would not fit into memory
        miner = LabelOverlapMiner(
            pos_strategy="random",
            neg_strategy="random",
            max_positives_per_anchor=8,
            max_negatives_per_anchor=16,
            output=entry.mined,
        )
    return entry.make(value, statistics), miner
