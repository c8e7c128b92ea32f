"""Write a finished ablation as a Markdown page with one table and one picture per question."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from retrieval_report import METRICS
from training import read_runs

from pml_macl.visualization import COLOURS, GREY, new_plot

DRAWN = ("map_jaccard_50", "ndcg_jaccard_20", "label_map", "label_map_tail")
ANY_LABEL = "map_any"
Runs = list[dict[str, Any]]


def write_page(folder: Path, page: Path, default: str, questions: dict[str, list[str]]) -> None:
    """Write the page of an ablation.

    Args:
        folder: where ``runs.jsonl`` is.
        page: the Markdown page; a picture for each question goes beside it.
        default: name of the settings that every question starts from.
        questions: the answers to each question; one without runs is left out.
    """
    lines = read_runs(folder)
    if not lines:
        raise SystemExit(f"error: {folder}/runs.jsonl does not exist; run the ablation first")
    page.parent.mkdir(parents=True, exist_ok=True)
    runs = {(question, answer): group for question, answer, group in groups(lines, default, questions)}
    parts = [introduction(lines)]
    better: list[str] = []
    any_label: dict[str, Runs] = {default: runs["", default]}
    for question, answers in questions.items():
        rows = {default: runs["", default]}
        rows |= {answer: runs[question, answer] for answer in answers if (question, answer) in runs}
        if len(rows) == 1:
            continue
        better += better_than_default(rows)
        any_label |= {f"{question}: {answer}": rows[answer] for answer in list(rows)[1:]}
        picture = page.parent / f"{page.stem}-{question.replace(' ', '-')}.png"
        draw(question, rows).savefig(picture, dpi=80)
        parts += [f"## {question.capitalize()}", table(rows), f"![{question}]({picture.name})"]
    parts[1:1] = [conclusion(better), price_of_any_label(any_label)]
    page.write_text("\n\n".join(parts) + "\n")


def groups(lines: Runs, default: str, questions: dict[str, list[str]]) -> list[tuple[str, str, Runs]]:
    """Question, answer and runs of each answer that has as many runs as the most complete one."""
    keys = [("", default)] + [(question, answer) for question, answers in questions.items() for answer in answers]
    found = [(key, [run for run in lines if (run["question"], run["answer"]) == key]) for key in keys]
    complete = max(len(runs) for _, runs in found)
    return [(*key, runs) for key, runs in found if len(runs) == complete]


def introduction(lines: Runs) -> str:
    data = sorted({run["data"] for run in lines})
    seeds = len({run["seed"] for run in lines})
    chosen = ", ".join(f"{name} {value}" for name, value in lines[0]["settings"].items())
    versions = ", ".join(f"{name} {version}" for name, version in lines[0]["versions"].items())
    return (
        "# Ablation\n\n"
        f"MACL with its defaults, and with one setting changed at a time. Protocol `head` of the [results](frozen.md) "
        f"({chosen}), {' and '.join(data)}, {seeds} seeds, measured on the **validation** split, from which defaults "
        "may be chosen. Percent; a column is the mean over data sets and seeds, the last one the mean of all metrics "
        "with the standard deviation over seeds and its difference to the default. The temperature is not tuned anew "
        "for each setting, so a setting that would want another one is at a disadvantage; larger batches mean fewer "
        "steps, since the epochs stay. The pictures show the difference to the default in points for each data set.\n\n"
        "A wrong sign is the negative control: the temperature falls with overlap. The class refuses such an "
        "`overlap_scale`; here it is set behind its back.\n\n"
        f"{versions}. The commands:\n\n"
        "```\n"
        "python benchmarks/ablation.py run --data DIR [DIR ...] --output FOLDER\n"
        "python benchmarks/ablation.py report --output FOLDER --page docs/results/ablation.md\n"
        "```\n\n"
        "The runs behind this page are `benchmarks/results/ablation/runs.jsonl`; the second command makes the page "
        "from them with `--output benchmarks/results/ablation`."
    )


def better_than_default(rows: dict[str, Runs]) -> list[str]:
    """The answers whose mean of all metrics is ahead by more than twice the larger standard deviation over seeds."""
    default, *others = [of_all_metrics(runs) for runs in rows.values()]
    if len(default) == 1:
        return []
    names = list(rows)[1:]
    ahead = [mean(values) - mean(default) > 2 * max(stdev(values), stdev(default)) for values in others]
    return [name for name, is_ahead in zip(names, ahead, strict=True) if is_ahead]


def conclusion(better: list[str]) -> str:
    found = ", ".join(better) if better else "none, so the defaults stay"
    return (
        f"Settings ahead of the default by more than twice the larger standard deviation on the mean of all: {found}."
    )


def price_of_any_label(rows: dict[str, Runs]) -> str:
    """What the setting that is best where any shared label counts gains there, and what it gives up elsewhere."""
    default, *others = rows
    name = max(others, key=lambda answer: average(rows[answer], ANY_LABEL))
    gain = average(rows[name], ANY_LABEL) - average(rows[default], ANY_LABEL)
    cost = mean(of_all_metrics(rows[name])) - mean(of_all_metrics(rows[default]))
    return (
        f"{METRICS[ANY_LABEL]}, is what MACL may lose to losses that treat every shared label alike. The setting that "
        f"does best there is {name}: {gain:+.2f} points, and {cost:+.2f} on the mean of all metrics."
    )


def average(runs: Runs, metric: str) -> float:
    return 100 * mean(run["metrics"][metric] for run in runs)


def of_all_metrics(runs: Runs) -> list[float]:
    """The mean over metrics and data sets, in percent, for each seed."""
    seeds = sorted({run["seed"] for run in runs})
    return [mean(average([run for run in runs if run["seed"] == seed], metric) for metric in METRICS) for seed in seeds]


def table(rows: dict[str, Runs]) -> str:
    """One row per answer, one column per metric."""
    lines = [f"| | {' | '.join(METRICS.values())} | mean | to default |", "|---|" + "---:|" * (len(METRICS) + 2)]
    baseline = mean(of_all_metrics(next(iter(rows.values()))))
    for answer, runs in rows.items():
        overall = of_all_metrics(runs)
        spread = stdev(overall) if len(overall) > 1 else 0
        cells = [f"{average(runs, metric):.1f}" for metric in METRICS]
        cells += [f"{mean(overall):.2f} ± {spread:.2f}", f"{mean(overall) - baseline:+.2f}"]
        lines.append(f"| {answer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(question: str, rows: dict[str, Runs]) -> Any:
    """Difference of each answer to the default, by metric and data set."""
    default, *answers = rows
    data = sorted({run["data"] for run in rows[default]})
    title = f"{question}: difference to the default"
    figure, axes = new_plot(5 * len(data), 1.4 + 0.5 * len(answers), title, columns=len(data))
    for axis, name in zip(axes, data, strict=True):

        def mean_of(answer: str, metric: str, name: str = name) -> float:
            return average([run for run in rows[answer] if run["data"] == name], metric)

        axis.axvline(0, color=GREY, linewidth=1)
        for number, metric in enumerate(DRAWN):
            values = [mean_of(answer, metric) - mean_of(default, metric) for answer in answers]
            axis.plot(values, range(len(answers)), "osD^"[number], color=COLOURS[number], label=METRICS[metric])
        axis.set(yticks=range(len(answers)), yticklabels=answers, xlabel=f"points on {name}")
        axis.set_ylim(len(answers) - 0.5, -0.5)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure
