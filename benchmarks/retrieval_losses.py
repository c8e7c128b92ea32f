"""The losses of the benchmark, and what users try without metric learning. One setting of each is tuned."""

from collections.abc import Callable
from dataclasses import dataclass

from classifier import ClassifierLoss, features, probabilities, weighted_probabilities
from pytorch_metric_learning.losses import ContrastiveLoss, MultiSimilarityLoss, NTXentLoss, TripletMarginLoss
from torch import nn
from training import Method

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

TEMPERATURES = (0.05, 0.1, 0.2, 0.4, 0.8)
UNTRAINED = "Features, no training"


@dataclass
class Entry:
    """How to make and tune a method.

    Args:
        make: makes the loss from the tuned value and the label statistics of the training split; None: no training.
        grid: the values to try.
        parameter: name of the tuned argument.
        mined: "pairs" or "triplets" if a miner limits how many of them the loss gets.
        embed: the module that embeds an image, made from a trained classifier and the label statistics. None: the head
            gives the embeddings.
    """

    make: Callable[[float, LabelStatistics], nn.Module] | None
    grid: tuple[float, ...] = TEMPERATURES
    parameter: str = "temperature"
    mined: str | None = None
    embed: Callable[[nn.Sequential, LabelStatistics], nn.Module] | None = None


def macl(overlap_power: float, level: str) -> Callable[[float, LabelStatistics], nn.Module]:
    return lambda temperature, statistics: MACLLoss(
        label_statistics=statistics,
        distance=TemperatureScheduledSimilarity(temperature),
        reducer=FrequencyWeightedReducer(level=level, overlap_power=overlap_power),
    )


def wrapped(make: Callable[[float], nn.Module]) -> Callable[[float, LabelStatistics], nn.Module]:
    return lambda value, statistics: MultiLabelLossWrapper(make(value))


def classifier(embed: Callable[[nn.Sequential, LabelStatistics], nn.Module]) -> Entry:
    return Entry(ClassifierLoss, (0.0, 0.25, 0.5, 1.0, 2.0), "power", embed=embed)


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
        wrapped(lambda value: TripletMarginLoss(margin=value)), (0.025, 0.05, 0.1, 0.2, 0.4), "margin", "triplets"
    ),
    "PML MultiSimilarity": Entry(
        wrapped(lambda value: MultiSimilarityLoss(base=value)), (0.1, 0.3, 0.5, 0.7, 0.9), "base"
    ),
    "PML Contrastive": Entry(
        wrapped(lambda value: ContrastiveLoss(neg_margin=value)), (0.1, 0.3, 0.5, 0.8, 1.1), "neg_margin"
    ),
    "PML NTXent": Entry(wrapped(lambda value: NTXentLoss(value)), TEMPERATURES, mined="pairs"),
    "Classifier, features": classifier(features),
    "Classifier, probabilities": classifier(probabilities),
    "Classifier, weighted probabilities": classifier(weighted_probabilities),
    UNTRAINED: Entry(None, (0.0,), ""),
}


def make_method(name: str, value: float, statistics: LabelStatistics) -> Method:
    """Make a loss with this value of its tuned setting, and what it needs for training."""
    entry = LOSSES[name]
    if entry.make is None:
        return Method(None)
    loss = entry.make(value, statistics)
    if entry.embed is not None:
        return Method(loss, embed=lambda head: entry.embed(head, statistics), num_outputs=statistics.num_classes)
    if entry.mined is None:
        return Method(loss)
    # All triplets of a multi-label batch would not fit into memory.
    miner = LabelOverlapMiner(
        pos_strategy="random",
        neg_strategy="random",
        max_positives_per_anchor=8,
        max_negatives_per_anchor=16,
        output=entry.mined,
    )
    return Method(loss, miner)
