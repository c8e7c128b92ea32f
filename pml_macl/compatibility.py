"""The losses, miners and trainers of pytorch-metric-learning 2.9 that work on multi-hot labels.

For the other classes, the tables give the reason why they cannot work. The wrappers refuse these classes. The tests run
every class in the tables, and ``docs/generate_pml_parts.py`` writes ``docs/parts/pml_parts.md`` from them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn


class PMLPart(NamedTuple):
    """Whether a class of PML works on multi-hot labels, and a remark: a limit to know, or why it is refused."""

    works: bool
    remark: str = ""


_CLASS_WEIGHTS = "learns a vector per class and needs one class per row; `ProxyMACLLoss` learns one per label"
_UNIQUE = "picks rows by their unique labels and needs one class per row"
_NO_LABELS = "takes no labels"
_OWN_REFERENCES = "PML's loss takes no `ref_emb`"
_NOT_A_LOSS = "a base class without a loss of its own"

PML_LOSSES: Mapping[str, PMLPart] = {
    "AngularLoss": PMLPart(
        True, "takes all rows that differ from the anchor as negatives, even if a miner selects fewer"
    ),
    "ArcFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "BaseLossWrapper": PMLPart(False, _NOT_A_LOSS),
    "BaseMetricLossFunction": PMLPart(True, "as the base class of your own losses"),
    "CircleLoss": PMLPart(True),
    "ContrastiveLoss": PMLPart(True),
    "CosFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "CrossBatchMemory": PMLPart(
        False, "stores one class per row; put the wrapped loss into `MultiLabelCrossBatchMemory` instead"
    ),
    "DynamicSoftMarginLoss": PMLPart(
        False,
        "keeps the graph of the last batch in its histogram, so the second `backward` fails, wrapped or not",
    ),
    "EmbeddingRegularizerMixin": PMLPart(True, "a wrapped loss keeps its embedding regularizer"),
    "FastAPLoss": PMLPart(True, f"{_OWN_REFERENCES}; a miner only changes the weights of the rows"),
    "GeneralizedLiftedStructureLoss": PMLPart(True),
    "GenericPairLoss": PMLPart(True, "as the base class of your own losses"),
    "HistogramLoss": PMLPart(True, _OWN_REFERENCES),
    "InstanceLoss": PMLPart(False, _UNIQUE),
    "IntraPairVarianceLoss": PMLPart(True),
    "LargeMarginSoftmaxLoss": PMLPart(False, _CLASS_WEIGHTS),
    "LiftedStructureLoss": PMLPart(
        True, "with `ref_emb`, PML's loss mistakes the row numbers of references for rows of the batch"
    ),
    "ManifoldLoss": PMLPart(False, _NO_LABELS),
    "MarginLoss": PMLPart(True, "with a single `beta`; refused with `num_classes`, which creates one `beta` per class"),
    "MultiSimilarityLoss": PMLPart(True),
    "MultipleLosses": PMLPart(False, "holds other losses; wrap each of them instead"),
    "NCALoss": PMLPart(True, "a miner only changes the weights of the rows"),
    "NPairsLoss": PMLPart(False, _UNIQUE),
    "NTXentLoss": PMLPart(
        True,
        "compares each positive pair with all negative pairs; limit the number of both with `LabelOverlapMiner`",
    ),
    "NormalizedSoftmaxLoss": PMLPart(False, _CLASS_WEIGHTS),
    "P2SGradLoss": PMLPart(False, _CLASS_WEIGHTS),
    "PNPLoss": PMLPart(
        False, "uses the negatives of a positive as negatives of the anchor, although they may share labels with it"
    ),
    "ProxyAnchorLoss": PMLPart(False, _CLASS_WEIGHTS),
    "ProxyNCALoss": PMLPart(False, _CLASS_WEIGHTS),
    "RankedListLoss": PMLPart(True, f"{_OWN_REFERENCES} and no `indices_tuple`"),
    "SelfSupervisedLoss": PMLPart(
        False, "creates one class per row; pass both views of the images and their labels twice to the wrapped loss"
    ),
    "SignalToNoiseRatioContrastiveLoss": PMLPart(True),
    "SmoothAPLoss": PMLPart(False, "needs one class per row and the same number of rows of each class"),
    "SoftTripleLoss": PMLPart(False, _CLASS_WEIGHTS),
    "SphereFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "SubCenterArcFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "SupConLoss": PMLPart(True),
    "ThresholdConsistentMarginLoss": PMLPart(
        True, "refused with `ref_emb`, because PML's loss takes positives and negatives from the batch anyway"
    ),
    "TripletMarginLoss": PMLPart(
        True, "refused with `swap=True`, which pushes apart a positive and a negative that may share labels"
    ),
    "TupletMarginLoss": PMLPart(True),
    "VICRegLoss": PMLPart(False, _NO_LABELS),
    "WeightRegularizerMixin": PMLPart(False, _CLASS_WEIGHTS),
}

PML_MINERS: Mapping[str, PMLPart] = {
    "AngularMiner": PMLPart(True),
    "BaseMiner": PMLPart(True, "as the base class of your own miners"),
    "BatchEasyHardMiner": PMLPart(True),
    "BatchHardMiner": PMLPart(True),
    "DistanceWeightedMiner": PMLPart(False, _UNIQUE),
    "EmbeddingsAlreadyPackagedAsTriplets": PMLPart(True, "uses the order of the batch and ignores the labels"),
    "HDCMiner": PMLPart(
        True, "`CascadedEmbeddings` does not pass the pairs of one level to the wrapped miner of the next"
    ),
    "MultiSimilarityMiner": PMLPart(True),
    "PairMarginMiner": PMLPart(True),
    "TripletMarginMiner": PMLPart(True),
    "UniformHistogramMiner": PMLPart(True),
}


PML_TRAINERS: Mapping[str, PMLPart] = {
    "BaseTrainer": PMLPart(True, "as the base class of your own trainers"),
    "CascadedEmbeddings": PMLPart(True, "a wrapped `HDCMiner` does not start from the pairs of the previous level"),
    "DeepAdversarialMetricLearning": PMLPart(
        True,
        "only in its `metric_alone_epochs`: in the other epochs the trainer itself builds triplets from classes and "
        "stops with an error",
    ),
    "MetricLossOnly": PMLPart(True),
    "TrainWithClassifier": PMLPart(
        True,
        "needs a `classifier_loss` for int64 multi-hot labels, such as binary cross-entropy after `labels.float()`",
    ),
    "TwoStreamMetricLoss": PMLPart(
        True,
        "only with a `tuple_miner`: without one the trainer itself silently builds wrong pairs from the labels",
    ),
}


def check_pml_part(part: nn.Module, parts: Mapping[str, PMLPart]) -> None:
    """Raise unless a loss or miner of PML works on multi-hot labels.

    A subclass that PML does not contain is treated like its PML base class.

    Args:
        part: the loss or miner to wrap.
        parts: ``PML_LOSSES`` or ``PML_MINERS``.

    Raises:
        ValueError: the table refuses the class or one of its base classes, or PML's class is not in the table.
    """
    name = type(part).__name__
    folders = ("pytorch_metric_learning.losses.", "pytorch_metric_learning.miners.")
    classes = [cls for cls in type(part).__mro__ if cls.__module__.startswith(folders)]
    for cls in classes:
        if cls.__name__ in parts and not parts[cls.__name__].works:
            inherits = "" if cls.__name__ == name else f"inherits from {cls.__name__}, which "
            raise ValueError(f"{name} cannot work on multi-hot labels: it {inherits}{parts[cls.__name__].remark}")
    if classes and classes[0].__name__ not in parts:
        raise ValueError(
            f"{classes[0].__name__} was not tested on multi-hot labels; use a class of pytorch-metric-learning 2.9 "
            "that docs/parts/pml_parts.md lists"
        )
