"""Train and measure one run of the retrieval benchmark or of the ablation, and write its line."""

import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_metric_learning
import torch
from from_examples import Split
from protocols import make_models
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper
from settings import Settings
from torch import Tensor
from torch.utils.data import Sampler

import pml_macl
from pml_macl import LabelStatistics
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

CURVE = "label_mean_average_precision"
KEYS = ("data", "stage", "loss", "value", "question", "answer", "seed")


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``runs.jsonl``; an empty list without the file."""
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def is_finished(folder: Path, key: dict[str, Any]) -> bool:
    """Whether ``runs.jsonl`` has a run with all values of this key."""
    return any(all(run[name] == part for name, part in key.items()) for run in read_runs(folder))


def records_folder(folder: Path, key: dict[str, Any]) -> Path:
    """The folder for the records and embeddings of a run, named after the values of its key."""
    parts = [str(key[name]) for name in KEYS if name in key]
    return folder / "records" / "-".join(parts).replace(" ", "_")


def append_run(folder: Path, run: dict[str, Any]) -> None:
    """Add a line to ``runs.jsonl`` and print it."""
    with (folder / "runs.jsonl").open("a") as file:
        file.write(json.dumps(run) + "\n")
    print(*(part for part in run.values() if isinstance(part, str | int | float)), run["metrics"], flush=True)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    packages = (torch, pytorch_metric_learning, pml_macl)
    return {"python": platform.python_version(), **{package.__name__: package.__version__ for package in packages}}


def train_and_measure(
    settings: Settings,
    splits: dict[str, Split],
    measured: str,
    loss_fn: BaseMetricLossFunction,
    miner: BaseMiner | None,
    seed: int,
    records: Path,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    """Train a network of the protocol from a seed, and measure it on the split ``measured``.

    Returns:
        The metrics, the average precision per label, the label counts of the training split, the label mAP on the
        validation split after each epoch, the duration in seconds, and the settings.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    models, optimizers = make_models(settings, splits)
    statistics = LabelStatistics.from_labels(splits["train"].labels)
    record_keeper, _, _ = get_record_keeper(str(records))
    hooks = HookContainer(record_keeper, save_models=False, log_freq=1000)
    tester = MultiLabelEmbeddingSpaceTester(
        batch_size=256,
        dataloader_num_workers=0,
        accuracy_calculator=MultiLabelAccuracyCalculator((CURVE,)),
        data_device="cpu",
    )
    curve = []

    def end_of_epoch(trainer: MetricLossOnly) -> None:
        curve.append(tester.test({"val": splits["val"].dataset}, trainer.epoch, *models.values())["val"][CURVE])

    trainer = MetricLossOnly(
        models,
        optimizers,
        settings.batch_size,
        {"metric_loss": loss_fn},
        splits["train"].dataset,
        mining_funcs={} if miner is None else {"tuple_miner": miner},
        sampler=sampler,
        data_device="cpu",
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        end_of_iteration_hook=hooks.end_of_iteration_hook,
        end_of_epoch_hook=end_of_epoch,
    )
    trainer.train(num_epochs=settings.epochs)
    embeddings, labels = tester.get_all_embeddings(splits[measured].dataset, *models.values())
    np.savez_compressed(records / "embeddings.npz", embeddings=embeddings.numpy(), labels=labels.numpy())
    return {
        **measure(embeddings, labels, statistics),
        "counts": statistics.counts.tolist(),
        "curve": curve,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": settings.recorded(),
    }


def measure(embeddings: Tensor, labels: Tensor, statistics: LabelStatistics) -> dict[str, Any]:
    """The metrics of the results page; each image of a split is a query for all others. NaN per label becomes None."""

    def value(metric: str, **options: Any) -> Any:
        calculator = MultiLabelAccuracyCalculator((metric,), label_statistics=statistics, **options)
        return calculator.get_accuracy(embeddings, labels)[metric]

    by_label = value("label_mean_average_precision", return_per_class=True)
    return {
        "metrics": {
            "map_any": value("mean_average_precision"),
            "map_jaccard_50": value("mean_average_precision", relevance_threshold=0.5),
            "map_exact": value("mean_average_precision", relevance_threshold=1.0),
            "ndcg": value("ndcg"),
            "ndcg_jaccard_20": value("ndcg", gain="jaccard", k=20),
            "label_map": value("label_mean_average_precision"),
            "label_map_tail": value("label_mean_average_precision_tail"),
        },
        "label_average_precision": [None if x != x else x for x in by_label],
    }
