"""Train image retrieval on multi-label images with MACL, in PML's trainer and tester.

Without arguments this trains a small network on synthetic scenes, which takes less than a minute on two CPU cores.
With your own images and label table:

    python examples/train.py --dataset csv --images DIR --labels FILE --backbone efficientnet-lite0 --freeze-trunk

To continue an interrupted run:

    python examples/train.py --output DIR --resume
"""

import platform
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_metric_learning
import torch
from checkpoint import load_file, save_file
from command_line import Settings, check_device, new_settings, parse_args, resume_command, resumed_settings
from data import Split, load_splits
from feature_cache import cached_features
from models import load_run, make_model, read_run, save_run
from progress import tidy_output
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper
from records import copy_records, restore_records
from report import CURVES, draw_curves, draw_grid, draw_labels, print_table, save_json
from retrieval_metrics import PRIMARY_METRIC, make_calculator, measure
from torch import nn

import pml_macl
from pml_macl import LabelStatistics
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, MultiLabelContrastiveLoss, SupConAnyLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

BEFORE_TRAINING = -1  # PML ignores this epoch when it looks for the best one
CHECKPOINT_KEYS = ("epoch", "settings", "classes", "num_images", "before", "records", "models", "optimizers")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    given = parse_args(argv, __doc__)
    started = time.perf_counter()
    try:
        checkpoint = find_checkpoint(given)
        settings = new_settings(given) if checkpoint is None else resumed_settings(given, checkpoint["settings"])
        check_device(settings.device)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    try:
        with tidy_output():
            return load_and_run(settings, checkpoint, started)
    except KeyboardInterrupt:
        after_the_key = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C
        print(f"{after_the_key}{describe_interruption(settings)}", file=sys.stderr)
        sys.exit(130)  # what shells report after Ctrl-C


def load_and_run(settings: Settings, checkpoint: dict[str, Any] | None, started: float) -> dict[str, Any]:
    """Check all that can be checked before the training, then run; an error ends the process with one line."""
    try:
        image_splits, classes = load_splits(settings)
        sizes = {name: len(split.labels) for name, split in image_splits.items()}
        check_sizes(settings, sizes, classes, checkpoint)
        check_output(settings.output)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(", ".join(f"{size} {name}" for name, size in sizes.items()), f"images, {len(classes)} labels")
    try:
        return run(settings, image_splits, classes, checkpoint, started)
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        traceback.print_exc()
        # The last line is the message. For an error in a worker, torch puts the traceback of the worker before it.
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        saved = (settings.output / "checkpoint.pth").exists()
        how = f"continue with: {resume_command(settings.output)}" if saved else "start the run again"
        sys.exit(f"error: the run stopped: {reason}. Fix the problem, then {how}")


def run(
    settings: Settings,
    image_splits: dict[str, Split],
    classes: list[str],
    checkpoint: dict[str, Any] | None,
    started: float,
) -> dict[str, Any]:
    """Train a new run or continue from the checkpoint, evaluate the best epoch, then write and draw the results."""
    torch.manual_seed(settings.seed)
    model = make_model(settings.fixed_on_resume(), settings.pretrained)
    splits = cached_features(model.trunk, image_splits, settings) if settings.freeze_trunk else image_splits
    models = make_trained_models(settings, model)
    statistics = LabelStatistics.from_labels(splits["train"].labels)
    state = make_state(settings, models, statistics)
    hooks, tester = make_hooks(settings, statistics)
    restore_records(settings.output / "records", {} if checkpoint is None else checkpoint["records"])
    if checkpoint is None:
        before = evaluate(tester, splits["test"], models)
        tester.test({"val": splits["val"].dataset}, BEFORE_TRAINING, models["trunk"], models["embedder"])
        hooks.record_keeper.save_records()
    else:
        before = checkpoint["before"]
        for group, parts in state.items():
            for name, part in parts.items():
                part.load_state_dict(checkpoint[group][name])
        print(f"resuming after epoch {checkpoint['epoch']} of the run in {settings.output}")

    def save(epoch: int, is_best: bool) -> None:
        if is_best:
            save_run(settings.output, model, settings.fixed_on_resume(), classes, epoch)
        content = {
            "epoch": epoch,
            "settings": settings.to_save(),
            "classes": classes,
            "num_images": {name: len(split.labels) for name, split in splits.items()},
            "before": before,
            "records": copy_records(settings.output / "records"),
            **{group: {name: part.state_dict() for name, part in parts.items()} for group, parts in state.items()},
        }
        save_file(settings.output / "checkpoint.pth", content)

    if checkpoint is None:
        save(0, is_best=False)
    train(settings, splits, state, hooks, tester, save, 1 if checkpoint is None else checkpoint["epoch"] + 1)

    if not (settings.output / "best.pth").exists():
        raise ValueError(
            f"{settings.output} has no best.pth: it was removed, or {PRIMARY_METRIC} was undefined in every epoch "
            "because no label occurs in two validation images"
        )
    best_epoch = read_run(settings.output)["epoch"]
    best_model, _, _ = load_run(settings.output, settings.device)
    models = make_trained_models(settings, best_model)
    result = {
        "best_epoch": best_epoch,
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
    draw_curves(settings.output, hooks.get_loss_history(), history, best_epoch)
    average_precision = {name: result[name]["label_average_precision"] for name in ("before", "best")}
    draw_labels(settings.output, average_precision, statistics, classes, "test split")
    images = image_splits["test"].dataset
    draw_grid(settings.output, images, labels.cpu().bool(), embeddings.cpu(), statistics, classes, "test split")
    print_table("test split", {"before": before, f"epoch {best_epoch}": result["best"]})
    print(f"\n{result['seconds']:.0f} s. Records, checkpoints, metrics.json and figures are in {settings.output}")
    return result


def find_checkpoint(given: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of the run to resume, or None for a new run.

    Raises:
        ValueError: ``--resume`` finds no usable checkpoint, or a new run would overwrite another one.
    """
    folder = given.get("output")
    if given.get("resume"):
        try:
            return load_file(folder / "checkpoint.pth", CHECKPOINT_KEYS)
        except FileNotFoundError as error:
            raise ValueError(
                f"nothing to resume: {folder} has no checkpoint.pth; start a run without --resume"
            ) from error
        except ValueError as error:
            raise ValueError(f"cannot resume: {error}; start a new run with another --output") from error
    if folder is not None and (folder / "checkpoint.pth").exists():
        raise ValueError(f"{folder} already holds a run; continue it with --resume, or choose another --output")
    if folder is not None and (folder / "best.pth").exists():
        raise ValueError(f"{folder} already holds the model of a run (best.pth); choose another --output")
    return None


def check_sizes(
    settings: Settings, sizes: dict[str, int], classes: list[str], checkpoint: dict[str, Any] | None
) -> None:
    if settings.batch_size > sizes["train"]:
        raise ValueError(
            f"--batch-size {settings.batch_size} is larger than the training split ({sizes['train']} images)"
        )
    if checkpoint is not None and (checkpoint["classes"], checkpoint["num_images"]) != (classes, sizes):
        raise ValueError(
            f"the images or labels are not those of the run in {settings.output}: it has {len(checkpoint['classes'])} "
            f"labels and {checkpoint['num_images']} images, found {len(classes)} labels and {sizes} images; correct "
            "--images and --labels, or start a new run with another --output"
        )


def check_output(folder: Path) -> None:
    """Make the output folder and write a test file, so that a folder without write access fails before the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
        for leftover in folder.glob("*.partial"):  # of a process that was killed while it saved
            leftover.unlink()
    except OSError as error:
        raise OSError(f"cannot write to --output {folder} ({error.strerror}); choose another folder") from error


def describe_interruption(settings: Settings) -> str:
    """One line for a person who pressed Ctrl-C: what is saved, and how to continue."""
    try:
        epoch = load_file(settings.output / "checkpoint.pth", CHECKPOINT_KEYS)["epoch"]
    except (OSError, ValueError):
        return "interrupted before the first checkpoint; nothing is saved, so start the run again"
    return (
        f"interrupted; {epoch} of {settings.epochs} epochs are saved in {settings.output}; "
        f"continue with: {resume_command(settings.output)}"
    )


def make_trained_models(settings: Settings, model: nn.Sequential) -> dict[str, nn.Module]:
    """Trunk and embedder under PML's names; a frozen trunk is left out, since the splits hold its features."""
    trunk = nn.Identity() if settings.freeze_trunk else model.trunk
    return {"trunk": trunk.to(settings.device), "embedder": model.embedder.to(settings.device)}


def make_loss(name: str, temperature: float, statistics: LabelStatistics) -> MultiLabelContrastiveLoss:
    """MACL, MACL with overlap weights, or the baseline SupCon, for which one shared label makes a positive."""
    if name == "supcon-any":
        return SupConAnyLoss(temperature, label_statistics=statistics, collect_stats=True)
    return MACLLoss(
        label_statistics=statistics,
        distance=TemperatureScheduledSimilarity(temperature, collect_stats=True),
        reducer=FrequencyWeightedReducer(overlap_power=1.0 if name == "macl-weighted" else 0.0),
        collect_stats=True,
    )


def make_miner(hard_negatives: int | None = None) -> LabelOverlapMiner:
    """A miner that keeps all pairs or, with a number, only that many most similar negatives of each anchor."""
    return LabelOverlapMiner(
        neg_strategy="all" if hard_negatives is None else "hard",
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


def make_hooks(settings: Settings, statistics: LabelStatistics) -> tuple[HookContainer, MultiLabelEmbeddingSpaceTester]:
    """PML's hooks, which write csv, sqlite and optionally tensorboard records, and the tester that calls them."""
    tensorboard = str(settings.output / "tensorboard") if settings.tensorboard else None
    records, _, _ = get_record_keeper(str(settings.output / "records"), tensorboard)
    # PML would write one file per object. train.py saves all objects in one file, which is replaced in one step.
    hooks = HookContainer(
        records, primary_metric=PRIMARY_METRIC, validation_split_name="val", save_models=False, log_freq=1
    )
    tester = MultiLabelEmbeddingSpaceTester(
        batch_size=settings.batch_size,
        dataloader_num_workers=settings.num_workers,
        data_device=settings.device,
        end_of_testing_hook=hooks.end_of_testing_hook,
        accuracy_calculator=make_calculator(statistics),
    )
    tester.reference_split_names["val"] = ["val"]  # PML sets this in a test, which a resume of a finished run lacks
    return hooks, tester


def train(
    settings: Settings,
    splits: dict[str, Split],
    state: dict[str, dict[str, Any]],
    hooks: HookContainer,
    tester: MultiLabelEmbeddingSpaceTester,
    save: Callable[[int, bool], None],
    first_epoch: int,
) -> None:
    """Train to the last epoch. After each epoch evaluate and record it, and call ``save(epoch, is_best)``."""
    evaluate_and_record = hooks.end_of_epoch_hook(tester, {"val": splits["val"].dataset}, str(settings.output))

    def end_of_epoch(trainer: MetricLossOnly) -> None:
        evaluate_and_record(trainer)
        best_epoch, best = hooks.get_best_epoch_and_accuracy(tester, "val")
        save(trainer.epoch, best_epoch == trainer.epoch)
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
        # Each epoch has its own seed, so a resumed run draws the same random numbers as an uninterrupted one.
        torch.manual_seed(1000 * settings.seed + epoch)
        trainer.train(start_epoch=epoch, num_epochs=epoch)
    trainer.dataloader_iter = None  # ends its workers now; the garbage collector would wait five seconds for them


def evaluate(tester: MultiLabelEmbeddingSpaceTester, split: Split, models: dict[str, nn.Module]) -> dict[str, Any]:
    """Every metric on a split; each image is a query against the other images."""
    embeddings, labels = tester.get_all_embeddings(split.dataset, models["trunk"], models["embedder"])
    return measure(tester.accuracy_calculator, embeddings, labels)


if __name__ == "__main__":
    main()
