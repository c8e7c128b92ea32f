"""Train and measure one run of the retrieval benchmark or of the ablation, and write its line."""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_metric_learning
import torch
from from_examples import PROXY_LR_FACTOR, Split
from protocols import make_models
from pytorch_metric_learning.miners import BaseMiner
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper
from settings import Settings
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler

import pml_macl
from pml_macl import LabelStatistics
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.inference import JoinedEmbedder
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

CURVE = "label_mean_average_precision"
AT_K = (1, 5, 10)
RELEVANCE = {"any": 0.0, "jaccard_50": 0.5, "exact": 1.0}  # smallest Jaccard similarity of a relevant reference
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


@dataclass
class Method:
    """What a run trains, and what embeds the images afterwards.

    Args:
        loss: called as ``loss(outputs, labels, indices_tuple)``; None: the backbone stays as it is, without a head.
        miner: selects the pairs or triplets of the loss.
        sampler: composes the batches; None shuffles the images.
        embed: makes the module that gives the embeddings from the head.
        num_outputs: size of the head's output.
    """

    loss: nn.Module | None
    miner: BaseMiner | None = None
    sampler: Sampler | None = None
    embed: Callable[[nn.Sequential], nn.Module] = nn.Sequential
    num_outputs: int = 128


def make_tester() -> MultiLabelEmbeddingSpaceTester:
    """A tester that normalises the embeddings and computes the label mAP."""
    return MultiLabelEmbeddingSpaceTester(
        batch_size=256,
        dataloader_num_workers=0,
        accuracy_calculator=MultiLabelAccuracyCalculator((CURVE,)),
        data_device="cpu",
    )


Trained = tuple[tuple[nn.Module, nn.Module], list[float]]


def train(settings: Settings, splits: dict[str, Split], method: Method, seed: int, records: Path) -> Trained:
    """Train a network of the protocol from a seed.

    Returns:
        The trunk and what embeds its features; and the label mAP on the split "val", if there is one, after each epoch.
    """
    torch.manual_seed(seed)
    models, optimizers = make_models(settings, splits, method.num_outputs)
    record_keeper, _, _ = get_record_keeper(str(records))
    if method.loss is None:
        return (models["trunk"], nn.Identity()), []
    if proxies := list(method.loss.parameters()):
        optimizers["metric_loss_optimizer"] = torch.optim.AdamW(proxies, lr=PROXY_LR_FACTOR * settings.lr)
    parts = models["trunk"], method.embed(models["embedder"])
    tester, curve = make_tester(), []

    def end_of_epoch(trainer: MetricLossOnly) -> None:
        if "val" in splits:
            curve.append(tester.test({"val": splits["val"].dataset}, trainer.epoch, *parts)["val"][CURVE])

    trainer = MetricLossOnly(
        models,
        optimizers,
        settings.batch_size,
        {"metric_loss": method.loss},
        splits["train"].dataset,
        mining_funcs={} if method.miner is None else {"tuple_miner": method.miner},
        sampler=method.sampler,
        data_device="cpu",
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        end_of_iteration_hook=HookContainer(record_keeper, save_models=False, log_freq=1000).end_of_iteration_hook,
        end_of_epoch_hook=end_of_epoch,
    )
    trainer.train(num_epochs=settings.epochs)
    return parts, curve


def measure_run(
    settings: Settings, splits: dict[str, Split], measured: str, trained: Trained, weight: float, records: Path
) -> dict[str, Any]:
    """Measure what :func:`train` returned on the split ``measured``, joined with the features at a weight.

    Returns:
        The metrics, the average precision per label, the label counts of the training split, the label mAP on the
        validation split after each epoch, the size of the embeddings, and the settings.
    """
    (trunk, embedder), curve = trained
    statistics = LabelStatistics.from_labels(splits["train"].labels)
    archive = splits[measured].dataset
    embedder = joined(trunk, embedder, archive, weight)
    embeddings, labels = make_tester().get_all_embeddings(archive, trunk, embedder)
    records.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(records / "embeddings.npz", embeddings=embeddings.numpy(), labels=labels.numpy())
    return {
        **measure(embeddings, labels, statistics),
        "counts": statistics.counts.tolist(),
        "curve": curve,
        "dimensions": embeddings.shape[1],
        "settings": settings.recorded(),
    }


def joined(trunk: nn.Module, embedder: nn.Module, dataset: Dataset, weight: float) -> nn.Module:
    """The embedder, joined with the features of the archive ``dataset`` unless the weight is 0."""
    if weight == 0:
        return embedder
    tester = make_tester()
    tester.normalize_embeddings = False
    features, _ = tester.get_all_embeddings(dataset, trunk)
    return JoinedEmbedder.fit(embedder, features, weight)


def measure(
    embeddings: Tensor,
    labels: Tensor,
    statistics: LabelStatistics,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> dict[str, Any]:
    """The metrics of the results pages. Without a reference, each image is a query for all others.

    Returns:
        "metrics"; "recall", the Recall@K for the relevances of the mAPs; and "label_average_precision", in which NaN
        is None.
    """

    def values(*names: str, **options: Any) -> dict[str, Any]:
        calculator = MultiLabelAccuracyCalculator(names, label_statistics=statistics, **options)
        return calculator.get_accuracy(embeddings, labels, reference, reference_labels)

    graded = {
        name: values("mean_average_precision", "recall_at_k", at_k=AT_K, relevance_threshold=threshold)
        for name, threshold in RELEVANCE.items()
    }
    by_label = values("label_mean_average_precision", return_per_class=True)["label_mean_average_precision"]
    by_third = values("label_mean_average_precision", "label_mean_average_precision_tail")
    return {
        "metrics": {
            **{f"map_{name}": found["mean_average_precision"] for name, found in graded.items()},
            "ndcg": values("ndcg")["ndcg"],
            "ndcg_jaccard_20": values("ndcg", gain="jaccard", k=20)["ndcg"],
            "label_map": by_third["label_mean_average_precision"],
            "label_map_tail": by_third["label_mean_average_precision_tail"],
        },
        "recall": {f"{name}_{k}": found[f"recall_at_{k}"] for name, found in graded.items() for k in AT_K},
        "label_average_precision": [None if x != x else x for x in by_label],
    }
