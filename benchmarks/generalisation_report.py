"""Write the finished runs of the generalisation benchmark as a Markdown page with computed conclusions and figures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trade_off
from figures import TYPE_SIZE, Theme, new_figure, save_figure
from generalisation_cases import QUESTIONS
from retrieval_findings import (
    METRICS,
    RECALLS,
    Bounds,
    DataRuns,
    Runs,
    ahead_and_behind,
    in_text,
    interval_bounds,
    means,
    overall_ranks,
)
from retrieval_losses import UNTRAINED
from retrieval_report import EACH, EXPLAINED, against_each, each_table, table
from training import read_runs
from words import counted, data_name, listed

PRIMARY = "label_map"
PRESETS = ("MACL, joined 0.2", "MACL, joined 0.5", "MACL, proxies, joined 0.2")
INTRODUCTION = (
    "# Unseen labels, scenes and archives\n\nThis page shows which method retrieves best when the search asks for what "
    "training has not seen, or has seen only in part. A classifier has no output for a label that it was not trained "
    "on, so the searches by unseen labels use what its known labels reveal."
)
READING = (
    "The figures show the label mAP. The vertical line is MACL. A bar is the 95 % interval of the difference to MACL; "
    "the difference is clear if the bar does not touch the line. The tables give percent, mean ± standard deviation "
    "over runs; R@K is Recall@K. **Bold** is best, *italic* second best. [How it was measured](#how-it-was-measured) "
    "explains the metrics."
)
JOINING = (
    "`pml_macl.inference.JoinedEmbedder` joins the embeddings of a head with 64 principal components of the backbone's "
    "features. The cosine similarity is then (1 - w) times that of the embeddings plus w times that of the components. "
    "Mean and axes come from the images that are searched, without their labels. The weights were chosen on the "
    "validation splits: 0.2 is the largest of those tried that changes the mean of all metrics for seen labels by less "
    "than 0.3 points; 0.5 is for archives unlike the training images. The table gives the label mAP in percent for w = "
    "0 (not joined), 0.2, 0.5, and 1 (the components alone, without training). **Bold**: a gain over w = 0 whose 95 % "
    "interval excludes 0."
)
ALL_JOINED = (
    "The next table compares {} with other methods that are joined at the same weight: on how many metrics, over both "
    "data sets, the 95 % interval of the difference is above 0 and below 0, *ahead / behind*."
)
METHOD = (
    "- **Network and training:** as on [Frozen backbone](frozen.md#how-it-was-measured). Each method keeps the setting "
    "that the validation split chose there; nothing is tuned on this page.\n"
    "- **Runs:** three seeds draw the thirds of the labels, the few images and the deleted labels. Each third is left "
    "out once per seed. The scenes are divided once.\n"
    "- **Images without labels:** a training image that has no label left is not used, by any method. A query without "
    "a relevant reference does not count.\n"
    "- **Rarest third:** counted in the labels of the queries.\n"
    "- **Intervals:** a paired bootstrap over runs and queries. They do not cover the choice of data sets or of "
    "references."
)
COMMANDS = """\
```
python benchmarks/generalisation.py run --data DIR [DIR ...] --tuned HEAD_FOLDER --output FOLDER
python benchmarks/generalisation.py compare --output FOLDER
python benchmarks/generalisation.py report --output FOLDER --page docs/results/generalisation.md
```"""


def write_page(folder: Path, page: Path) -> None:
    """Write the results page and its figures from ``runs.jsonl`` and ``comparisons.jsonl``."""
    lines = read_runs(folder)
    if not lines:
        raise SystemExit(f"error: {folder}/runs.jsonl does not exist; run the benchmark first")
    path = folder / "comparisons.jsonl"
    if not path.is_file():
        raise SystemExit(f"error: {path} does not exist; run the command compare first")
    known = interval_bounds([json.loads(line) for line in path.read_text().splitlines()])
    every = test_runs(lines)
    runs = listed_runs(every)
    page.parent.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION, "## What the numbers say", findings(every, known), READING]
    for question, groups in by_question(runs).items():
        caption = f"Label mAP of each method: {question}"
        name = f"{page.stem}-{question}".replace(" ", "_").replace("%", "percent")
        parts += [f"## {title(question)}", QUESTIONS[question]]
        parts += [save_figure(lambda theme, groups=groups: draw(groups, known, theme), page, name, caption)]
        for group, by_loss in groups.items():
            parts += [f"{data_of(group)}:", table(by_loss, METRICS), table(by_loss, RECALLS, "recall")]
    parts += ["## MACL against each other method", EACH, against_each(runs, known)]
    parts += ["## Joined with the features of the backbone", JOINING, joined_table(every, known)]
    if trade_off.data_sets(every):
        parts += [trade_off.explained(every), trade_off.save(every, page)]
    for macl in joined_macl(every):
        parts += [ALL_JOINED.format(in_text(macl)), all_joined(every, known, macl)]
    versions = ", ".join(f"{name} {version}" for name, version in lines[0]["versions"].items())
    parts += ["## How it was measured", f"{METHOD}\n- **Versions:** {versions}.", EXPLAINED, COMMANDS]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def is_joined(name: str) -> bool:
    """Whether this method joins embeddings with the features of the backbone."""
    return ", joined " in name


def listed_runs(every: Runs) -> Runs:
    """The methods that the figures, ranks and tables list: all that are not joined with features, and the presets."""
    return {
        group: {loss: found for loss, found in by_loss.items() if loss in PRESETS or not is_joined(loss)}
        for group, by_loss in every.items()
    }


def test_runs(lines: list[dict[str, Any]]) -> Runs:
    """The runs by question with data set, and by method; only folds and seeds that all methods have, in the same order.

    A method joined with features has a name of its own, such as ``MACL, joined 0.5``.
    """
    groups: dict[tuple[str, str], DataRuns] = {}
    for run in lines:
        by_loss = groups.setdefault((run["question"], run["data"]), {})
        weight = run["feature_weight"]
        by_loss.setdefault(f"{run['loss']}, joined {weight}" if weight else run["loss"], []).append(run)
    runs: Runs = {}
    for question in QUESTIONS:
        for (asked, data), by_loss in groups.items():
            if asked == question:
                shared = set.intersection(
                    *({(run["answer"], run["seed"]) for run in found} for found in by_loss.values())
                )
                runs[f"{question}, {data_name(data)}"] = {
                    loss: sorted(
                        (run for run in found if (run["answer"], run["seed"]) in shared),
                        key=lambda run: (run["answer"], run["seed"]),
                    )
                    for loss, found in by_loss.items()
                }
    return runs


def by_question(runs: Runs) -> dict[str, Runs]:
    """The runs of each question; the keys inside still name the question and the data set."""
    found = {question: {key: runs[key] for key in runs if key.startswith(f"{question}, ")} for question in QUESTIONS}
    return {question: group for question, group in found.items() if group}


def data_of(group: str) -> str:
    """The name of the data set in the key of a group."""
    return group.rsplit(", ", 1)[1]


def title(text: str) -> str:
    return text[0].upper() + text[1:]


def findings(every: Runs, known: Bounds) -> str:
    """Which methods MACL is ahead of and behind on label mAP, for each question and data set; and the mean ranks."""
    lines = []
    for group, by_loss in every.items():
        plain = {loss: value for loss, value in means(by_loss, PRIMARY).items() if not is_joined(loss)}
        sides: dict[str, list[str]] = {"behind": [], "ahead of": [], "undecided against": []}
        for other in sorted(plain, key=plain.__getitem__, reverse=True):
            if (group, PRIMARY, "MACL", other) in known:
                line = known[group, PRIMARY, "MACL", other]
                side = "ahead of" if line["low"] > 0 else "behind" if line["high"] < 0 else "undecided against"
                sides[side].append(f"{in_text(other)} ({100 * plain[other]:.1f})")
        said = "; ".join(f"{side} {listed(names)}" for side, names in sides.items() if names)
        lines.append(f"**{title(group)}.** On label mAP, MACL ({100 * plain['MACL']:.1f}) is {said}.")
    runs = listed_runs(every)
    best = [f"{in_text(loss)} ({rank:.1f})" for loss, rank in list(overall_ranks(runs).items())[:3]]
    number = counted(len(next(iter(runs.values()))), "method")
    lines.append(f"**Mean rank** over metrics, questions and data sets, of {number}. The best are {listed(best)}.")
    lines += [*joining(every, known), *lead_if_all_are_joined(every, known)]
    return "\n".join(f"- {line}" for line in lines)


def joined_macl(every: Runs) -> list[str]:
    """The names of MACL joined with features, one for each weight."""
    return [loss for loss in next(iter(every.values()), ()) if loss.startswith("MACL, joined ")]


def joining(every: Runs, known: Bounds) -> Iterator[str]:
    """Where joining the features raises MACL's label mAP, and how that compares with the features alone."""
    for name in joined_macl(every):
        lines = {other: [known[group, PRIMARY, name, other] for group in every] for other in ("MACL", UNTRAINED)}
        counts = {
            other: (sum(line["low"] > 0 for line in found), sum(line["high"] < 0 for line in found))
            for other, found in lines.items()
        }
        (rises, falls), (ahead, behind) = counts["MACL"], counts[UNTRAINED]
        yield (
            f"**{title(in_text(name))}.** Of {len(every)} pairs of a question and a data set, MACL's "
            f"label mAP rises on {rises} and falls on {falls}. It is then ahead of features without training on "
            f"{ahead} and behind on {behind}."
        )


def draw(groups: Runs, known: Bounds, theme: Theme) -> Any:
    """Label mAP of each method, one panel per data set; the bars are intervals of the difference to MACL."""
    rows = sum(len(by_loss) for by_loss in groups.values())
    figure, panels = new_figure(theme, 0.6 + 0.21 * rows, len(groups))
    for axes, (group, by_loss) in zip(panels, groups.items(), strict=True):
        values = {loss: 100 * value for loss, value in means(by_loss, PRIMARY).items()}
        order = sorted(values, key=values.__getitem__, reverse=True)
        axes.axvline(values["MACL"], color=theme.grey)
        for row, loss in enumerate(order):
            is_macl = loss.startswith("MACL")
            colour = theme.colours[0 if is_macl else 1]
            line = known.get((group, PRIMARY, "MACL", loss))
            if line is not None:
                axes.hlines(row, *(values["MACL"] - 100 * line[side] for side in ("low", "high")), color=colour)
            axes.plot(values[loss], row, "o" if is_macl else "s", color=colour, markersize=7)
        axes.set_yticks(range(len(order)), order)
        for label in axes.get_yticklabels():
            label.set_weight("bold" if label.get_text().startswith("MACL") else "normal")
        axes.set_title(data_of(group), loc="left", color=theme.ink, size=TYPE_SIZE)
        axes.set_xlabel("label mAP [%]")
        axes.grid(axis="x", color=theme.grid)
        axes.invert_yaxis()
    return figure


def joined_table(every: Runs, known: Bounds) -> str:
    """Label mAP of each method without features, and what each weight of the features changes."""
    losses = [loss for loss in next(iter(every.values())) if not is_joined(loss)]
    rows = [f"| question, data set | w | {' | '.join(losses)} |", "|---|---:|" + "---:|" * len(losses)]
    for group, by_loss in every.items():
        values = means(by_loss, PRIMARY)
        for weight in sorted({found[0]["feature_weight"] for found in by_loss.values()}):
            cells = []
            for loss in losses:
                name = f"{loss}, joined {weight}" if weight else loss
                is_gain = weight and name in values and known[group, PRIMARY, name, loss]["low"] > 0
                mark = "**" * bool(is_gain)
                cells.append(f"{mark}{100 * values[name]:.1f}{mark}" if name in values else "")
            rows.append(f"| {group if weight == 0 else ''} | {weight:g} | {' | '.join(cells)} |")
    return "\n".join(rows)


def all_joined(every: Runs, known: Bounds, macl: str) -> str:
    """How often joined MACL is ahead of the other methods and behind them if all are joined at the same weight."""
    return each_table(by_question(every), known, joined_alike(every, macl))


def joined_alike(every: Runs, macl: str) -> dict[str, tuple[str, str]]:
    """Pairs of joined MACL and another method joined at the same weight, by the plain name of the other."""
    suffix = macl.removeprefix("MACL")
    names = [name for name in next(iter(every.values())) if name.endswith(suffix) and not name.startswith("MACL")]
    return {name.removesuffix(suffix): (macl, name) for name in names}


def lead_if_all_are_joined(every: Runs, known: Bounds) -> Iterator[str]:
    """For each question, how many methods MACL is ahead of if all are joined at the same weight; a line per weight."""
    for macl in joined_macl(every):
        pairs = joined_alike(every, macl).values()
        counts = []
        for question, runs in by_question(every).items():
            compared = [ahead_and_behind(runs, known, *pair) for pair in pairs]
            counts.append(f"{question} {sum(ahead > behind for ahead, behind in compared)}")
        yield (
            f"**All methods joined, w = {macl.removeprefix('MACL, joined ')}.** Of {len(pairs)} other methods, MACL is "
            f"ahead of this many on more metrics than it is behind: {listed(counts)}."
        )
