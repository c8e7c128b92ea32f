"""Compare methods where the search asks for what training has not seen: labels, scenes, an archive, many images.

    python benchmarks/generalisation.py run --data DIR [DIR ...] --tuned FOLDER --output FOLDER
    python benchmarks/generalisation.py compare --output FOLDER
    python benchmarks/generalisation.py report --output FOLDER --page docs/results/generalisation.md

Each DIR is a data set as retrieval.py reads it, whose label table has a column with the scene of each image. Only heads
on frozen features are trained. --tuned is the output folder of retrieval.py, from which each method takes its setting.
Each run adds lines to FOLDER/runs.jsonl: one per question, and one more for each weight at which the embeddings are
joined with the features of the backbone. To resume an interrupted benchmark, repeat the command: it skips finished
runs.
"""

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import add_data, make_parser
from generalisation_cases import Archive, Case, cases, read_archive
from generalisation_report import PRIMARY, is_joined, joined_macl, listed_runs, test_runs, write_page
from retrieval import best_value
from retrieval_bootstrap import interval, query_values, resample
from retrieval_findings import METRICS
from retrieval_losses import UNTRAINED, make_method
from settings import Settings
from torch import Tensor
from torch.utils.data import TensorDataset
from training import append_run, is_finished, joined, make_tester, measure, read_runs, records_folder, train, versions

from pml_macl import LabelStatistics

METHODS = (
    "MACL",
    "MACL, weighted",
    "MACL, frequency Jaccard",
    "MACL, proxies",
    "SupCon any",
    "Jaccard SupCon",
    "MultiSupCon",
    "MulSupCon",
    "RINCE",
    "HyP2",
    "MSC",
    "PML TripletMargin",
    "Classifier, features",
    "Classifier, weighted probabilities",
    UNTRAINED,
)
FEATURE_WEIGHTS = (0.0, 0.2, 0.5)
UNTRAINED_WEIGHTS = (0.0, 1.0)  # the features, and their components alone
KEYS = ("data", "loss", "value", "answer", "seed")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser, run = make_parser(
        __doc__,
        "train the methods that runs.jsonl does not have yet",
        "compute confidence intervals of differences, for the report",
    )
    add_data(run)
    run.add_argument("--tested", nargs="+", metavar="NAME", help="only these data sets (folder names) are searched")
    run.add_argument("--scene-column", default="scene")
    run.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    run.add_argument("--tuned", type=Path, required=True, metavar="FOLDER", help="output folder of retrieval.py")
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--epochs", type=int)
    run.add_argument("--batch-size", type=int)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == "report":
        write_page(args.output, args.page)
    elif args.command == "compare":
        write_comparisons(args.output)
    else:
        settings = Settings.of_protocol("head", {**vars(args), "ignore_columns": ()})
        archives = {folder.resolve().name: read_archive(folder, settings, args.scene_column) for folder in args.data}
        settings.output.mkdir(parents=True, exist_ok=True)
        # Seeds are in the outer loop, so that all methods have the same seeds after an interruption.
        for seed in range(settings.seeds):
            for data in args.tested or archives:
                run_cases(settings, archives, data, args.methods, args.tuned, seed)


def run_cases(
    settings: Settings, archives: dict[str, Archive], data: str, methods: list[str], tuned: Path, seed: int
) -> None:
    """Train and test the methods in each case, unless runs.jsonl has them."""
    for case in cases(archives, data, seed):
        for loss in methods:
            value = best_value(tuned, case.source or data, loss)
            key = dict(zip(KEYS, (data, loss, value, case.answer, seed), strict=True))
            if not is_finished(settings.output, key):
                for line in run_once(settings, case, key):
                    append_run(settings.output, {**key, **line, "versions": versions()})


def run_once(settings: Settings, case: Case, key: dict[str, Any]) -> list[dict[str, Any]]:
    """Train one method in one case; one line per question and weight of the features."""
    labels = case.train.labels
    settings = replace(
        settings, epochs=round(settings.epochs * case.epochs), batch_size=min(settings.batch_size, len(labels))
    )
    records = records_folder(settings.output, key)
    torch.manual_seed(key["seed"])  # proxies start at random
    method = make_method(key["loss"], key["value"], LabelStatistics.from_labels(labels))
    lines: list[dict[str, Any]] = []
    parts, _ = train(settings, {"train": case.train}, method, key["seed"], records)
    for question, (features, wanted) in case.tests.items():
        dataset = TensorDataset(features, wanted)
        for weight in UNTRAINED_WEIGHTS if key["loss"] == UNTRAINED else FEATURE_WEIGHTS:
            embedder = joined(*parts, dataset, weight)
            embeddings, _ = make_tester().get_all_embeddings(dataset, parts[0], embedder)
            values = query_values(embeddings, wanted, wanted.sum(dim=0))
            np.savez_compressed(records / file_name(question, weight), **{k: v.float() for k, v in values.items()})
            found = measure(embeddings, wanted, LabelStatistics.from_labels(wanted))
            line = {"question": question, "feature_weight": weight}
            for group in ("metrics", "recall"):
                line[group] = {name: round(value, 6) for name, value in found[group].items()}
            lines.append(line)
    return lines


def file_name(question: str, weight: float) -> str:
    return f"{question}-{weight}.npz".replace(" ", "_")


def write_comparisons(folder: Path) -> None:
    """Write ``comparisons.jsonl``: 95 % intervals of MACL's differences, and of what joining the features changes.

    MACL joined with features is compared with the other methods, and with these joined at the same weight.

    Each resample draws runs and queries with replacement, and uses the same ones for both methods.
    """
    runs, lines = test_runs(read_runs(folder)), []
    for group, by_loss in runs.items():
        drawn = {loss: resampled_means(folder, found) for loss, found in by_loss.items()}
        ours = [loss for loss in listed_runs({group: by_loss})[group] if loss.startswith("MACL")]
        others = [loss for loss in METHODS if loss in drawn and loss not in ours]
        pairs = list(product(ours, others, METRICS))
        for macl in joined_macl({group: by_loss}):
            equally = [f"{other}{macl.removeprefix('MACL')}" for other in others]
            pairs += product([macl], [loss for loss in equally if loss in drawn], METRICS)
        pairs += [(name, by_loss[name][0]["loss"], PRIMARY) for name in drawn if is_joined(name)]
        for macl, other, metric in pairs:
            low, high = interval(drawn[macl][metric], drawn[other][metric])
            lines.append({"data": group, "metric": metric, "macl": macl, "other": other, "low": low, "high": high})
    (folder / "comparisons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def resampled_means(folder: Path, runs: list[dict[str, Any]]) -> dict[str, Tensor]:
    """(runs, resamples) means of each metric, from the values of the queries that the runs have stored."""
    drawn: dict[str, list[Tensor]] = {metric: [] for metric in METRICS}
    for run in runs:
        key = {name: run[name] for name in KEYS}
        with np.load(records_folder(folder, key) / file_name(run["question"], run["feature_weight"])) as values:
            for metric in METRICS:
                drawn[metric].append(resample(torch.from_numpy(values[metric])))
    return {metric: torch.stack(by_run) for metric, by_run in drawn.items()}


if __name__ == "__main__":
    main()
