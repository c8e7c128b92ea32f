"""Measure what database-side augmentation and query expansion add to each method of retrieval.py.

    python benchmarks/post_processing.py run --runs FOLDER --output FOLDER
    python benchmarks/post_processing.py report --output FOLDER --page docs/results/post_processing.md

--runs is the output folder of retrieval.py with the stored embeddings. Nothing is trained. Each half of a split is
searched in the other half, so no query is in the archive that it is searched in.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from commands import make_parser
from retrieval import best_value
from retrieval_findings import METRICS, RECALLS, in_text, mean_of_all
from torch import Tensor
from torch.nn.functional import normalize
from training import append_run, is_finished, measure, read_runs, records_folder, versions
from words import data_name, listed, signed

from pml_macl import LabelStatistics
from pml_macl.inference import augment_embeddings

NEIGHBOURS = (1, 2, 3, 5, 10)
POWER = 3.0
RECALL = "Recall@5 (R@5) is the share of queries with a relevant image among the first five results:"
VARIANTS = {"none": "as they are", "archive": "augmented archive", "query": "expanded queries", "both": "both"}
SHOWN = {"mean": "mean of the metrics", "label_map": METRICS["label_map"]}
SHOWN_RECALLS = {name: RECALLS[name] for name in ("jaccard_50_5", "exact_5")}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser, run = make_parser(__doc__, "measure the runs that runs.jsonl does not have yet")
    run.add_argument("--runs", type=Path, required=True, metavar="FOLDER", help="output folder of retrieval.py")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == "report":
        write_page(args.output, args.page)
    else:
        args.output.mkdir(parents=True, exist_ok=True)
        run(args.runs, args.output)


def run(folder: Path, output: Path) -> None:
    """Choose the number of neighbours of each data set on the validation split, then measure the test runs."""
    tuned, tested = ([r for r in read_runs(folder) if r["stage"] == stage] for stage in ("tune", "test"))
    for data in dict.fromkeys(run["data"] for run in tested):
        chosen = [r for r in tuned if r["data"] == data and r["value"] == best_value(folder, data, r["loss"])]
        scores = {k: mean(mean_of_all(measured(folder, r, "both", k)["metrics"]) for r in chosen) for k in NEIGHBOURS}
        k = max(scores, key=scores.__getitem__)
        for finished in (run for run in tested if run["data"] == data):
            for variant in VARIANTS:
                key = {name: finished[name] for name in ("data", "loss", "seed")} | {"variant": variant, "k": k}
                if not is_finished(output, key):
                    append_run(output, {**key, **measured(folder, finished, variant, k), "versions": versions()})


def measured(folder: Path, finished: dict[str, Any], variant: str, k: int) -> dict[str, dict[str, float]]:
    """The "metrics" and the "recall" of a run of retrieval.py, averaged over the two halves of its split."""
    path = records_folder(folder, finished) / "embeddings.npz"
    if not path.is_file():
        raise SystemExit(f"error: {path} does not exist; run retrieval.py on this machine, which writes it")
    with np.load(path, allow_pickle=False) as file:
        embeddings, labels = normalize(torch.from_numpy(file["embeddings"])), torch.from_numpy(file["labels"])
    statistics = LabelStatistics(labels.shape[1])
    statistics.counts += torch.tensor(finished["counts"])
    found = []
    for half in (0, 1):
        query, archive = embeddings[half::2], embeddings[1 - half :: 2]
        if variant in ("archive", "both"):
            archive = augment_embeddings(archive, k, POWER)
        if variant in ("query", "both"):
            query = expand(query, archive, k)
        found.append(measure(query, labels[half::2], statistics, archive, labels[1 - half :: 2]))
    return {
        group: {name: mean(of_half[group][name] for of_half in found) for name in found[0][group]}
        for group in ("metrics", "recall")
    }


def expand(queries: Tensor, archive: Tensor, k: int) -> Tensor:
    """Query expansion: add the nearest references, weighted as ``augment_embeddings`` weighs neighbours."""
    similarities, nearest = (queries @ archive.T).topk(min(k, len(archive)))
    weights = similarities.clamp(min=0) ** POWER
    return normalize(queries + torch.einsum("qk,qkd->qd", weights, archive[nearest]))


def write_page(folder: Path, page: Path) -> None:
    """Write the results page."""
    lines = read_runs(folder)
    if not lines:
        raise SystemExit(f"error: {folder}/runs.jsonl does not exist; run the benchmark first")
    data_sets = list(dict.fromkeys(line["data"] for line in lines))
    used = {data_name(run["data"]): run["k"] for run in lines}
    chosen = listed([f"{k} on {data}" for data, k in used.items()])
    versions = ", ".join(f"{name} {version}" for name, version in lines[0]["versions"].items())
    parts = [
        "# Post-processing\n\nThis page shows what two steps after training add to each method of "
        "[Frozen backbone](frozen.md). Database-side augmentation replaces each archive embedding by a weighted mean "
        "of itself and its nearest neighbours (`pml_macl.inference.augment_embeddings`). Query expansion does the same "
        "to each query with its nearest archive images.",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for data in data_sets for sentence in findings(lines, data)),
        "The tables give percent on the test split, mean over seeds. **Bold** is the best of a column.",
    ]
    for data in data_sets:
        parts += [f"## {data_name(data)}", table(lines, data, SHOWN), RECALL, table(lines, data, SHOWN_RECALLS)]
    parts += [
        "## How it was measured",
        f"- **Embeddings:** those of the test runs of [Frozen backbone](frozen.md), with its metrics.\n"
        "- **Queries and references:** each half of the test split is searched in the other half, so the numbers "
        "differ from those of the other pages, and no query is among the neighbours of an archive image.\n"
        f"- **Setting:** the number of neighbours is the same for all methods: {chosen}. The validation split chose it "
        f"from {', '.join(map(str, NEIGHBOURS))}. The weights are cosine similarities to the power {POWER:g}.\n"
        f"- **Versions:** {versions}.",
        "```\npython benchmarks/post_processing.py run --runs HEAD_FOLDER --output FOLDER\n"
        "python benchmarks/post_processing.py report --output FOLDER --page docs/results/post_processing.md\n```",
    ]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def means_of(lines: list[dict[str, Any]], data: str, shown: str) -> dict[str, dict[str, float]]:
    """The mean over seeds of a metric, of all metrics or of a recall, in percent: by method, then by variant."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in (line for line in lines if line["data"] == data):
        value = mean_of_all(line["metrics"]) if shown == "mean" else 100 * {**line["metrics"], **line["recall"]}[shown]
        found.setdefault(line["loss"], {}).setdefault(line["variant"], []).append(value)
    return {loss: {variant: mean(values) for variant, values in cells.items()} for loss, cells in found.items()}


def findings(lines: list[dict[str, Any]], data: str) -> Iterator[str]:
    """What the steps add, and which method is best with and without them."""
    values = means_of(lines, data, "mean")
    gains = {loss: cells["both"] - cells["none"] for loss, cells in values.items()}
    least, most = min(gains, key=gains.__getitem__), max(gains, key=gains.__getitem__)
    yield (
        f"**{data_name(data)}.** Both steps together change the mean of the metrics by {signed(gains[least])} points "
        f"({in_text(least)}) to {signed(gains[most])} points ({in_text(most)}), and MACL's by {signed(gains['MACL'])}."
    )
    best = {variant: max(values, key=lambda loss: values[loss][variant]) for variant in ("none", "both")}
    yield (
        f"**Best on {data_name(data)}.** By the mean of the metrics, {in_text(best['none'])} without the steps "
        f"({values[best['none']]['none']:.1f}), and {in_text(best['both'])} with both "
        f"({values[best['both']]['both']:.1f})."
    )


def table(lines: list[dict[str, Any]], data: str, titles_of: dict[str, str]) -> str:
    """One row per method, and the variants of each metric, or kind of recall, side by side."""
    columns = {(shown, variant): means_of(lines, data, shown) for shown in titles_of for variant in VARIANTS}
    titles = " | ".join(f"{titles_of[shown]}: {VARIANTS[variant]}" for shown, variant in columns)
    rows = [f"| method | {titles} |", "|---|" + "---:|" * len(columns)]
    for loss in next(iter(columns.values())):
        cells = []
        for (_, variant), values in columns.items():
            mark = "**" * (values[loss][variant] == max(cells[variant] for cells in values.values()))
            cells.append(f"{mark}{values[loss][variant]:.1f}{mark}")
        rows.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
