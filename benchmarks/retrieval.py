"""Compare MACL with the baselines and PML's losses, on frozen features or with the whole network trained.

    python benchmarks/retrieval.py run --data DIR [DIR ...] --output FOLDER
    python benchmarks/retrieval.py run --protocol finetune --around FOLDER --data DIR [DIR ...] --output OTHER
    python benchmarks/retrieval.py compare --output FOLDER
    python benchmarks/retrieval.py report --output FOLDER --page docs/results/frozen.md

Each DIR contains labels.csv (an image id, a column with train, val or test, and one 0/1 column per class) and a folder
named images. It may contain features_efficientnet_lite0.npz (X: one row per image, in the order of the table). Without
this file, the benchmark extracts the features and keeps them in the output folder.

The benchmark tunes one setting of each loss on the validation split, over five values. --around starts from the
settings of another folder instead and goes on to the next value while it is better; --tuned only takes those settings.
The benchmark then trains each loss with each seed and measures it on the test split. Each run adds one line to
FOLDER/runs.jsonl. To resume an interrupted benchmark, repeat the command: it skips finished runs.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from commands import add_data, make_parser
from from_examples import BACKBONES, Split
from protocols import load
from retrieval_bootstrap import write_comparisons
from retrieval_findings import mean_of_all
from retrieval_losses import LOSSES, make_method
from retrieval_report import write_page
from settings import DEFAULTS, Settings
from training import Trained, append_run, is_finished, measure_run, read_runs, records_folder, train, versions

from pml_macl import LabelStatistics


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser, run = make_parser(
        __doc__,
        "tune and train the losses that runs.jsonl does not have yet",
        "compute confidence intervals of MACL's differences, for the report",
    )
    add_data(run)
    run.add_argument("--ignore-columns", nargs="*", default=["scene"], metavar="NAME")
    run.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), metavar="LOSS")
    run.add_argument("--protocol", choices=DEFAULTS, default="head")
    start = run.add_mutually_exclusive_group()
    start.add_argument("--tuned", type=Path, metavar="FOLDER", help="take the tuned settings from this output folder")
    start.add_argument("--around", type=Path, metavar="FOLDER", help="start to tune from the settings of this folder")
    run.add_argument("--backbone", choices=BACKBONES, default="efficientnet-lite0", help="for --protocol finetune")
    run.add_argument("--pretrained", action=argparse.BooleanOptionalAction, default=True)
    for name, value in DEFAULTS["head"].items():
        run.add_argument(f"--{name.replace('_', '-')}", type=type(value), help="default: the value of the protocol")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == "report":
        write_page(args.output, args.page)
    elif args.command == "compare":
        write_comparisons(args.output)
    else:
        run(Settings.of_protocol(args.protocol, vars(args)), args.data, args.losses, args.tuned, args.around)


def run(settings: Settings, folders: list[Path], losses: list[str], tuned: Path | None, around: Path | None) -> None:
    """Tune the losses unless ``tuned`` is a folder that has their settings; then train and measure with each seed."""
    settings.output.mkdir(parents=True, exist_ok=True)
    data = {folder.resolve().name: load(folder, settings) for folder in folders}
    if tuned is None:
        for name, splits in data.items():
            trained: dict[Any, Trained] = {}
            for loss in losses:
                tune(settings, name, splits, loss, around, trained)
    # Seeds are in the outer loop, so that all losses have the same seeds after an interruption.
    for seed in range(settings.seeds):
        for name, splits in data.items():
            trained = {}
            for loss in losses:
                value = best_value(tuned or settings.output, name, loss)
                run_once(settings, name, splits, "test", loss, value, seed, trained)


def tune(
    settings: Settings, data: str, splits: dict[str, Split], loss: str, around: Path | None, trained: dict[Any, Trained]
) -> None:
    """Measure the values of a loss on the validation split.

    With ``around``, only the value that is best in that folder and the two next to it; while another value becomes the
    best, also the values next to that one.
    """
    grid = LOSSES[loss].grid
    center = len(grid) // 2 if around is None else grid.index(best_value(around, data, loss))
    reach = len(grid) if around is None else 1
    while True:
        for value in grid[max(center - reach, 0) : center + reach + 1]:
            run_once(settings, data, splits, "tune", loss, value, 1000, trained)
        best = grid.index(best_value(settings.output, data, loss))
        if around is None or best == center:
            return
        center = best


def best_value(folder: Path, data: str, loss: str) -> float:
    """The setting with the best mean of all metrics on the validation split."""
    runs = [r for r in read_runs(folder) if (r["stage"], r["data"], r["loss"]) == ("tune", data, loss)]
    if not runs:
        sys.exit(
            f"error: {folder}/runs.jsonl has no tuned setting of {loss} on {data}; run the benchmark with this output "
            "folder and without --tuned first"
        )
    best = max(runs, key=lambda run: mean_of_all(run["metrics"]))
    return best["value"]


def run_once(
    settings: Settings,
    data: str,
    splits: dict[str, Split],
    stage: str,
    loss: str,
    value: float,
    seed: int,
    trained: dict[Any, Trained],
) -> None:
    """Train and measure one loss with one seed, unless runs.jsonl has this run.

    ``trained`` keeps the networks of this data set, stage and seed: a loss and its joined forms share one training.
    """
    key = {"data": data, "stage": stage, "loss": loss, "value": value, "seed": seed}
    if is_finished(settings.output, key):
        return
    started, entry, records = time.perf_counter(), LOSSES[loss], records_folder(settings.output, key)
    training = entry.make, entry.embed, value
    if training not in trained:
        torch.manual_seed(seed)  # proxies start at random
        method = make_method(loss, value, LabelStatistics.from_labels(splits["train"].labels))
        trained[training] = train(settings, splits, method, seed, records)
    split = "val" if stage == "tune" else "test"
    result = measure_run(settings, splits, split, trained[training], entry.feature_weight, records)
    seconds = round(time.perf_counter() - started, 1)
    append_run(settings.output, {**key, **result, "seconds": seconds, "versions": versions()})


if __name__ == "__main__":
    main()
