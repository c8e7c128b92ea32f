"""Tables and pictures of finished benchmark runs, as a Markdown page."""

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from training import read_runs

from pml_macl.evaluation import label_mean_average_precision_by_frequency
from pml_macl.visualization import COLOURS, GREY, LINE_STYLES, line_style, new_plot

METRICS = {
    "map_any": "mAP, shares a label",
    "map_jaccard_50": "mAP, Jaccard >= 0.5",
    "map_exact": "mAP, same label set",
    "ndcg": "nDCG",
    "ndcg_jaccard_20": "nDCG@20, Jaccard gains",
    "label_map": "label mAP",
    "label_map_tail": "label mAP, rarest third",
}
THIRDS = ("rarest third", "middle third", "most frequent third")
DIFFERENCES = (
    "The better of MACL and weighted MACL against the best of all other losses, chosen anew for each metric, in points "
    "of the mean over seeds. Choosing the best afterwards favours the other losses, of which there are more."
)
INTERVALS = (
    "The 95 % interval is of a paired bootstrap over test queries and seeds; the reference set is not drawn anew. "
    "Marked: the interval does not hold 0."
)
ANY_LABEL = (
    "Where any shared label makes an image relevant, two thirds (UC Merced) and 85 % (ML-AID) of all pairs are "
    "relevant, and losses that treat every shared label alike do best. MACL spends its room on how much is shared and "
    "how rare it is, which this metric does not see."
)
RANKS = "Of the losses on each metric, averaged over the metrics; 1 is best."
PROTOCOLS = {
    "head": "frozen EfficientNet-Lite0 features (ImageNet weights, images of 128 pixels), a trained head 1280-512-128",
    "finetune": "the whole network is trained, backbone and head (hidden layer of 512, embeddings of 128), with random "
    "flips and quarter turns; the backbone learns at a third of the head's rate if it is pretrained",
}
TUNED = {
    True: "Each loss had one setting tuned over four values by the mean of all metrics on the validation split, with "
    "one seed of its own; after that it was trained with each seed for all epochs, without early stopping.",
    False: "Each loss has the setting that was tuned in protocol `head`; it was trained for all epochs, without early "
    "stopping.",
}
LIMITS = {
    "head": "Limits: frozen features say little of what fine-tuning would give; two data sets are few; the grids are "
    "coarse, and some losses chose a value at their edge. Intervals are over queries and seeds, not over data sets.",
    "finetune": "Limits: few epochs and small images, for what a CPU can do in minutes; settings were not tuned anew; "
    "three seeds at most; two data sets are few.",
}
RUN = "python benchmarks/retrieval.py run --data DIR [DIR ...] --output FOLDER"
Runs = dict[str, dict[str, list[dict[str, Any]]]]


def write_page(folder: Path, page: Path) -> None:
    """Write the results page.

    Args:
        folder: where ``runs.jsonl`` and, if it was made, ``comparisons.jsonl`` are.
        page: the Markdown page; two pictures for each data set go beside it.
    """
    lines = read_runs(folder)
    if not lines:
        raise SystemExit(f"error: {folder}/runs.jsonl does not exist; run the benchmark first")
    comparisons = folder / "comparisons.jsonl"
    intervals = [json.loads(line) for line in comparisons.read_text().splitlines()] if comparisons.is_file() else []
    runs = test_runs(lines)
    page.parent.mkdir(parents=True, exist_ok=True)
    parts = [introduction(lines, page, folder.name)]
    for data, by_loss in runs.items():
        picture, curves = (page.parent / f"{page.stem}-{name}.png" for name in (data, f"{data}-training"))
        draw(by_loss, data).savefig(picture, dpi=110)
        draw_curves(by_loss, data).savefig(curves, dpi=80)
        parts += [f"## {data}", table(by_loss), f"![Average precision per label on {data}]({picture.name})"]
        parts += [f"![Label mAP on the validation split while training on {data}]({curves.name})"]
    parts += ["## What MACL wins and what it loses", DIFFERENCES + f" {INTERVALS}" * bool(intervals)]
    parts += [differences(runs, intervals), ANY_LABEL]
    parts += ["## Mean rank", RANKS, ranks(runs), "## Settings of the losses", settings(runs)]
    page.write_text("\n\n".join(parts) + "\n")


def test_runs(lines: list[dict[str, Any]]) -> Runs:
    """The runs on the test split, by data set and loss, with the seeds that all losses have."""
    runs: Runs = defaultdict(lambda: defaultdict(list))
    for run in lines:
        if run["stage"] == "test":
            runs[run["data"]][run["loss"]].append(run)
    for by_loss in runs.values():
        seeds = set.intersection(*({run["seed"] for run in group} for group in by_loss.values()))
        for loss, group in by_loss.items():
            by_loss[loss] = [run for run in group if run["seed"] in seeds]
    return runs


def introduction(lines: list[dict[str, Any]], page: Path, folder: str) -> str:
    first = lines[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    chosen = dict(first["settings"])
    protocol = chosen.pop("protocol")
    said = ", ".join(f"{name} {value}" for name, value in chosen.items())
    counts = {data: len(next(iter(by_loss.values()))) for data, by_loss in test_runs(lines).items()}
    seeds = ", ".join(f"{count} seed{'s' * (count > 1)} on {data}" for data, count in counts.items())
    is_tuned = any(run["stage"] == "tune" for run in lines)
    title = options = ""
    if protocol == "finetune":
        backbone, weights = chosen["backbone"], "" if chosen["pretrained"] else " with random weights"
        title = f": the whole network, {backbone}{weights}"
        options = f" --protocol finetune --backbone {backbone} --tuned HEAD_FOLDER"
        options += "" if chosen["pretrained"] else " --no-pretrained"
    return (
        f"# Results{title}\n\n"
        f"Protocol `{protocol}`: {PROTOCOLS[protocol]}; {said}; {seeds}. Percent on the test split, each image "
        "queried against the others (mean ± standard deviation over seeds); best **bold**, second best *italic*. "
        f"{TUNED[is_tuned]}\n\n"
        f"{LIMITS[protocol]}\n\n"
        f"On a CPU with two cores, one thread a run; {versions}. The commands:\n\n"
        "```\n"
        f"{RUN}{options}\n"
        "python benchmarks/retrieval.py compare --output FOLDER\n"
        f"python benchmarks/retrieval.py report --output FOLDER --page docs/results/{page.name}\n"
        "```\n\n"
        f"The runs behind this page are `benchmarks/results/{folder}/runs.jsonl`, a line a run; the last command "
        f"makes the page from them with `--output benchmarks/results/{folder}`."
    )


def means(by_loss: dict[str, list[dict[str, Any]]], metric: str) -> dict[str, float]:
    return {loss: mean(run["metrics"][metric] for run in runs) for loss, runs in by_loss.items()}


def table(by_loss: dict[str, list[dict[str, Any]]]) -> str:
    """One row per loss, one column per metric."""
    rows = [f"| loss | {' | '.join(METRICS.values())} |", "|---|" + "---:|" * len(METRICS)]
    marks = {}
    for metric in METRICS:
        order = sorted(means(by_loss, metric).items(), key=lambda item: -item[1])
        marks[metric] = dict(zip([loss for loss, _ in order], ("**", "*"), strict=False))
    for loss, runs in by_loss.items():
        cells = []
        for metric in METRICS:
            values = [100 * run["metrics"][metric] for run in runs]
            mark = marks[metric].get(loss, "")
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mark}{mean(values):.1f}{mark}{spread}")
        rows.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(rows)


def best_pair(by_loss: dict[str, list[dict[str, Any]]], metric: str) -> tuple[str, str, float]:
    """The better MACL variant, the best other loss, and the difference of their means in points."""
    values = means(by_loss, metric)
    macl = max((loss for loss in values if loss.startswith("MACL")), key=values.__getitem__)
    other = max((loss for loss in values if not loss.startswith("MACL")), key=values.__getitem__)
    return macl, other, 100 * (values[macl] - values[other])


def differences(runs: Runs, intervals: list[dict[str, Any]]) -> str:
    """The better MACL variant minus the best other loss, one row per metric."""
    bounds = {(line["data"], line["metric"], line["macl"], line["other"]): line for line in intervals}
    rows = ["| data | metric | MACL variant | best other loss | difference |", "|---|---|---|---|---:|"]
    rows = [row + end * bool(bounds) for row, end in zip(rows, (" 95 % interval |", "---:|"), strict=True)]
    for data, by_loss in runs.items():
        for metric, title in METRICS.items():
            macl, other, difference = best_pair(by_loss, metric)
            row = f"| {data} | {title} | {macl} | {other} | {difference:+.1f} |"
            if bounds:  # made by the command compare from the same runs, or else it fails here
                low, high = (100 * bounds[data, metric, macl, other][side] for side in ("low", "high"))
                mark = "**" * (low > 0 or high < 0)
                row += f" {mark}{low:+.1f} to {high:+.1f}{mark} |"
            rows.append(row)
    return "\n".join(rows)


def ranks(runs: Runs) -> str:
    """Mean rank of each loss over metrics, by data set and over all."""
    by_data: dict[str, dict[str, float]] = {}
    for data, by_loss in runs.items():
        collected = defaultdict(list)
        for metric in METRICS:
            values = means(by_loss, metric)
            for loss, value in values.items():
                collected[loss].append(1 + sum(other > value for other in values.values()))
        by_data[data] = {loss: mean(positions) for loss, positions in collected.items()}
    overall = {loss: mean(part[loss] for part in by_data.values()) for loss in next(iter(by_data.values()))}
    rows = [f"| loss | {' | '.join(by_data)} | all |", "|---|" + "---:|" * (len(by_data) + 1)]
    for loss, position in sorted(overall.items(), key=lambda item: item[1]):
        cells = " | ".join(f"{part[loss]:.1f}" for part in by_data.values())
        rows.append(f"| {loss} | {cells} | {position:.1f} |")
    return "\n".join(rows)


def settings(runs: Runs) -> str:
    rows = [f"| loss | {' | '.join(runs)} |", "|---|" + "---:|" * len(runs)]
    for loss in next(iter(runs.values())):
        rows.append(f"| {loss} | {' | '.join(str(by_loss[loss][0]['value']) for by_loss in runs.values())} |")
    return "\n".join(rows)


def thirds_of(runs: list[dict[str, Any]]) -> list[float]:
    """Label mAP of the rarest, the middle and the most frequent third, in percent, mean over seeds."""
    counts = torch.tensor(runs[0]["counts"])
    values = torch.tensor(np.array([run["label_average_precision"] for run in runs], dtype=float))
    by_run = torch.stack([label_mean_average_precision_by_frequency(row, counts) for row in values])
    return (100 * by_run.mean(dim=0)).tolist()


def draw(by_loss: dict[str, list[dict[str, Any]]], data: str) -> Any:
    """Average precision of rare and common labels, and nDCG against label mAP, by loss."""
    figure, (left, right) = new_plot(12, 1.2 + 0.32 * len(by_loss), f"{data}: rare and common labels", columns=2)
    rows = range(len(by_loss))
    precision = [thirds_of(runs) for runs in by_loss.values()]
    for number, name in enumerate(THIRDS):
        left.plot([values[number] for values in precision], rows, "osD"[number], color=COLOURS[number], label=name)
    names = [f"{loss}  ({row + 1})" for row, loss in enumerate(by_loss)]
    left.set(yticks=rows, yticklabels=names, xlabel="average precision [%]")
    left.invert_yaxis()
    left.grid(axis="y", alpha=0.4)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    places = [
        [100 * mean(run["metrics"][metric] for run in runs) for metric in ("label_map", "ndcg")]
        for runs in by_loss.values()
    ]
    # Numbers as on the left, on alternate sides from top to bottom, so that close neighbours stay readable.
    for position, row in enumerate(sorted(rows, key=lambda row: -places[row][1])):
        is_macl = list(by_loss)[row].startswith("MACL")
        right.plot(*places[row], "o", color=COLOURS[0] if is_macl else GREY)
        offset = (6, -4) if position % 2 else (-6, -4)
        side = "left" if position % 2 else "right"
        right.annotate(str(row + 1), places[row], offset, textcoords="offset points", ha=side)
    right.margins(x=0.1)
    right.set(xlabel="label mAP [%]", ylabel="nDCG [%]")
    return figure


def draw_curves(by_loss: dict[str, list[dict[str, Any]]], data: str) -> Any:
    """Label mAP on the validation split after each epoch, mean over seeds."""
    figure, (axis,) = new_plot(8, 4, f"{data}: label mAP on the validation split")
    for number, (loss, runs) in enumerate(by_loss.items()):
        curve = 100 * np.mean([run["curve"] for run in runs], axis=0)
        style = {**line_style(number), "linestyle": LINE_STYLES[(number + number // len(COLOURS)) % len(LINE_STYLES)]}
        style["linewidth"] = 2.4 if loss.startswith("MACL") else 1.2
        axis.plot(range(1, 1 + len(curve)), curve, label=loss, **style)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel="epoch", ylabel="label mAP [%]")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8.5)
    return figure
