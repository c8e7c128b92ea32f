"""Train image retrieval on multi-label images with MACL, in PML's trainer and tester.

Without arguments this trains a small network on synthetic scenes, which takes less than a minute on two CPU cores.
With your own images and label table:

    python examples/train.py --dataset csv --images DIR --labels FILE --backbone efficientnet-lite0 --freeze-trunk

To continue an interrupted run:

    python examples/train.py --output DIR --resume

To train in two processes, with the loss of the joint batch:

    torchrun --nproc-per-node 2 examples/train.py
"""

import platform
import sqlite3
import sys
import time
import traceback
from typing import Any

import pytorch_metric_learning
import torch
from channel_files import channel_statistics
from checkpoint import save_file
from command_line import parse_args
from data import Split, check_splits, digest, extract_features, load_splits
from feature_cache import cached_features
from joined import default_weight, fit_components, make_embedder
from models import Normalize, load_classifier, make_model, read_run, rebuild, save_run
from process_group import (
    choose_gpu,
    ending_together,
    from_first,
    gather,
    is_first,
    joined_processes,
    leave,
    num_processes,
    rank,
    wait_for_torchrun,
)
from progress import tidy_output
from records import copy_records, restore_records
from report import CURVES, draw_curves, draw_grid, draw_labels, print_table, save_json
from retrieval_metrics import PRIMARY_METRIC, measure, measure_classifier
from run_folder import check_output, describe_interruption, find_checkpoint
from run_settings import Settings, check_device, new_settings, resume_command, resumed_settings
from torch import nn
from training_loop import make_hooks, make_state, make_tester, make_trained_models, train

import pml_macl
from pml_macl import LabelStatistics
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

BEFORE_TRAINING = -1  # PML ignores this epoch when it looks for the best one


def main(argv: list[str] | None = None) -> dict[str, Any]:
    started = time.perf_counter()
    with joined_processes():
        with ending_together():
            chosen = choose_settings(argv) if is_first() else None
        settings, checkpoint = from_first(chosen)
        try:
            with tidy_output():
                return load_and_run(settings, checkpoint, started)
        except KeyboardInterrupt:
            after_the_key = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C
            if is_first():
                print(f"{after_the_key}{describe_interruption(settings)}", file=sys.stderr)
            sys.exit(130)  # what shells report after Ctrl-C


def choose_settings(argv: list[str] | None) -> tuple[Settings, dict[str, Any] | None]:
    """The settings that the command line asks for, and the checkpoint to resume from."""
    given = parse_args(argv, __doc__)
    try:
        checkpoint = find_checkpoint(given)
        settings = new_settings(given) if checkpoint is None else resumed_settings(given, checkpoint["settings"])
        check_device(settings.device)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    return settings, checkpoint


def load_and_run(settings: Settings, checkpoint: dict[str, Any] | None, started: float) -> dict[str, Any]:
    """Check all that can be checked before the training, then run; an error ends the process with one line."""
    with ending_together():
        try:
            check_processes(settings)
            image_splits, classes = load_splits(settings)
            sizes = {name: len(split.labels) for name, split in image_splits.items()}
            check_image_splits(settings, image_splits, classes, checkpoint)
            model = make_initial_model(settings, checkpoint)
            if settings.channels is not None:
                model.trunk[0] = Normalize(*channel_statistics(image_splits["train"].paths, settings.channels))
            if is_first():
                check_output(settings.output)
        except (ImportError, OSError, ValueError) as error:
            sys.exit(f"error: {error}")
    with ending_together():
        found = gather((sizes, classes))
        if any(other != found[0] for other in found):
            sys.exit(
                "error: all processes must read the same images and labels, got "
                f"{', '.join(f'{sizes} and {len(classes)} labels' for sizes, classes in found)}; give all machines the "
                "same --images and --labels"
            )
    print(", ".join(f"{size} {name}" for name, size in sizes.items()), f"images, {len(classes)} labels")
    if settings.freeze_trunk and default_weight(settings.to_save()) == 0:
        print(
            "the frozen backbone has random weights; for others: --backbone efficientnet-lite0, --pretrained, --weights"
        )
    try:
        return run(settings, image_splits, classes, model, checkpoint, started)
    except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
        wait_for_torchrun()
        traceback.print_exc()
        # The last line is the message. For an error in a worker, torch puts the traceback of the worker before it.
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        saved = (settings.output / "checkpoint.pth").exists()
        how = f"continue with: {resume_command(settings.output)}" if saved else "start the run again"
        where = f" in process {rank()}" if num_processes() > 1 else ""
        sys.exit(f"error: the run stopped{where}: {reason}. Fix the problem, then {how}")


def run(
    settings: Settings,
    image_splits: dict[str, Split],
    classes: list[str],
    model: nn.Sequential,
    checkpoint: dict[str, Any] | None,
    started: float,
) -> dict[str, Any]:
    """Train a new run or continue from the checkpoint, evaluate the best epoch, then write and draw the results."""
    models = make_trained_models(settings, model, len(classes))  # first: loading images draws random numbers
    splits = cached_features(model.trunk, image_splits, settings) if settings.freeze_trunk else image_splits
    statistics = LabelStatistics.from_labels(splits["train"].labels)
    state = make_state(settings, models, statistics)
    first_epoch = 1
    if checkpoint is not None:
        first_epoch += checkpoint["epoch"]
        for group, parts in state.items():
            for name, part in parts.items():
                part.load_state_dict(checkpoint[group][name])
    hooks = make_hooks(settings) if is_first() else None
    tester = make_tester(settings, statistics, hooks)
    if hooks is not None:
        restore_records(settings.output / "records", {} if checkpoint is None else checkpoint["records"])
    if checkpoint is None:
        before = evaluate(tester, splits["test"], models)
        tester.test({"val": splits["val"].dataset}, BEFORE_TRAINING, models["trunk"], models["embedder"])
        if hooks is not None:
            hooks.record_keeper.save_records()
    else:
        before = checkpoint["before"]
        print(f"resuming after epoch {checkpoint['epoch']} of the run in {settings.output}")

    digests = {name: digest(split) for name, split in image_splits.items()}

    def save(epoch: int, is_best: bool) -> None:
        if is_best:
            save_run(settings.output, model, settings.fixed_on_resume(), classes, epoch, models.get("classifier"))
        content = {
            "epoch": epoch,
            "settings": settings.to_save(),
            "classes": classes,
            "num_images": {name: len(split.labels) for name, split in splits.items()},
            "digests": digests,
            "before": before,
            "records": copy_records(settings.output / "records"),
            **{group: {name: part.state_dict() for name, part in parts.items()} for group, parts in state.items()},
        }
        save_file(settings.output / "checkpoint.pth", content)

    if checkpoint is None and hooks is not None:
        save(0, is_best=False)
    train(settings, splits, state, first_epoch, tester, hooks, save)

    if hooks is not None and not (settings.output / "best.pth").exists():
        raise ValueError(
            f"{settings.output} has no best.pth: it was removed, or {PRIMARY_METRIC} was undefined in every epoch "
            "because no label occurs in two validation images"
        )
    best = from_first(None if hooks is None else read_run(settings.output))  # other machines may lack the folder
    best_epoch, (best_model, _, _) = best["epoch"], rebuild(best, settings.device)
    best_models = make_trained_models(settings, best_model, len(classes))
    result = {
        "best_epoch": best_epoch,
        "before": before,
        "best": evaluate(tester, splits["test"], best_models),
        "classes": classes,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": settings.to_save(),
        "versions": {
            "python": platform.python_version(),
            **{package.__name__: package.__version__ for package in (torch, pytorch_metric_learning, pml_macl)},
        },
    }
    if (weight := default_weight(settings.to_save())) > 0:
        result["joined"] = {"feature_weight": weight}
        result["joined"] |= evaluate(tester, splits["test"], join(best_models, splits["test"], weight, settings.device))
    if settings.classifier_weight > 0:
        result["classifier"] = evaluate_classifier(settings, splits["test"], best_models)
    embeddings, labels = tester.get_all_embeddings(
        splits["test"].dataset, best_models["trunk"], best_models["embedder"]
    )
    leave()
    if hooks is None:
        return result
    save_json(settings.output / "metrics.json", result)
    history = hooks.get_accuracy_history(tester, "val", metrics=list(CURVES))
    draw_curves(settings.output, hooks.get_loss_history(), history, best_epoch)
    average_precision = {name: result[name]["label_average_precision"] for name in ("before", "best")}
    draw_labels(settings.output, average_precision, statistics, classes, "test split")
    images = image_splits["test"].dataset
    found = (labels.cpu().bool(), embeddings.cpu(), statistics, classes)
    draw_grid(settings.output, images, *found, "test split", settings.channels)
    columns = {"before": before, f"epoch {best_epoch}": result["best"]}
    if "joined" in result:
        columns[f"joined {weight}"] = result["joined"]
    print_table("test split", columns)
    if "classifier" in result:
        print(f"classifier: mean average precision {result['classifier']['mean_average_precision']:.2%}")
    print(f"\n{result['seconds']:.0f} s. Records, checkpoints, metrics.json and figures are in {settings.output}")
    return result


def make_initial_model(settings: Settings, checkpoint: dict[str, Any] | None) -> nn.Sequential:
    """The network at the start of a run. A resumed run takes a frozen trunk from ``best.pth``, if there is one yet."""
    torch.manual_seed(settings.seed)
    has_trunk = checkpoint is not None and (checkpoint["epoch"] > 0 or not settings.freeze_trunk)
    if not has_trunk:
        return make_model(settings.fixed_on_resume(), settings.pretrained, settings.weights)
    model = make_model(settings.fixed_on_resume())
    if settings.freeze_trunk:
        model.trunk.load_state_dict(read_run(settings.output)["models"]["trunk"])
    return model


def check_processes(settings: Settings) -> None:
    """Check the settings that depend on the number of processes, and give each process its GPU."""
    choose_gpu(settings.device)
    if settings.batch_size < num_processes():
        raise ValueError(
            f"--batch-size {settings.batch_size} is the number of images of all {num_processes()} processes together; "
            "it must be at least one image per process"
        )
    if settings.hard_negatives is not None and settings.batch_size % num_processes():
        raise ValueError(
            f"with --hard-negatives, --batch-size must be a multiple of the number of processes ({num_processes()}), "
            f"got {settings.batch_size}"
        )
    if settings.hard_negatives is not None and settings.loss == "macl-proxies" and num_processes() > 1:
        raise ValueError(
            "--loss macl-proxies with --hard-negatives runs in one process only; leave out one of them, or torchrun"
        )
    if settings.sync_batch_norm and num_processes() > 1 and settings.device.type == "cpu":
        raise ValueError("--sync-batch-norm needs GPUs, because torch synchronises batch normalisation only there")


def check_image_splits(
    settings: Settings, splits: dict[str, Split], classes: list[str], checkpoint: dict[str, Any] | None
) -> None:
    """Raise unless the splits are large enough, and those of the run to resume."""
    sizes = {name: len(split.labels) for name, split in splits.items()}
    if settings.batch_size > sizes["train"]:
        raise ValueError(
            f"--batch-size {settings.batch_size} is larger than the training split ({sizes['train']} images); choose "
            "a smaller one"
        )
    for name in ("val", "test"):
        if not (splits[name].labels.sum(dim=0) >= 2).any():
            raise ValueError(
                f"no label occurs in two images of the split {name}, so nothing can be found in it; give more images, "
                "or another split"
            )
    if checkpoint is not None:
        try:
            check_splits(splits, classes, checkpoint)
        except ValueError as error:
            raise ValueError(
                f"the images or labels are not those of the run in {settings.output}: {error}; correct --images and "
                "--labels, or start a new run with another --output"
            ) from error


def evaluate(tester: MultiLabelEmbeddingSpaceTester, split: Split, models: dict[str, nn.Module]) -> dict[str, Any]:
    """Every metric on a split; each image is a query against the other images."""
    embeddings, labels = tester.get_all_embeddings(split.dataset, models["trunk"], models["embedder"])
    return measure(tester.accuracy_calculator, embeddings, labels)


def join(models: dict[str, nn.Module], archive: Split, weight: float, device: torch.device) -> dict[str, nn.Module]:
    """The models, whose embedder joins its embeddings with the features of an archive, as search.py does by default."""
    parts = (models["trunk"], models["embedder"], archive.dataset, weight, device)
    joined = from_first(fit_components(*parts) if is_first() else None)  # the processes agree on the signs of the axes
    return {**models, "embedder": make_embedder(models["embedder"], joined, device)}


def evaluate_classifier(settings: Settings, split: Split, models: dict[str, nn.Module]) -> dict[str, Any]:
    """The average precision of each label, and their mean, with the classifier of the best epoch."""
    classifier = from_first(load_classifier(settings.output) if is_first() else None)
    network = nn.Sequential(models["trunk"], models["embedder"], classifier)
    logits = extract_features(network, split, "test", settings.batch_size, settings.device, settings.num_workers)
    return measure_classifier(logits.dataset.tensors[0], split.labels)


if __name__ == "__main__":
    main()
