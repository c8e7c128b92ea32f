"""Sizes that the loss benchmark measures, and the names of what it measures there."""

from dataclasses import dataclass

from pml_macl import losses

FLOOR, SUPCON = "floor", "PML SupCon"
MACL, BY_LABEL = "MACL", "MACL, label weights"
# The loss with the references as ref_emb, and the same loss in a memory bank of as many rows.
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
    """Sizes of one measurement; 0 references are the batch itself."""

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
TRAIN_CASES = (Case(128), Case(512))  # examples/train.py has batches of 128 unless told otherwise
PARTS_CASES = (Case(512), Case(2048))
