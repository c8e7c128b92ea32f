"""Multi-label adaptive contrastive learning (MACL) as parts of pytorch-metric-learning."""

from pml_macl.label_sets import LabelSets
from pml_macl.labels import check_labels, jaccard_similarity, shared_label_counts
from pml_macl.pairs import PairBlock, Pairs
from pml_macl.statistics import LabelStatistics

__version__ = "0.1.0"

__all__ = [
    "LabelSets",
    "LabelStatistics",
    "PairBlock",
    "Pairs",
    "__version__",
    "check_labels",
    "jaccard_similarity",
    "shared_label_counts",
]
