"""The losses of the benchmark, and what users try without metric learning. One setting of each is tuned."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from classifier import ClassifierLoss, features, probabilities, weighted_probabilities
from from_examples import make_train_loss
from hyp2 import HyP2Loss
from msc import MSCLoss
from pytorch_metric_learning.losses import ContrastiveLoss, MultiSimilarityLoss, NTXentLoss, TripletMarginLoss
from rince import RINCELoss
from torch import nn
from training import Method

from pml_macl import LabelStatistics
from pml_macl.losses import MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner

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
        feature_weight: how much the features of the backbone count in the joined embeddings, in [0, 1]; 0: not joined.
    """

    make: Callable[[float, LabelStatistics], nn.Module] | None
    grid: tuple[float, ...] = TEMPERATURES
    parameter: str = "temperature"
    mined: str | None = None
    embed: Callable[[nn.Sequential, LabelStatistics], nn.Module] | None = None
    feature_weight: float = 0.0


@cache  # the same object for the same name, by which retrieval.py recognises that methods share a training
def from_package(name: str) -> Callable[[float, LabelStatistics], nn.Module]:
    """A loss by the name that train.py gives it; it collects no statistics of the pairs, which takes time."""
    return partial(make_train_loss, name, collect_stats=False)


def wrapped(make: Callable[[float], nn.Module]) -> Callable[[float, LabelStatistics], nn.Module]:
    return lambda value, statistics: MultiLabelLossWrapper(make(value))


def make_msc(temperature: float, statistics: LabelStatistics) -> MSCLoss:
    return MSCLoss(temperature, statistics.num_classes)


def classifier(embed: Callable[[nn.Sequential, LabelStatistics], nn.Module], feature_weight: float = 0.0) -> Entry:
    return Entry(ClassifierLoss, (0.0, 0.25, 0.5, 1.0, 2.0), "power", embed=embed, feature_weight=feature_weight)


LOSSES = {
    "MACL": Entry(from_package("macl")),
    "MACL, weighted": Entry(from_package("macl-weighted")),
    "MACL, frequency Jaccard": Entry(from_package("macl-frequency-jaccard")),
    "MACL, proxies": Entry(from_package("macl-proxies")),
    "MACL, joined 0.2": Entry(from_package("macl"), feature_weight=0.2),
    "MACL, joined 0.5": Entry(from_package("macl"), feature_weight=0.5),
    "MACL, proxies, joined 0.2": Entry(from_package("macl-proxies"), feature_weight=0.2),
    "SupCon any": Entry(from_package("supcon-any")),
    "SupCon exact": Entry(from_package("supcon-exact")),
    "MultiSupCon": Entry(from_package("multi-supcon")),
    "Jaccard SupCon": Entry(from_package("jaccard-supcon")),
    "MulSupCon": Entry(from_package("mul-supcon")),
    "Similarity-Dissimilarity": Entry(from_package("similarity-dissimilarity")),
    "RINCE": Entry(lambda value, statistics: RINCELoss(value), (0.0125, 0.025, 0.05, 0.1, 0.2)),
    "HyP2": Entry(
        lambda value, statistics: HyP2Loss(value, statistics.num_classes), (-0.4, -0.2, 0.0, 0.2, 0.4), "margin"
    ),
    "MSC": Entry(make_msc),
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
    "MulSupCon, joined 0.2": Entry(from_package("mul-supcon"), feature_weight=0.2),
    "MSC, joined 0.2": Entry(make_msc, feature_weight=0.2),
    "Classifier, features, joined 0.2": classifier(features, 0.2),
    "Classifier, weighted probabilities, joined 0.2": classifier(weighted_probabilities, 0.2),
    UNTRAINED: Entry(None, (0.0,), ""),
}


def make_method(name: str, value: float, statistics: LabelStatistics) -> Method:
    """Make a loss with this value of its tuned setting, and what it needs for training."""
    entry = LOSSES[name]
    if entry.make is None:
        return Method(None)
    method = Method(entry.make(value, statistics))
    if entry.embed is not None:
        method.embed, method.num_outputs = lambda head: entry.embed(head, statistics), statistics.num_classes
    if entry.mined is not None:
        # All triplets of a multi-label batch would not fit into memory.
        method.miner = LabelOverlapMiner(
            pos_strategy="random",
            neg_strategy="random",
            max_positives_per_anchor=8,
            max_negatives_per_anchor=16,
            output=entry.mined,
        )
    return method
