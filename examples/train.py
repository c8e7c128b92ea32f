"""Train image retrieval on multi-label images with MACL, in PML's trainer and tester.

Without arguments this trains a small network on synthetic scenes in under a minute on two cores. On own images:

    python examples/train.py --dataset csv --images DIR --labels FILE --backbone efficientnet-lite0 --freeze-trunk
"""

import platform
import sqlite3
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import pytorch_metric_learning
import torch
from checkpoint import load_checkpoint, save_checkpoint
from command_line import Settings, parse_args
from data import Split, extract_features, load_splits
from models import make_backbone, make_head
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper
from records import mark_records, trim_records
from report import CURVES, draw_curves, draw_grid, draw_labels, print_table, save_json
from torch import nn

import pml_macl
from pml_macl import LabelStatistics
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss, MultiLabelContrastiveLoss, SupConAnyLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

PRIMARY_METRIC = "label_mean_average_precision"
METRICS = (
    PRIMARY_METRIC,
    "label_mean_average_precision_tail",
    "ndcg",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "r_precision",
    "precision_at_1",
    "mean_reciprocal_rank",
)
BEFORE_TRAINING = -1  # the epoch that PML leaves out when it looks for the best one


def main(argv: list[str] | None = None) -> dict[str, Any]:
    settings = parse_args(argv, __doc__)
    started = time.perf_counter()
    try:
        checkpoint = find_checkpoint(settings)
        image_splits, classes = load_splits(settings)
        check_sizes(settings, image_splits)
        check_output(settings.output)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    sizes = {name: len(split.labels) for name, split in image_splits.items()}
    print(", ".join(f"{size} {name}" for name, size in sizes.items()), f"images, {len(classes)} labels")
    try:
        return run(settings, image_splits, classes, checkpoint, started)
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        traceback.print_exc()
        reason = str(error).strip().splitlines()[-1]  # torch puts a worker's traceback before it
        saved = (settings.output / "checkpoint.pth").exists()
        mend = f"mend it and go on with --output {settings.output} --resume" if saved else "mend it and begin anew"
        sys.exit(f"error: the run stopped: {reason}; {mend}")


def run(
    settings: Settings,
    image_splits: dict[str, Split],
    classes: list[str],
    checkpoint: dict[str, Any] | None,
    started: float,
) -> dict[str, Any]:
    """Train, from the checkpoint if there is one, evaluate the best epoch, and write and draw it all."""
    torch.manual_seed(settings.seed)
    models, splits = make_models(settings, image_splits)
    statistics = LabelStatistics.from_labels(splits["train"].labels)
    state = make_state(settings, models, statistics)
    hooks, tester = make_hooks(settings, statistics)
    trim_records(settings.output / "records", {} if checkpoint is None else checkpoint["records"])
    if checkpoint is None:
        before = evaluate(tester, splits["test"], models)
        tester.test({"val": splits["val"].dataset}, BEFORE_TRAINING, models["trunk"], models["embedder"])
        hooks.record_keeper.save_records()
        save(settings, state, 0, before, ["checkpoint.pth"])
    else:
        before = checkpoint["before"]
        restore(state, checkpoint)
        print(f"resuming after epoch {checkpoint['epoch']} of the run in {settings.output}")
    train(settings, splits, state, hooks, tester, before, 1 if checkpoint is None else checkpoint["epoch"] + 1)

    best = load_checkpoint(settings.output / "best.pth", settings.device)
    if best is None:
        raise ValueError(
            f"no best.pth in {settings.output}: it was removed, or no epoch had a {PRIMARY_METRIC}; "
            "it needs a label that two validation images carry"
        )
    restore({"models": models}, best)
    result = {
        "best_epoch": best["epoch"],
        "before": before,
        "best": evaluate(tester, splits["test"], models),
        "classes": classes,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": settings.fixed_on_resume(),
        "versions": {
            "python": platform.python_version(),
            **{package.__name__: package.__version__ for package in (torch, pytorch_metric_learning, pml_macl)},
        },
    }
    save_json(settings.output / "metrics.json", result)
    embeddings, labels = tester.get_all_embeddings(splits["test"].dataset, models["trunk"], models["embedder"])
    history = hooks.get_accuracy_history(tester, "val", metrics=list(CURVES))
    draw_curves(settings.output, hooks.get_loss_history(), history, best["epoch"])
    draw_labels(settings.output, result, statistics)
    draw_grid(settings.output, image_splits["test"].dataset, labels.cpu().bool(), embeddings.cpu(), statistics, classes)
    print_table(result)
    print(f"\n{result['seconds']:.0f} s. Records, checkpoints, metrics.json and figures are in {settings.output}")
    return result


def check_sizes(settings: Settings, image_splits: dict[str, Split]) -> None:
    num_images = len(image_splits["train"].labels)
    if settings.batch_size > num_images:
        raise ValueError(f"--batch-size {settings.batch_size} is larger than the training split ({num_images} images)")


def check_output(folder: Path) -> None:
    """Make the output folder, and raise before an hour of training rather than after it if nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
    except OSError as error:
        raise OSError(f"cannot write to --output {folder} ({error.strerror}); choose another folder") from error


def find_checkpoint(settings: Settings) -> dict[str, Any] | None:
    """The checkpoint to resume from; ValueError where the output folder does not fit the command line."""
    checkpoint = load_checkpoint(settings.output / "checkpoint.pth", settings.device)
    if checkpoint is None:
        if settings.resume:
            raise ValueError(f"nothing to resume, {settings.output} has no checkpoint.pth; leave --resume out to begin")
        return None
    if not settings.resume:
        raise ValueError(
            f"{settings.output} holds a run of {checkpoint['epoch']} epochs; "
            "go on with it by --resume, or choose another --output"
        )
    changed = [name for name, value in settings.fixed_on_resume().items() if checkpoint["settings"].get(name) != value]
    if changed:
        was = ", ".join(f"--{name.replace('_', '-')} {checkpoint['settings'].get(name)}" for name in changed)
        raise ValueError(f"a run is resumed with its own settings; the one in {settings.output} has {was}")
    return checkpoint


def make_models(settings: Settings, image_splits: dict[str, Split]) -> tuple[dict[str, nn.Module], dict[str, Split]]:
    """Trunk and embedder, and the splits to train and evaluate them on: features where the trunk is frozen."""
    trunk, num_features = make_backbone(settings.backbone, settings.pretrained)
    head = make_head(num_features, settings.hidden_size, settings.embedding_size, settings.dropout)
    splits = image_splits
    if settings.freeze_trunk:
        splits = {
            name: extract_features(trunk, split, name, settings.batch_size, settings.device, settings.num_workers)
            for name, split in image_splits.items()
        }
        trunk = nn.Identity()
    return {"trunk": trunk.to(settings.device), "embedder": head.to(settings.device)}, splits


def make_loss(name: str, temperature: float, statistics: LabelStatistics) -> MultiLabelContrastiveLoss:
    """MACL, its weighted variant, or the baseline: SupCon with any shared label."""
    if name == "supcon-any":
        return SupConAnyLoss(temperature, label_statistics=statistics, collect_stats=True)
    return MACLLoss(
        label_statistics=statistics,
        distance=TemperatureScheduledSimilarity(temperature, collect_stats=True),
        reducer=FrequencyWeightedReducer(overlap_power=1.0 if name == "macl-weighted" else 0.0),
        collect_stats=True,
    )


def make_miner(hard_negatives: int | None = None) -> LabelOverlapMiner:
    """The miner of all pairs or, with a number, of that many most similar negatives for each anchor."""
    return LabelOverlapMiner(
        neg_strategy="hard" if hard_negatives else "all",
        max_negatives_per_anchor=hard_negatives,
        collect_stats=True,
    )


def make_state(
    settings: Settings, models: dict[str, nn.Module], statistics: LabelStatistics
) -> dict[str, dict[str, Any]]:
    """Everything that training changes, under the names of PML's trainers."""
    loss = make_loss(settings.loss, settings.temperature, statistics).to(settings.device)
    optimizers = {
        f"{name}_optimizer": torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        for name, model in models.items()
        if not isinstance(model, nn.Identity)
    }
    return {
        "models": models,
        "optimizers": optimizers,
        "loss_funcs": {"metric_loss": loss},
        "mining_funcs": {"tuple_miner": make_miner(settings.hard_negatives)},
    }


def save(
    settings: Settings, state: dict[str, dict[str, Any]], epoch: int, before: dict[str, Any], names: list[str]
) -> None:
    records = mark_records(settings.output / "records")
    checkpoint = {"epoch": epoch, "settings": settings.fixed_on_resume(), "before": before, "records": records}
    for name in names:
        save_checkpoint(settings.output / name, checkpoint, state, keep_previous=name == "checkpoint.pth")


def restore(state: dict[str, dict[str, Any]], checkpoint: dict[str, Any]) -> None:
    for group, parts in state.items():
        for name, part in parts.items():
            part.load_state_dict(checkpoint[group][name])


def make_hooks(settings: Settings, statistics: LabelStatistics) -> tuple[HookContainer, MultiLabelEmbeddingSpaceTester]:
    """PML's hooks, which write csv, sqlite and, when asked, tensorboard records, and the tester that feeds them."""
    tensorboard = str(settings.output / "tensorboard") if settings.tensorboard else None
    records, _, _ = get_record_keeper(str(settings.output / "records"), tensorboard)
    # PML would save each object in a file of its own; checkpoint.py saves them all in one step.
    hooks = HookContainer(
        records, primary_metric=PRIMARY_METRIC, validation_split_name="val", save_models=False, log_freq=1
    )
    tester = MultiLabelEmbeddingSpaceTester(
        batch_size=settings.batch_size,
        dataloader_num_workers=settings.num_workers,
        data_device=settings.device,
        end_of_testing_hook=hooks.end_of_testing_hook,
        accuracy_calculator=MultiLabelAccuracyCalculator(METRICS, label_statistics=statistics),
    )
    return hooks, tester


def train(
    settings: Settings,
    splits: dict[str, Split],
    state: dict[str, dict[str, Any]],
    hooks: HookContainer,
    tester: MultiLabelEmbeddingSpaceTester,
    before: dict[str, Any],
    first_epoch: int,
) -> None:
    """Train to the last epoch; after each one evaluate, record and save."""
    evaluate_and_record = hooks.end_of_epoch_hook(tester, {"val": splits["val"].dataset}, str(settings.output))

    def end_of_epoch(trainer: MetricLossOnly) -> None:
        evaluate_and_record(trainer)
        best_epoch, best = hooks.get_best_epoch_and_accuracy(tester, "val")
        save(settings, state, trainer.epoch, before, ["best.pth"] * (best_epoch == trainer.epoch) + ["checkpoint.pth"])
        value = tester.all_accuracies["val"][PRIMARY_METRIC]
        print(
            f"epoch {trainer.epoch}/{settings.epochs}: val label mAP {value:.2%}, best {best:.2%} in epoch {best_epoch}"
        )

    trainer = MetricLossOnly(
        state["models"],
        state["optimizers"],
        settings.batch_size,
        state["loss_funcs"],
        splits["train"].dataset,
        mining_funcs=state["mining_funcs"],
        data_device=settings.device,
        label_hierarchy_level="all",
        dataloader_num_workers=settings.num_workers,
        end_of_iteration_hook=hooks.end_of_iteration_hook,
        end_of_epoch_hook=end_of_epoch,
    )
    for epoch in range(first_epoch, settings.epochs + 1):
        # Each epoch has a seed of its own, so a resumed run sees what the uninterrupted one would have seen.
        torch.manual_seed(1000 * settings.seed + epoch)
        trainer.train(start_epoch=epoch, num_epochs=epoch)
    trainer.dataloader_iter = None  # ends its workers, for whom the garbage collector would wait five seconds


def evaluate(tester: MultiLabelEmbeddingSpaceTester, split: Split, models: dict[str, nn.Module]) -> dict[str, Any]:
    """Every metric on a split, each image queried against the others."""
    embeddings, labels = tester.get_all_embeddings(split.dataset, models["trunk"], models["embedder"])
    metrics = tester.accuracy_calculator.get_accuracy(embeddings, labels)
    for name, threshold in (("jaccard_50", 0.5), ("exact", 1.0)):
        graded = MultiLabelAccuracyCalculator(("mean_average_precision",), relevance_threshold=threshold)
        metrics[f"mean_average_precision_{name}"] = graded.get_accuracy(embeddings, labels)["mean_average_precision"]
    by_label = MultiLabelAccuracyCalculator((PRIMARY_METRIC,), return_per_class=True)
    return {**metrics, "label_average_precision": by_label.get_accuracy(embeddings, labels)[PRIMARY_METRIC]}


if __name__ == "__main__":
    main()
