"""The losses of the benchmark. Each has one setting that is tuned over four values."""

from collections.abc import Callable
from dataclasses import dataclass

from pytorch_metric_learning.losses import (
    BaseMetricLossFunction,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NTXentLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.miners import BaseMiner

from pml_macl import LabelStatistics
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MulSupConLoss,
    MultiLabelLossWrapper,
    MultiSupConLoss,
    SimilarityDissimilarityLoss,
    SupConAnyLoss,
    SupConExactLoss,
)
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

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


def macl(overlap_power: float, level: str) -> Callable[[float, LabelStatistics], BaseMetricLossFunction]:
    return lambda temperature, statistics: MACLLoss(
        label_statistics=statistics,
        distance=TemperatureScheduledSimilarity(temperature),
        reducer=FrequencyWeightedReducer(level=level, overlap_power=overlap_power),
    )


def wrapped(
    make: Callable[[float], BaseMetricLossFunction],
) -> Callable[[float, LabelStatistics], BaseMetricLossFunction]:
    return lambda value, statistics: MultiLabelLossWrapper(make(value))


LOSSES = {
    "MACL": Entry(macl(0.0, "cooccurrence")),
    "MACL, weighted": Entry(macl(1.0, "cooccurrence")),
    "SupCon any": Entry(lambda value, _: SupConAnyLoss(value)),
    "SupCon exact": Entry(lambda value, _: SupConExactLoss(value)),
    "MultiSupCon": Entry(lambda value, _: MultiSupConLoss(value)),
    "Jaccard SupCon": Entry(lambda value, _: JaccardSupConLoss(value)),
    "MulSupCon": Entry(lambda value, _: MulSupConLoss(value)),
    "Similarity-Dissimilarity": Entry(lambda value, _: SimilarityDissimilarityLoss(value)),
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
