"""Sizes at which the loss benchmark measures, and names of the losses and parts that it measures."""

from dataclasses import dataclass

from pml_macl import losses

FLOOR, SUPCON = "floor", "PML SupCon"
MACL, BY_LABEL = "MACL", "MACL, label weights"
# From a loss with references as ref_emb to the same loss with a memory bank of as many rows.
BANKS = {MACL: "MACL, memory bank", BY_LABEL: "MACL, label weights, memory bank"}
STATS, TRAIN = "MACL, collect_stats", "examples/train.py"
REFERENCE_ENGINE = "MACL, reference engine"
BASELINES = {
    "SupCon any": losses.SupConAnyLoss,
    "SupCon exact": losses.SupConExactLoss,
    "MultiSupCon": losses.MultiSupConLoss,
    "Jaccard SupCon": losses.JaccardSupConLoss,
    "MulSupCon": losses.MulSupConLoss,
    "Similarity-Dissimilarity": losses.SimilarityDissimilarityLoss,
}
MULTI_SIMILARITY, NTXENT = "PML MultiSimilarity", "PML NTXent"
MINER, HARD_MINER = "LabelOverlapMiner, all pairs", "LabelOverlapMiner, 16 hardest negatives"
STATISTICS, SAMPLER = "LabelStatistics, one update", "LabelBalancedSampler, one batch"
PARTS = (MINER, HARD_MINER, STATISTICS, SAMPLER)


@dataclass(frozen=True)
class Case:
    """Sizes of one measurement. With 0 references, the batch is compared with itself."""

    rows: int = 512
    references: int = 0
    size: int = 128
    classes: int = 17


CASES = (
    *(Case(rows) for rows in (128, 512, 1024, 2048, 4096, 8192)),
    *(Case(references=references) for references in (4096, 16384, 65536)),
    *(Case(size=size) for size in (64, 512)),
    *(Case(classes=classes) for classes in (80, 1000)),
)
TRAIN_CASES = (Case(128), Case(512))  # 128 is the default batch size of examples/train.py
PARTS_CASES = (Case(512), Case(2048))
