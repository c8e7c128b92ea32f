"""Train seven combinations of MACL's and PML's parts on synthetic scenes, and evaluate each.

python examples/combine.py
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from models import make_head, small_cnn
from progress import tidy_output
from pytorch_metric_learning.losses import ContrastiveLoss, MultiSimilarityLoss, SupConLoss, TripletMarginLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from pytorch_metric_learning.trainers import MetricLossOnly
from torch import nn

from pml_macl import LabelStatistics
from pml_macl.datasets import SyntheticScenes
from pml_macl.distances import LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory, MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

METRICS = ("label_mean_average_precision", "ndcg", "mean_average_precision")


def combinations(statistics: LabelStatistics, num_steps: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Functions that make the loss and, in some combinations, the miner for PML's trainer."""
    similarity = TemperatureScheduledSimilarity(schedule=LinearTemperature(2.0, 1.0, num_steps))
    return {
        "MACLLoss": lambda: {"loss": MACLLoss(label_statistics=statistics)},
        "LabelOverlapMiner, TripletMarginLoss": lambda: {
            "loss": MultiLabelLossWrapper(TripletMarginLoss(margin=0.1)),
            "miner": LabelOverlapMiner(
                pos_strategy="random",
                neg_strategy="random",
                max_positives_per_anchor=8,
                max_negatives_per_anchor=8,
                output="triplets",
            ),
        },
        "LabelOverlapMiner, MultiSimilarityLoss": lambda: {
            "loss": MultiLabelLossWrapper(MultiSimilarityLoss()),
            "miner": LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=16),
        },
        "MultiSimilarityMiner, MACLLoss": lambda: {
            "loss": MACLLoss(label_statistics=statistics),
            "miner": MultiLabelMinerWrapper(MultiSimilarityMiner(epsilon=0.5)),
        },
        "TemperatureScheduledSimilarity in SupConLoss": lambda: {
            "loss": MultiLabelLossWrapper(SupConLoss(temperature=0.1, distance=similarity)),
        },
        "FrequencyWeightedReducer on ContrastiveLoss": lambda: {
            "loss": MultiLabelLossWrapper(ContrastiveLoss(), reducer=FrequencyWeightedReducer(statistics)),
        },
        "MACLLoss with cross-batch memory": lambda: {
            "loss": MultiLabelCrossBatchMemory(
                MACLLoss(label_statistics=statistics), 64, statistics.num_classes, memory_size=512
            ),
        },
    }


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=1000, help="number of training images (default: 1000)")
    parser.add_argument("--num-test-images", type=int, default=400, help="default: 400")
    parser.add_argument("--epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the images")
    args = parser.parse_args(argv)
    if args.num_images < args.batch_size:
        parser.error("--num-images must be at least --batch-size")
    train_set, test_set = SyntheticScenes(args.num_images, seed=0), SyntheticScenes(args.num_test_images, seed=1)
    statistics = LabelStatistics.from_labels(train_set.labels)
    tester = MultiLabelEmbeddingSpaceTester(
        batch_size=256, dataloader_num_workers=0, accuracy_calculator=MultiLabelAccuracyCalculator(METRICS)
    )
    num_steps = args.epochs * (args.num_images // args.batch_size)
    results = {}
    with tidy_output():
        for name, make in combinations(statistics, num_steps).items():
            torch.manual_seed(args.seed)
            models = {"trunk": small_cnn(), "embedder": make_head(128, 256, 64, dropout=0.0)}
            if not results:
                results["before training"] = test(tester, models, test_set)
            train(models, train_set, args.batch_size, args.epochs, **make())
            results[name] = test(tester, models, test_set)
            print(f"trained: {name}")
    print(f"\n{'test split, percent':<46}{'label mAP':>10}{'nDCG':>8}{'mAP any':>9}")
    for name, metrics in results.items():
        label_map, ndcg, any_map = (100 * metrics[metric] for metric in METRICS)
        print(f"{name:<46}{label_map:>10.1f}{ndcg:>8.1f}{any_map:>9.1f}")
    return results


def train(
    models: dict[str, nn.Module],
    train_set: SyntheticScenes,
    batch_size: int,
    num_epochs: int,
    loss: nn.Module,
    miner: nn.Module | None = None,
) -> None:
    """Train in PML's trainer. ``label_hierarchy_level="all"`` makes it pass every label column to loss and miner."""
    optimizers = {f"{name}_optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3) for name, model in models.items()}
    MetricLossOnly(
        models,
        optimizers,
        batch_size,
        {"metric_loss": loss},
        train_set,
        mining_funcs={} if miner is None else {"tuple_miner": miner},
        data_device="cpu",
        label_hierarchy_level="all",
        dataloader_num_workers=0,
    ).train(num_epochs=num_epochs)


def test(
    tester: MultiLabelEmbeddingSpaceTester, models: dict[str, nn.Module], test_set: SyntheticScenes
) -> dict[str, float]:
    """The metrics of the test images; each is a query against the other images."""
    return tester.test({"test": test_set}, 0, models["trunk"], models["embedder"])["test"]


if __name__ == "__main__":
    main()
