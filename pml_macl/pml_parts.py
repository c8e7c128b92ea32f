"""Which losses, miners and trainers of pytorch-metric-learning 2.9 work on multi-hot labels, and why the others cannot.

One list drives the refusals of the wrappers, their tests and the page of the docs, which
``python -m pml_macl.pml_parts > docs/pml-parts.md`` writes.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import nn


class PMLPart(NamedTuple):
    """A class of PML: whether it works in a wrapper, and what to know about it or why it is refused."""

    works: bool
    remark: str = ""


_CLASS_WEIGHTS = "learns one weight vector or proxy a class and needs one class a row"
_UNIQUE = "picks rows by their unique labels and needs one class a row"
_NO_LABELS = "takes no labels"
_OWN_REFERENCES = "PML's loss takes no `ref_emb`"
_NOT_A_LOSS = "a base class without a loss of its own"

PML_LOSSES: Mapping[str, PMLPart] = {
    "AngularLoss": PMLPart(True, "PML's loss takes all rows that differ from an anchor for negatives, mined or not"),
    "ArcFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "BaseLossWrapper": PMLPart(False, _NOT_A_LOSS),
    "BaseMetricLossFunction": PMLPart(True, "as the base of losses of your own"),
    "CircleLoss": PMLPart(True),
    "ContrastiveLoss": PMLPart(True),
    "CosFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "CrossBatchMemory": PMLPart(
        False, "remembers one class a row; put the wrapped loss into `MultiLabelCrossBatchMemory` instead"
    ),
    "DynamicSoftMarginLoss": PMLPart(
        False, "keeps the graph of the last batch in its histogram, so that the second `backward` fails, in PML too"
    ),
    "EmbeddingRegularizerMixin": PMLPart(True, "of every loss: regularizers of the wrapped loss work"),
    "FastAPLoss": PMLPart(True, f"{_OWN_REFERENCES}, and mined pairs only weigh the rows"),
    "GeneralizedLiftedStructureLoss": PMLPart(True),
    "GenericPairLoss": PMLPart(True, "as the base of losses of your own"),
    "HistogramLoss": PMLPart(True, _OWN_REFERENCES),
    "InstanceLoss": PMLPart(False, _UNIQUE),
    "IntraPairVarianceLoss": PMLPart(True),
    "LargeMarginSoftmaxLoss": PMLPart(False, _CLASS_WEIGHTS),
    "LiftedStructureLoss": PMLPart(
        True, "with `ref_emb` PML's loss takes the number of a positive for that of an anchor with negatives, too"
    ),
    "ManifoldLoss": PMLPart(False, _NO_LABELS),
    "MarginLoss": PMLPart(True, "with one `beta`; refused with `num_classes`, which makes a `beta` for each class"),
    "MultiSimilarityLoss": PMLPart(True),
    "MultipleLosses": PMLPart(False, "holds other losses; wrap each of them instead"),
    "NCALoss": PMLPart(True, "in PML's loss mined pairs only weigh the rows"),
    "NPairsLoss": PMLPart(False, _UNIQUE),
    "NTXentLoss": PMLPart(
        True,
        "compares each positive pair with all negative pairs: limit both by `LabelOverlapMiner(max_..._per_anchor)`",
    ),
    "NormalizedSoftmaxLoss": PMLPart(False, _CLASS_WEIGHTS),
    "P2SGradLoss": PMLPart(False, _CLASS_WEIGHTS),
    "PNPLoss": PMLPart(
        False, "takes the negatives of a positive for negatives of the anchor, with which they may share labels"
    ),
    "ProxyAnchorLoss": PMLPart(False, _CLASS_WEIGHTS),
    "ProxyNCALoss": PMLPart(False, _CLASS_WEIGHTS),
    "RankedListLoss": PMLPart(True, f"{_OWN_REFERENCES} and no `indices_tuple`"),
    "SelfSupervisedLoss": PMLPart(
        False, "makes a class for each row; give the wrapped loss both views of the images, and their labels twice"
    ),
    "SignalToNoiseRatioContrastiveLoss": PMLPart(True),
    "SmoothAPLoss": PMLPart(False, "needs one class a row and equally many rows of each class"),
    "SoftTripleLoss": PMLPart(False, _CLASS_WEIGHTS),
    "SphereFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "SubCenterArcFaceLoss": PMLPart(False, _CLASS_WEIGHTS),
    "SupConLoss": PMLPart(True),
    "ThresholdConsistentMarginLoss": PMLPart(
        True, "refused with `ref_emb`: PML's loss takes positives and negatives from the batch all the same"
    ),
    "TripletMarginLoss": PMLPart(
        True, "refused with `swap=True`, which parts a positive and a negative that may share labels"
    ),
    "TupletMarginLoss": PMLPart(True),
    "VICRegLoss": PMLPart(False, _NO_LABELS),
    "WeightRegularizerMixin": PMLPart(False, _CLASS_WEIGHTS),
}

PML_MINERS: Mapping[str, PMLPart] = {
    "AngularMiner": PMLPart(True),
    "BaseMiner": PMLPart(True, "as the base of miners of your own"),
    "BatchEasyHardMiner": PMLPart(True),
    "BatchHardMiner": PMLPart(True),
    "DistanceWeightedMiner": PMLPart(False, _UNIQUE),
    "EmbeddingsAlreadyPackagedAsTriplets": PMLPart(True, "trusts the order of the batch, whatever the labels"),
    "HDCMiner": PMLPart(
        True, "`CascadedEmbeddings` does not hand the pairs of one level to the wrapped miner of the next"
    ),
    "MultiSimilarityMiner": PMLPart(True),
    "PairMarginMiner": PMLPart(True),
    "TripletMarginMiner": PMLPart(True),
    "UniformHistogramMiner": PMLPart(True),
}


PML_TRAINERS: Mapping[str, PMLPart] = {
    "BaseTrainer": PMLPart(True, "as the base of trainers of your own"),
    "CascadedEmbeddings": PMLPart(True, "a wrapped `HDCMiner` does not go on from the pairs of the level before"),
    "DeepAdversarialMetricLearning": PMLPart(
        True,
        "only in its `metric_alone_epochs`: in the others the trainer itself makes triplets from classes and stops "
        "with an error",
    ),
    "MetricLossOnly": PMLPart(True),
    "TrainWithClassifier": PMLPart(
        True,
        "with a `classifier_loss` that takes int64 multi-hot labels, such as binary cross-entropy on their floats",
    ),
    "TwoStreamMetricLoss": PMLPart(
        True, "only with a `tuple_miner`: without one the trainer itself makes wrong pairs from the labels, silently"
    ),
}


def check_pml_part(part: nn.Module, parts: Mapping[str, PMLPart]) -> None:
    """Raise unless a loss or miner works on multi-hot labels.

    A class of yours is judged by the classes of PML that it inherits from.

    Args:
        part: the loss or miner to be wrapped.
        parts: ``PML_LOSSES`` or ``PML_MINERS``.

    Raises:
        ValueError: it, or a class that it inherits from, is refused, or is a class of PML that is not in the list.
    """
    name = type(part).__name__
    folders = ("pytorch_metric_learning.losses.", "pytorch_metric_learning.miners.")
    classes = [cls for cls in type(part).__mro__ if cls.__module__.startswith(folders)]
    for cls in classes:
        if cls.__name__ in parts and not parts[cls.__name__].works:
            inherits = "" if cls.__name__ == name else f"inherits from {cls.__name__}, which "
            raise ValueError(f"{name} cannot work on multi-hot labels: it {inherits}{parts[cls.__name__].remark}")
    if classes and classes[0].__name__ not in parts:
        raise ValueError(f"{classes[0].__name__} was not tested on multi-hot labels; the list is of PML 2.9")


def pml_parts_page() -> str:
    """The page of the docs about PML's losses, miners and trainers, in Markdown."""
    lines = [
        "# Parts of pytorch-metric-learning on multi-hot labels",
        "",
        "`MultiLabelLossWrapper(loss)` and `MultiLabelMinerWrapper(miner)` take PML's own classes. Two rows count as",
        "equal if they share a label and have a Jaccard similarity of at least `threshold`, else they differ. What",
        "cannot work on overlapping label sets is refused at construction, with the reason given here. A class of",
        'yours is judged by the classes of PML that it inherits from. Trainers need `label_hierarchy_level="all"`.',
        "The tests run every class of this page, which is made from the list in `pml_macl/pml_parts.py`.",
    ]
    for title, parts in (("Losses", PML_LOSSES), ("Miners", PML_MINERS), ("Trainers", PML_TRAINERS)):
        lines += ["", f"## {title}", "", "| Class | On multi-hot labels | Remark |", "|---|---|---|", *_rows(parts)]
    return "\n".join(lines) + "\n"


def _rows(parts: Mapping[str, PMLPart]) -> Iterable[str]:
    for name, part in parts.items():
        yield f"| `{name}` | {'works' if part.works else 'refused'} | {part.remark} |"


if __name__ == "__main__":
    print(pml_parts_page(), end="")
