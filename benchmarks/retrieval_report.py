"""Write the finished runs of the retrieval benchmark as a Markdown page with computed conclusions and figures."""

import json
import shlex
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from figures import Theme, add_legend, new_figure, save_figure
from from_examples import PROXY_LR_FACTOR
from retrieval_findings import (
    METRICS,
    RECALLS,
    Bounds,
    DataRuns,
    Runs,
    ahead_and_behind,
    at_an_edge,
    best_pair,
    edges,
    findings,
    has_all_pairs,
    interval_bounds,
    mean_ranks,
    means,
    overall_ranks,
)
from retrieval_losses import LOSSES, UNTRAINED
from settings import DEFAULTS
from training import read_runs
from words import bounds, counted, data_name, listed, signed, split_sizes

from pml_macl.evaluation import label_mean_average_precision_by_frequency

THIRDS = ("rarest third", "middle", "most frequent")
READING = (
    "The next tables give percent on the test split, {}. **Bold** is best, *italic* second best. [How it was measured]"
    "(#how-it-was-measured) explains the metrics."
)
DIFFERENCES = (
    "For each metric, the table compares the best of {} variants of MACL with the best of {} other methods, in points. "
    "Both are chosen on the test split{}."
)
EACH = (
    "On how many metrics, over all data sets, the 95 % interval of the difference is above 0 (ahead) and below 0 "
    "(behind). The other metrics are undecided."
)
RECALL = (
    "Recall@K (R@K) is the share of queries with at least one relevant reference among the first K. By one shared "
    "label, R@1 is {:.1f} to {:.1f} % for all methods."
)
INTERVALS = (
    "The 95 % interval comes from a paired bootstrap over test queries and seeds. **Bold**: the interval excludes 0."
)
EXPLAINED = """\
| metric | what it measures |
|---|---|
| mAP, shares a label | mean average precision; a reference is relevant if it shares at least one label with the query |
| mAP, Jaccard >= 0.5 | the same; a reference is relevant if the Jaccard similarity of the label sets is at least 0.5 |
| mAP, same label set | the same; a reference is relevant if its label set equals the query's |
| nDCG | ranking of all references; the gain is the number of shared labels |
| nDCG@20, Jaccard gains | ranking of the first 20 references; the gain is the Jaccard similarity |
| label mAP | average precision per label, averaged over labels: each label counts the same |
| label mAP, rarest third | the same, over the rarest third of the labels |"""
WEIGHTED = "*MACL, weighted* is MACL with `FrequencyWeightedReducer(overlap_power=1)`."
FREQUENCY = (
    "*MACL, frequency Jaccard* is MACL with the relation [`FrequencyWeightedJaccard`]"
    '(../parts/frequency_weighted_jaccard.md) and `FrequencyWeightedReducer(level="label")`.'
)
CLASSIFIER = (
    "The classifier has the same backbone, hidden layer, optimizer, epochs and batches. Its head gives one score per "
    "label and is trained with binary cross-entropy; with `power` above 0, positives of rare labels weigh more. Its "
    "*features* are the hidden layer. Its *weighted probabilities* are divided by the square roots of the label "
    "counts. Both are normalised to length 1, as the embeddings are."
)
NOT_TRAINED = "*Features, no training* are the features of the backbone, normalised to length 1."
PROXIES = (
    "*MACL, proxies* is the sum of `MACLLoss` and [`ProxyMACLLoss`](../parts/proxy_macl_loss.md), which learns a proxy "
    "of each label."
)
JOINED = (
    "*Joined 0.2* is `JoinedEmbedder.fit(head, features, weight=0.2)`, and *joined 0.5* has weight 0.5: the embeddings "
    "of the method, joined with 64 principal components of the features of the searched images. [This table]"
    "(generalisation.md#joined-with-the-features-of-the-backbone) shows what all methods gain."
)
MSC = (
    "*MSC* learns a prototype of each label, and gives each label of an image the same weight. `benchmarks/msc.py` is "
    "our reading of the paper that it cites."
)
OTHERS = (
    "*RINCE* ranks the positives by Jaccard similarity, and *HyP2* learns a proxy of each label. `benchmarks/rince.py` "
    "and `benchmarks/hyp2.py` are our readings of the papers that they cite."
)
# An explanation, and the method whose presence on a page asks for it.
EXPLANATIONS = (
    (WEIGHTED, "MACL, weighted"),
    (FREQUENCY, "MACL, frequency Jaccard"),
    (PROXIES, "MACL, proxies"),
    (JOINED, "MACL, joined 0.2"),
    (CLASSIFIER, "Classifier, weighted probabilities"),
    (NOT_TRAINED, UNTRAINED),
    (MSC, "MSC"),
    (OTHERS, "RINCE"),
)
RUN = "python benchmarks/retrieval.py run --data DIR [DIR ...] --output FOLDER"


def write_page(folder: Path, page: Path) -> None:
    """Write the results page.

    Args:
        folder: folder of ``runs.jsonl`` and, if the command ``compare`` has run, of ``comparisons.jsonl``.
        page: the Markdown page. A light and a dark figure for each data set go beside it.
    """
    lines = read_runs(folder)
    if not lines:
        raise SystemExit(f"error: {folder}/runs.jsonl does not exist; run the benchmark first")
    comparisons = folder / "comparisons.jsonl"
    intervals = [json.loads(line) for line in comparisons.read_text().splitlines()] if comparisons.is_file() else []
    runs = test_runs(lines)
    tuned = [run for run in lines if run["stage"] == "tune"]
    page.parent.mkdir(parents=True, exist_ok=True)
    has_spread = any(len(group) > 1 for by_loss in runs.values() for group in by_loss.values())
    reading = READING.format("mean ± standard deviation over seeds" if has_spread else "of one seed")
    parts = [introduction(lines[0]["settings"], runs), "## What the numbers say", findings(runs, intervals), reading]
    for data, by_loss in runs.items():
        caption = f"Average precision of rare, middle and frequent labels on {data_name(data)}, by method"
        figure = save_figure(lambda theme, by_loss=by_loss: draw(by_loss, theme), page, f"{page.stem}-{data}", caption)
        shown = "The figure shows the average precision of rare and of frequent labels, for each method:"
        parts += [f"## {data_name(data)}", table(by_loss, METRICS), shown, figure]
        if all("recall" in run for group in by_loss.values() for run in group):
            easy = [100 * value for value in means(by_loss, "any_1", "recall").values()]
            parts += [RECALL.format(min(easy), max(easy)), table(by_loss, RECALLS, "recall")]
    losses = next(iter(runs.values()))
    ours = sum(loss.startswith("MACL") for loss in losses)
    others = len(losses) - ours
    compared = DIFFERENCES.format(ours, others, ", which favours the larger group" * (ours != others))
    compared += f" {INTERVALS}" * bool(intervals)
    parts += ["## MACL against the best other method", compared]
    parts += [differences(runs, intervals)]
    if each := against_each(runs, interval_bounds(intervals)):
        parts += ["## MACL against each other method", EACH, each]
    parts += ["## Mean rank", "The rank of each method, averaged over the metrics. 1 is best.", ranks(runs)]
    parts += ["## Settings of the losses", settings(runs, bool(tuned)), edges(runs, tuned)]
    parts += ["## How it was measured", method(lines, runs, page, folder.name)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


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


def seeds_of(runs: Runs) -> str:
    """How many seeds each data set has, as in ``3 seeds on ML-AID``."""
    counts = {data: len(next(iter(by_loss.values()))) for data, by_loss in runs.items()}
    return listed([f"{counted(count, 'seed')} on {data_name(data)}" for data, count in counts.items()])


def introduction(chosen: dict[str, Any], runs: Runs) -> str:
    """The title, and what the reader learns."""
    title, trained = "Frozen backbone", "the backbone stays frozen and only a head is trained"
    if chosen["protocol"] == "finetune":
        title, trained = "Fine-tuned", f"the whole network ({chosen['backbone']}) is trained from ImageNet weights"
        if not chosen["pretrained"]:
            title, trained = "From random weights", f"{chosen['backbone']} is trained from random weights"
    return (
        f"# {title}\n\n"
        f"This page shows which method retrieves best when {trained}: "
        f"{counted(len(next(iter(runs.values()))), 'method')}, {seeds_of(runs)}."
    )


def method(lines: list[dict[str, Any]], runs: Runs, page: Path, folder: str) -> str:
    """Network, training, tuning, metrics, limits and commands."""
    chosen = lines[0]["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in lines[0]["versions"].items())
    options, is_tuned = "", any(run["stage"] == "tune" for run in lines)
    if chosen["protocol"] == "head":
        network = "frozen EfficientNet-Lite0 features (ImageNet weights, images of 128 pixels) and a trained head"
        network += " 1280-512-128. Only the head learns, so the results say little about fine-tuning"
    else:
        start, rate = "random weights", "the backbone and the head have the same learning rate"
        if chosen["pretrained"]:
            start, rate = "ImageNet weights", "the backbone has a third of the head's learning rate"
        network = (
            f"{chosen['backbone']} from {start} and a head (hidden layer of 512, embeddings of 128), images of "
            f"{chosen['image_size']} pixels with random flips and quarter turns; {rate}"
        )
        start = "around" if is_tuned else "tuned"
        options = f" --protocol finetune --backbone {chosen['backbone']} --{start} HEAD_FOLDER"
        options += "" if chosen["pretrained"] else " --no-pretrained"
    if chosen["epochs"] != DEFAULTS[chosen["protocol"]]["epochs"]:
        options += f" --epochs {chosen['epochs']}"
    shown = next(iter(runs.values()))
    num_seeds = len(next(iter(shown.values())))
    if num_seeds != DEFAULTS[chosen["protocol"]]["seeds"]:
        options += f" --seeds {num_seeds}"
    if shown.keys() != LOSSES.keys():
        options += f" --losses {shlex.join(shown)}"
    tuning = (
        "each method takes a setting that was chosen [on frozen features](#settings-of-the-losses). It was not tuned "
        "again for this network"
    )
    if is_tuned:
        values = f"from {len(LOSSES['MACL'].grid)} values"
        if chosen["protocol"] == "finetune":
            values = (
                "from the value that is best [on frozen features](frozen.md#settings-of-the-losses) and the two next "
                "to it, and went on while the next value was better"
            )
        tuning = (
            f"for each method, the mean of the metrics on the validation split chose one setting {values}, with one "
            "seed that is not used again"
        )
    explained = "\n\n".join([EXPLAINED, *(text for text, name in EXPLANATIONS if name in shown)])
    return (
        f"- **Network:** {network}.\n"
        f"{split_sizes(runs)}"
        f"- **Training:** {counted(chosen['epochs'], 'epoch')} without early stopping, batches of "
        f"{chosen['batch_size']}, learning rate {chosen['lr']} ({PROXY_LR_FACTOR} times that for learnt proxies and "
        f"prototypes), dropout {chosen['dropout']}; {seeds_of(runs)}.\n"
        f"- **Tuning:** {tuning}.\n"
        "- **Evaluation:** each test image is a query, and all other test images are its references.\n"
        f"- **Limits:** {counted(len(runs), 'data set')}. Intervals, where given, cover queries and seeds, but not "
        "the choice of data sets or of references.\n"
        f"- **Machine:** two CPU cores, one thread per run; {versions}.\n\n"
        f"{explained}\n\n"
        "The commands, where the last one writes this page from the stored runs with "
        f"`--output benchmarks/results/{folder}`:\n\n"
        "```\n"
        f"{RUN}{options}\n"
        "python benchmarks/retrieval.py compare --output FOLDER\n"
        f"python benchmarks/retrieval.py report --output FOLDER --page docs/results/{page.name}\n"
        "```"
    )


def table(by_loss: DataRuns, columns: dict[str, str], group: str = "metrics") -> str:
    """One row per method, one column per metric of the group."""
    rows = [f"| method | {' | '.join(columns.values())} |", "|---|" + "---:|" * len(columns)]
    marks = {}
    for metric in columns:
        order = sorted(means(by_loss, metric, group).items(), key=lambda item: -item[1])
        marks[metric] = dict(zip([loss for loss, _ in order], ("**", "*"), strict=False))
    for loss, runs in by_loss.items():
        cells = []
        for metric in columns:
            values = [100 * run[group][metric] for run in runs]
            mark = marks[metric].get(loss, "")
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mark}{mean(values):.1f}{mark}{spread}")
        rows.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(rows)


def differences(runs: Runs, intervals: list[dict[str, Any]]) -> str:
    """The best MACL variant minus the best other method, one row per metric."""
    known = interval_bounds(intervals)
    rows = ["| data set | metric | MACL variant | best other method | difference |", "|---|---|---|---|---:|"]
    rows = [row + end * bool(known) for row, end in zip(rows, (" 95 % interval |", "---:|"), strict=True)]
    for data, by_loss in runs.items():
        for metric, title in METRICS.items():
            macl, other, difference = best_pair(by_loss, metric)
            row = f"| {data_name(data)} | {title} | {macl} | {other} | {signed(difference)} |"
            if known:  # a KeyError here means that comparisons.jsonl belongs to other runs
                low, high = (100 * known[data, metric, macl, other][side] for side in ("low", "high"))
                mark = "**" * (low > 0 or high < 0)
                row += f" {mark}{bounds(low, high)}{mark} |"
            rows.append(row)
    return "\n".join(rows)


def against_each(runs: Runs, known: Bounds) -> str:
    """The number of metrics on which each MACL variant is ahead of and behind each other method.

    Empty if ``comparisons.jsonl`` lacks a pair.
    """
    losses = list(next(iter(runs.values())))
    ours, others = ([loss for loss in losses if loss.startswith("MACL") == is_macl] for is_macl in (True, False))
    if not has_all_pairs(runs, known, others):
        return ""
    titles = " | ".join(f"{macl}: {side}" for macl in ours for side in ("ahead", "behind"))
    rows = [f"| other method | {titles} |", "|---|" + "---:|" * (2 * len(ours))]
    for other in others:
        numbers = [number for macl in ours for number in ahead_and_behind(runs, known, macl, other)]
        rows.append(f"| {other} | {' | '.join(map(str, numbers))} |")
    return "\n".join([*rows, "", f"All numbers are of {len(runs) * len(METRICS)} metrics."])


def each_table(groups: dict[str, Runs], known: Bounds, pairs: dict[str, tuple[str, str]]) -> str:
    """*ahead / behind*: on how many metrics the first method of each pair is ahead of and behind the second.

    A cell is empty if its runs lack one of the two.

    Args:
        groups: the runs of each column; its numbers are sums over the data sets.
        known: the intervals of the differences.
        pairs: a MACL variant and another method, by the title of the row.
    """
    titles = [f"{group} (of {len(METRICS) * len(runs)})" for group, runs in groups.items()]
    rows = [f"| other method | {' | '.join(titles)} |", "|---|" + "---:|" * len(groups)]
    for title, pair in pairs.items():
        cells = [
            "{} / {}".format(*ahead_and_behind(runs, known, *pair))
            if all(map(set(pair).issubset, runs.values()))
            else ""
            for runs in groups.values()
        ]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def ranks(runs: Runs) -> str:
    """Mean rank of each method over metrics, by data set and over all data sets."""
    by_data = mean_ranks(runs)
    rows = [f"| method | {' | '.join(map(data_name, by_data))} | all |", "|---|" + "---:|" * (len(by_data) + 1)]
    for loss, position in overall_ranks(runs).items():
        cells = " | ".join(f"{part[loss]:.1f}" for part in by_data.values())
        rows.append(f"| {loss} | {cells} | {position:.1f} |")
    return "\n".join(rows)


def settings(runs: Runs, is_tuned: bool) -> str:
    """The embedding size and the tuned argument of each method, and the value chosen for each data set.

    Args:
        runs: the runs on the test split.
        is_tuned: whether the settings were tuned for these runs, from the values that the table then shows.
    """
    titles = ["numbers per image", *(["values tried"] * is_tuned), *map(data_name, runs)]
    rows = [f"| method | {' | '.join(titles)} |", "|---|---:|" + "---|" * (len(titles) - 1)]
    for loss, group in next(iter(runs.values())).items():
        entry = LOSSES[loss]
        cells = [str(group[0].get("dimensions", 128))]
        cells += [", ".join(map(str, entry.grid)) if entry.parameter else "none"] * is_tuned
        for by_loss in runs.values():
            value = by_loss[loss][0]["value"]
            mark = "**" * (is_tuned and at_an_edge(loss, value))
            cells.append(f"{mark}`{entry.parameter}={value}`{mark}" if entry.parameter else "")
        rows.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(rows)


def thirds_of(runs: list[dict[str, Any]]) -> list[float]:
    """Label mAP of the rarest, the middle and the most frequent third, in percent, mean over seeds."""
    counts = torch.tensor(runs[0]["counts"])
    values = torch.tensor(np.array([run["label_average_precision"] for run in runs], dtype=float))
    by_run = torch.stack([label_mean_average_precision_by_frequency(row, counts) for row in values])
    return (100 * by_run.mean(dim=0)).tolist()


def draw(by_loss: DataRuns, theme: Theme) -> Any:
    """Average precision of rare, middle and frequent labels, one row per method, sorted by label mAP."""
    order = sorted(means(by_loss, "label_map").items(), key=lambda item: -item[1])
    precision = [thirds_of(by_loss[loss]) for loss, _ in order]
    figure, (axes,) = new_figure(theme, 1.0 + 0.3 * len(order))
    rows = range(len(order))
    axes.hlines(rows, [min(values) for values in precision], [max(values) for values in precision], color=theme.grid)
    for number, name in enumerate(THIRDS):
        places = [values[number] for values in precision]
        axes.plot(places, rows, "osD"[number], color=theme.colours[number], markersize=7, label=name)
    axes.set_yticks(rows, [loss for loss, _ in order])
    for label in axes.get_yticklabels():
        label.set_weight("bold" if label.get_text().startswith("MACL") else "normal")
    axes.set_xlabel("average precision [%]")
    axes.grid(axis="x", color=theme.grid)
    axes.invert_yaxis()
    add_legend(figure, axes, theme, ncols=3)
    return figure
