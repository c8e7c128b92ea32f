"""The losses of the package under the names that train.py's ``--loss`` takes, and its miner."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pytorch_metric_learning.losses import MultipleLosses
from torch import nn

from pml_macl import FrequencyWeightedJaccard, LabelStatistics
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MulSupConLoss,
    MultiLabelContrastiveLoss,
    MultiSupConLoss,
    ProxyMACLLoss,
    SimilarityDissimilarityLoss,
    SupConAnyLoss,
    SupConExactLoss,
)
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer


def macl(temperature: float, collect_stats: bool, reducer: FrequencyWeightedReducer, **options: Any) -> MACLLoss:
    distance = TemperatureScheduledSimilarity(temperature, collect_stats=collect_stats)
    return MACLLoss(distance=distance, reducer=reducer, collect_stats=collect_stats, **options)


def macl_frequency_jaccard(label_statistics: LabelStatistics, **options: Any) -> MACLLoss:
    """MACL that counts rare labels more in the Jaccard similarity, too."""
    options["reducer"] = FrequencyWeightedReducer(level="label")
    return macl(label_statistics=label_statistics, relation=FrequencyWeightedJaccard(label_statistics), **options)


def macl_proxies(
    temperature: float, label_statistics: LabelStatistics, collect_stats: bool, embedding_size: int
) -> MultipleLosses:
    """MACL of the batch, plus MACL against a learnt proxy of each label."""
    kinds = {"batch": MACLLoss, "proxies": partial(ProxyMACLLoss, label_statistics.num_classes, embedding_size)}
    return MultipleLosses(  # not a list: record-keeper cannot store names that begin with a digit
        {
            name: make(
                label_statistics=label_statistics,
                distance=TemperatureScheduledSimilarity(temperature, collect_stats=collect_stats),
                collect_stats=collect_stats,
            )
            for name, make in kinds.items()
        }
    )


LOSSES: dict[str, Callable[..., MultiLabelContrastiveLoss | MultipleLosses]] = {
    "macl": lambda **options: macl(reducer=FrequencyWeightedReducer(), **options),
    "macl-proxies": macl_proxies,
    "macl-weighted": lambda **options: macl(reducer=FrequencyWeightedReducer(overlap_power=1.0), **options),
    "macl-frequency-jaccard": macl_frequency_jaccard,
    "supcon-any": SupConAnyLoss,
    "supcon-exact": SupConExactLoss,
    "multi-supcon": MultiSupConLoss,
    "jaccard-supcon": JaccardSupConLoss,
    "mul-supcon": MulSupConLoss,
    "similarity-dissimilarity": SimilarityDissimilarityLoss,
}


def make_loss(
    name: str, temperature: float, statistics: LabelStatistics, embedding_size: int = 128, collect_stats: bool = True
) -> nn.Module:
    """A loss by its name in ``LOSSES``.

    Args:
        name: a key of ``LOSSES``.
        temperature: temperature of the pairs, > 0.
        statistics: label counts of the training split.
        embedding_size: size of the embeddings and of the proxies, if the loss has any.
        collect_stats: count pairs in each call, for PML's records.
    """
    options: dict[str, Any] = {"embedding_size": embedding_size} if name == "macl-proxies" else {}
    return LOSSES[name](temperature=temperature, label_statistics=statistics, collect_stats=collect_stats, **options)


def make_miner(hard_negatives: int | None = None) -> LabelOverlapMiner:
    """A miner that keeps all pairs or, with a number, only that many most similar negatives of each anchor."""
    return LabelOverlapMiner(
        neg_strategy="all" if hard_negatives is None else "hard",
        max_negatives_per_anchor=hard_negatives,
        collect_stats=True,
    )
