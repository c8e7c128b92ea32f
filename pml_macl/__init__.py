"""pytorch-metric-learning for multi-label images: MACL and other losses, miners, reducers, samplers and metrics.

The names in ``__all__`` can be imported from here. Other classes and functions are in the folders of the package.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pml_macl.frequency_weighted_jaccard import FrequencyWeightedJaccard
from pml_macl.label_sets import LabelSets
from pml_macl.labels import check_labels, jaccard_similarity, shared_label_counts
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.statistics import LabelStatistics

if TYPE_CHECKING:
    from pml_macl.distances import TemperatureScheduledSimilarity
    from pml_macl.evaluation import MultiLabelAccuracyCalculator
    from pml_macl.inference import MultiLabelInferenceModel
    from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory, MultiLabelLossWrapper
    from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
    from pml_macl.reducers import FrequencyWeightedReducer

__version__ = "0.1.0"

__all__ = [
    "FrequencyWeightedJaccard",
    "FrequencyWeightedReducer",
    "LabelOverlapMiner",
    "LabelSets",
    "LabelStatistics",
    "MACLLoss",
    "MultiLabelAccuracyCalculator",
    "MultiLabelCrossBatchMemory",
    "MultiLabelInferenceModel",
    "MultiLabelLossWrapper",
    "MultiLabelMinerWrapper",
    "PairBlock",
    "Pairs",
    "TemperatureScheduledSimilarity",
    "__version__",
    "check_labels",
    "jaccard_similarity",
    "shared_label_counts",
]

# The folders import modules of this package and PML, so an import of them here would be circular and slow.
# __getattr__ imports the folder when one of these names is first used.
_FOLDERS = {
    "FrequencyWeightedReducer": "reducers",
    "LabelOverlapMiner": "miners",
    "MACLLoss": "losses",
    "MultiLabelAccuracyCalculator": "evaluation",
    "MultiLabelCrossBatchMemory": "losses",
    "MultiLabelInferenceModel": "inference",
    "MultiLabelLossWrapper": "losses",
    "MultiLabelMinerWrapper": "miners",
    "TemperatureScheduledSimilarity": "distances",
}


def __getattr__(name: str) -> Any:
    if name not in _FOLDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FOLDERS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
