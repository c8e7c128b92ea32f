"""Write a finished ablation as a Markdown page: the effects sorted by size, then one table per question."""

from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from ablation_findings import (
    GROUPS,
    METRICS,
    Effect,
    Runs,
    average,
    conclusion,
    effect,
    of_all_metrics,
    setting_name,
)
from figures import Theme, add_legend, new_figure, save_figure
from training import read_runs
from words import bounds, counted, data_name, listed, signed

Rows = dict[tuple[str, str], Runs]  # by question and answer; the default answers no question


def write_page(folder: Path, page: Path, default: str, questions: dict[str, list[str]]) -> None:
    """Write the page of an ablation.

    Args:
        folder: folder of ``runs.jsonl``.
        page: the Markdown page. A light and a dark figure go beside it.
        default: name of the settings that every question starts from.
        questions: the answers to each question; the page omits answers with missing runs.
    """
    lines = read_runs(folder)
    if not lines:
        raise SystemExit(f"error: {folder}/runs.jsonl does not exist; run the ablation first")
    page.parent.mkdir(parents=True, exist_ok=True)
    runs = complete_runs(lines, default, questions)
    base = runs.pop(("", default))
    effects = [effect(*key, group, base) for key, group in runs.items()]
    effects.sort(key=lambda part: -part.difference)
    seeds = len({run["seed"] for run in base})
    parts = [introduction(base), "## What matters", conclusion(effects), noise(seeds, effects)]
    caption = "Change of the mean of all metrics by each setting, with its 95 % interval"
    parts += [summary(effects), f"{caption}. The negative controls are not drawn:"]
    parts += [save_figure(lambda theme: draw(effects, theme), page, page.stem, caption)]
    parts += ["## Best setting for each metric", best_settings(runs, base)]
    for question, answers in questions.items():
        rows = {answer: runs[question, answer] for answer in answers if (question, answer) in runs}
        if rows:
            parts += [f"## {question.capitalize()}", table(question, {default: base} | rows)]
    parts += ["## How it was measured", method(lines)]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def complete_runs(lines: Runs, default: str, questions: dict[str, list[str]]) -> Rows:
    """The runs of each answer that has as many runs as the most complete one."""
    keys = [("", default)] + [(question, answer) for question, answers in questions.items() for answer in answers]
    found = {key: [run for run in lines if (run["question"], run["answer"]) == key] for key in keys}
    most = max(map(len, found.values()))
    return {key: runs for key, runs in found.items() if len(runs) == most}


def introduction(base: Runs) -> str:
    """The title, and what the reader learns."""
    data = listed([data_name(name) for name in sorted({run["data"] for run in base})])
    return (
        "# Ablation\n\n"
        "This page shows which parts of MACL matter. Each run changes one setting of MACL's defaults. The changes are "
        "points of the mean of all metrics on the **validation** split, averaged over "
        f"{data} and {counted(len({run['seed'] for run in base}), 'seed')}."
    )


def noise(seeds: int, effects: list[Effect]) -> str:
    """How the intervals are computed, how wide they are, and how many of them exclude 0 by chance."""
    widths = [part.noise for part in effects if part.noise is not None]
    if not widths:
        return "With one seed there are no intervals, so no effect can be told from noise."
    return (
        f"The 95 % interval is that of a paired t-test over {counted(seeds, 'seed')}. It reaches {median(widths):.1f} "
        "points to each side of the change (median over settings), so smaller effects remain hidden. Of "
        f"{counted(len(widths), 'interval')}, about {len(widths) / 20:.0f} would exclude 0 by chance alone."
    )


def summary(effects: list[Effect]) -> str:
    """One row per setting, from the largest gain to the largest loss."""
    data = list(effects[0].by_data)
    rows = [
        f"| setting | change | 95 % interval | {' | '.join(map(data_name, data))} | reading |",
        "|---|---:|---:|" + "---:|" * len(data) + "---|",
    ]
    for part in effects:
        interval = ""
        if part.noise is not None:
            interval = bounds(part.difference - part.noise, part.difference + part.noise, 2)
        cells = [signed(part.difference, 2), interval, *(signed(part.by_data[name], 2) for name in data)]
        reading = GROUPS[part.group].lower()
        if part.group == "little":
            reading = "helps a little" if part.difference > 0 else "hurts a little"
        rows.append(f"| {part.name} | {' | '.join(cells)} | {reading} |")
    return "\n".join(rows)


def best_settings(runs: Rows, base: Runs) -> str:
    """The best setting for each metric, and what it changes there and on the mean of all metrics."""
    rows = ["| metric | best setting | change of the metric | change of the mean |", "|---|---|---:|---:|"]
    for metric, title in METRICS.items():
        best = max(runs, key=lambda key, metric=metric: average(runs[key], metric))
        change = average(runs[best], metric) - average(base, metric)
        cells = ["the default", "", ""]
        if change > 0:
            overall = mean(of_all_metrics(runs[best])) - mean(of_all_metrics(base))
            cells = [f"{best[0]}: {setting_name(*best)}", signed(change, 2), signed(overall, 2)]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    rows += ["", "These settings are the best of many on the same data, so the changes are too optimistic."]
    return "\n".join(rows)


def table(question: str, rows: dict[str, Runs]) -> str:
    """One row per answer, one column per metric, in percent."""
    lines = [f"| | {' | '.join(METRICS.values())} | mean | change |", "|---|" + "---:|" * (len(METRICS) + 2)]
    baseline = mean(of_all_metrics(next(iter(rows.values()))))
    for answer, runs in rows.items():
        overall = of_all_metrics(runs)
        spread = stdev(overall) if len(overall) > 1 else 0
        cells = [f"{average(runs, metric):.1f}" for metric in METRICS]
        cells += [f"{mean(overall):.2f} ± {spread:.2f}", signed(mean(overall) - baseline, 2)]
        lines.append(f"| {setting_name(question, answer)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def method(lines: Runs) -> str:
    """Protocol, tables, limits and commands."""
    chosen = lines[0]["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in lines[0]["versions"].items())
    return (
        f"- **Protocol:** that of [Frozen backbone](frozen.md#how-it-was-measured): {chosen['epochs']} epochs, batches "
        f"of {chosen['batch_size']} unless changed, learning rate {chosen['lr']}, dropout {chosen['dropout']}. The "
        "validation split is used because the defaults are chosen from these numbers.\n"
        "- **Tables:** each column is the mean over data sets and seeds, in percent; `mean` is the mean of all metrics "
        "± standard deviation over seeds; `change` is its difference to the default.\n"
        "- **Limits:** the temperature is not tuned again for each setting, which is a disadvantage for settings that "
        "need another one. Larger batches make fewer steps, because the number of epochs is the same.\n"
        "- **Negative controls:** a negative `overlap_scale` lowers the temperature where labels overlap. The class "
        "refuses such a value, so the benchmark sets it after construction.\n"
        f"- **Versions:** {versions}.\n\n"
        "The commands, where the second one writes this page from the stored runs with "
        "`--output benchmarks/results/ablation`:\n\n"
        "```\n"
        "python benchmarks/ablation.py run --data DIR [DIR ...] --output FOLDER\n"
        "python benchmarks/ablation.py report --output FOLDER --page docs/results/ablation.md\n"
        "```"
    )


def draw(effects: list[Effect], theme: Theme) -> Any:
    """Change of the mean of all metrics by each setting, from the largest gain to the largest loss."""
    shown = [part for part in effects if not part.is_control]
    figure, (axes,) = new_figure(theme, 1.0 + 0.25 * max(len(shown), 1))
    axes.axvline(0, color=theme.grey, linewidth=1)
    kinds = {"clear": (theme.colours[1], "o"), "unclear": (theme.colours[0], "s")}
    labels = {"clear": "interval excludes 0", "unclear": "no measurable effect"}
    for kind, (colour, marker) in kinds.items():
        rows = [row for row, part in enumerate(shown) if (part.group == "unclear") == (kind == "unclear")]
        values = [shown[row].difference for row in rows]
        widths = [shown[row].noise or 0 for row in rows]
        axes.errorbar(values, rows, xerr=widths, fmt=marker, color=colour, markersize=5, label=labels[kind])
    axes.set_yticks(range(len(shown)), [short_name(part) for part in shown])
    axes.set_xlabel("change of the mean [points]")
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x", color=theme.grid)
    add_legend(figure, axes, theme, ncols=2)
    return figure


def short_name(part: Effect) -> str:
    """The setting without its question and Markdown, where it is clear alone."""
    question, name = part.name.split(": ", 1)
    name = name.replace("`", "").replace("positive_threshold", "positive").replace("negative_threshold", "negative")
    return f"{question} {name}" if question == "schedule" else name
