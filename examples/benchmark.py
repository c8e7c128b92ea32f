"""MACL against the baselines and PML's losses, on frozen features or with the whole network trained.

    python examples/benchmark.py run --data DIR [DIR ...] --output FOLDER
    python examples/benchmark.py run --protocol finetune --tuned FOLDER --data DIR [DIR ...] --output OTHER
    python examples/benchmark.py report --output FOLDER --page docs/results.md

Each DIR holds labels.csv (an image id, a column that says train, val or test, one 0/1 column a class), the folder
images, and, if it is not to be extracted once, features_efficientnet_lite0.npz (X: one row an image, in the order of
the table). Every loss is tuned on the validation split over the same number of settings (or takes the setting that was
tuned in another folder), then trained anew with each seed and measured on the test split. Each run is a line of
FOLDER/runs.jsonl; what stands there is not run again, so a benchmark that was stopped goes on where it was.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_metric_learning
import torch
from benchmark_losses import LOSSES, make_loss_and_miner
from benchmark_protocols import DEFAULTS, load, make_models
from benchmark_report import write_page
from data import Split
from models import BACKBONES
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.logging_presets import HookContainer, get_record_keeper
from torch import Tensor

import pml_macl
from pml_macl import LabelStatistics
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

CURVE = "label_mean_average_precision"
SETTINGS = {"head": ("protocol", "epochs", "batch_size", "lr", "dropout")}
SETTINGS["finetune"] = (*SETTINGS["head"], "image_size", "backbone", "pretrained")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="tune and train what is still missing")
    run.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR")
    run.add_argument("--split-column", default="aitlas_split")
    run.add_argument("--ignore-columns", nargs="*", default=["scene"], metavar="NAME")
    run.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    run.add_argument("--protocol", choices=DEFAULTS, default="head")
    run.add_argument("--tuned", type=Path, metavar="FOLDER", help="take the tuned settings of this benchmark's output")
    run.add_argument("--backbone", choices=BACKBONES, default="efficientnet-lite0", help="of finetune")
    run.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=True)
    for name, value in DEFAULTS["head"].items():
        run.add_argument(f"--{name.replace('_', '-')}", type=type(value), help="the protocol's own unless given")
    report = commands.add_parser("report", help="write tables and pictures of the finished runs")
    report.add_argument("--page", type=Path, required=True, help="Markdown page; its pictures go beside it")
    for command in (run, report):
        command.add_argument("--output", type=Path, required=True, help="folder of runs.jsonl")
    args = parser.parse_args(argv)
    if args.command == "run":
        chosen = {name: value for name, value in vars(args).items() if value is not None}
        args = argparse.Namespace(**{**vars(args), **DEFAULTS[args.protocol], **chosen})
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == "report":
        write_page(args.output / "runs.jsonl", args.page)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    data = {folder.resolve().name: load(folder, args) for folder in args.data}
    if args.tuned is None:
        for name, splits in data.items():
            for loss in args.losses:
                for value in LOSSES[loss].grid:
                    run_once(args, name, splits, "tune", loss, value, seed=1000)
    # Seeds outermost: what is finished when the benchmark is stopped compares all losses alike.
    for seed in range(args.seeds):
        for name, splits in data.items():
            for loss in args.losses:
                run_once(args, name, splits, "test", loss, best_value(args.tuned or args.output, name, loss), seed)


def finished(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def best_value(folder: Path, data: str, loss: str) -> float:
    """The setting with the best mean of all metrics on the validation split."""
    runs = [r for r in finished(folder) if (r["stage"], r["data"], r["loss"]) == ("tune", data, loss)]
    if not runs:
        sys.exit(f"error: {folder}/runs.jsonl has no tuned setting of {loss} on {data}; tune it there first")
    best = max(runs, key=lambda run: sum(run["metrics"].values()))
    return best["value"]


def run_once(
    args: argparse.Namespace,
    data: str,
    splits: dict[str, Split],
    stage: str,
    loss: str,
    value: float,
    seed: int,
) -> None:
    """Train and measure, unless that stands in runs.jsonl already."""
    key = {"data": data, "stage": stage, "loss": loss, "value": value, "seed": seed}
    if any(all(run[name] == part for name, part in key.items()) for run in finished(args.output)):
        return
    started = time.perf_counter()
    torch.manual_seed(seed)
    models, optimizers = make_models(args, splits)
    statistics = LabelStatistics.from_labels(splits["train"].labels)
    loss_fn, miner = make_loss_and_miner(loss, value, statistics)
    folder = args.output / "records" / f"{data}-{stage}-{loss}-{value}-{seed}"
    records, _, _ = get_record_keeper(str(folder))
    hooks = HookContainer(records, save_models=False, log_freq=1000)
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
        args.batch_size,
        {"metric_loss": loss_fn},
        splits["train"].dataset,
        mining_funcs={} if miner is None else {"tuple_miner": miner},
        data_device="cpu",
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        end_of_iteration_hook=hooks.end_of_iteration_hook,
        end_of_epoch_hook=end_of_epoch,
    )
    trainer.train(num_epochs=args.epochs)
    split = splits["val" if stage == "tune" else "test"]
    embeddings, labels = tester.get_all_embeddings(split.dataset, *models.values())
    result = {
        **key,
        **measure(embeddings, labels, statistics),
        "counts": statistics.counts.tolist(),
        "seconds": round(time.perf_counter() - started, 1),
        "curve": curve,
        "settings": {name: getattr(args, name) for name in SETTINGS[args.protocol]},
        "versions": {
            "python": platform.python_version(),
            **{package.__name__: package.__version__ for package in (torch, pytorch_metric_learning, pml_macl)},
        },
    }
    with (args.output / "runs.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(f"{data} {stage} {loss} {value} seed {seed}: {result['metrics']}", flush=True)


def measure(embeddings: Tensor, labels: Tensor, statistics: LabelStatistics) -> dict[str, Any]:
    """The metrics of the results page, leave-one-out on a split; NaN of a label without queries becomes null."""

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


if __name__ == "__main__":
    main()
