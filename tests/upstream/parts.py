"""The losses, miners and reducers that the tests of this folder run on, and batches for them."""

import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners

from pml_macl import LabelStatistics
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MulSupConLoss,
    MultiLabelContrastiveLoss,
    MultiLabelLossWrapper,
    MultiSupConLoss,
    SimilarityDissimilarityLoss,
    SupConAnyLoss,
    SupConExactLoss,
)
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer, MulSupConReducer, SimilarityDissimilarityReducer

NUM_CLASSES = 5
DTYPES = [torch.float16, torch.float32, torch.float64]
# The losses compute in float32. Half-precision embeddings are rounded, and a temperature of 0.1 magnifies the error.
TOLERANCES = {torch.float16: 3e-2, torch.bfloat16: 2e-1, torch.float32: 1e-4, torch.float64: 1e-9}


def make_batch(num_rows=12, seed=0, dtype=torch.float64, device="cpu"):
    """Make embeddings that require gradients, and non-empty label sets."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_rows, 8, generator=generator, dtype=torch.float64)
    labels = torch.rand(num_rows, NUM_CLASSES, generator=generator) < 0.3
    labels[torch.arange(num_rows), torch.arange(num_rows) % NUM_CLASSES] = True
    return embeddings.to(device, dtype).requires_grad_(), labels.to(device)


def statistics():
    return LabelStatistics.from_labels(make_batch(100, seed=9)[1])


OWN_LOSSES = {
    "MACLLoss": lambda **kwargs: MACLLoss(label_statistics=statistics(), **kwargs),
    "MACLLoss of the batch": MACLLoss,
    "MACLLoss learning": lambda **kwargs: MACLLoss(NUM_CLASSES, **kwargs),
    "MACLLoss reference": lambda **kwargs: MACLLoss(label_statistics=statistics(), engine="reference", **kwargs),
    "weighted MACLLoss": lambda **kwargs: MACLLoss(
        label_statistics=statistics(), **{"reducer": FrequencyWeightedReducer(overlap_power=1), **kwargs}
    ),
    "MultiLabelContrastiveLoss": MultiLabelContrastiveLoss,
    "SupConAnyLoss": SupConAnyLoss,
    "SupConExactLoss": SupConExactLoss,
    "MultiSupConLoss": MultiSupConLoss,
    "JaccardSupConLoss": JaccardSupConLoss,
    "MulSupConLoss": MulSupConLoss,
    "SimilarityDissimilarityLoss": SimilarityDissimilarityLoss,
}
WRAPPED_LOSSES = {
    f"wrapped {loss.__name__}": lambda loss=loss, **kwargs: MultiLabelLossWrapper(loss(), **kwargs)
    for loss in (
        pml_losses.CircleLoss,
        pml_losses.ContrastiveLoss,
        pml_losses.MultiSimilarityLoss,
        pml_losses.NTXentLoss,
        pml_losses.SupConLoss,
        pml_losses.TripletMarginLoss,
        pml_losses.TupletMarginLoss,
    )
}
LOSSES = OWN_LOSSES | WRAPPED_LOSSES
# These losses weight pairs by all labels of the batch, or average over all its rows, so other rows change their value.
OF_THE_BATCH = {"MACLLoss of the batch", "MACLLoss learning", "MulSupConLoss", "wrapped MultiSimilarityLoss"}

MINERS = {
    f"LabelOverlapMiner {positives} {negatives} {output}": lambda p=positives, n=negatives, o=output: LabelOverlapMiner(
        pos_strategy=p, neg_strategy=n, output=o
    )
    for positives, negatives in (("all", "all"), ("easy", "hard"), ("hard", "semihard"), ("random", "random"))
    for output in ("pairs", "triplets")
} | {
    f"wrapped {miner.__name__}": lambda miner=miner, settings=settings: MultiLabelMinerWrapper(miner(**settings))
    for miner, settings in (
        (pml_miners.AngularMiner, {}),
        (pml_miners.BatchEasyHardMiner, {}),
        (pml_miners.BatchHardMiner, {}),
        (pml_miners.MultiSimilarityMiner, {}),
        (
            pml_miners.PairMarginMiner,
            {"neg_margin": 1.3},
        ),  # with the default margin, no pair of a few random rows is near enough
        (pml_miners.TripletMarginMiner, {}),
    )
}
REDUCERS = {
    "FrequencyWeightedReducer": FrequencyWeightedReducer,
    "FrequencyWeightedReducer by label": lambda: FrequencyWeightedReducer(level="label", anchor_power=0.5),
    "FrequencyWeightedReducer with overlap": lambda: FrequencyWeightedReducer(statistics(), overlap_power=1),
    "MulSupConReducer": MulSupConReducer,
    "SimilarityDissimilarityReducer": SimilarityDissimilarityReducer,
}
