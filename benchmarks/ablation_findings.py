"""Effect of each setting of an ablation on the mean of all metrics, and sentences computed from these effects."""

import re
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

from retrieval_findings import METRICS
from words import counted, signed

Runs = list[dict[str, Any]]
# 97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom; more seeds use the last one.
T_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
LARGE = 1.0  # points
CONTROL = " (negative control)"
GROUPS = {"helps": "Helps", "hurts": "Hurts", "little": "Changes little", "unclear": "No measurable effect"}
NAMES = {
    "off": "`power=0` (no weights)",
    "label level": '`level="label"`',
    "label level, power 0.5": '`level="label"`, `power=0.5`',
    "linear 0.2 to 0.05": "linear, 0.2 to 0.05",
    "cosine 0.2 to 0.05": "cosine, 0.2 to 0.05",
    "linear 0.05 to 0.2": "linear, 0.05 to 0.2",
    "positive 0.25, negative 1": "`positive_threshold=0.25`, `negative_threshold=1`",
    "positive 0.5, negative 1": "`positive_threshold=0.5`, `negative_threshold=1`",
    "label-balanced": "`LabelBalancedSampler`",
}


@dataclass(frozen=True)
class Effect:
    """Change that one setting makes to the mean of all metrics, in points.

    Args:
        name: the setting, as the page writes it.
        difference: mean over seeds of the paired difference to the default.
        noise: half of the width of the 95 % interval; None with a single seed.
        by_data: the difference on each data set.
        is_control: whether the setting is a negative control, which is wrong on purpose.
    """

    name: str
    difference: float
    noise: float | None
    by_data: dict[str, float]
    is_control: bool

    @property
    def group(self) -> str:
        """The key of ``GROUPS`` that fits the effect: its interval includes 0, or it is small, or it is large."""
        if self.noise is None or abs(self.difference) <= self.noise:
            return "unclear"
        if abs(self.difference) < LARGE:
            return "little"
        return "helps" if self.difference > 0 else "hurts"


def setting_name(question: str, answer: str) -> str:
    """An answer as the page writes it: ``power 0.5`` becomes `` `power=0.5` ``."""
    if answer.startswith("wrong sign, "):
        return f"{setting_name(question, answer.removeprefix('wrong sign, '))}{CONTROL}"
    if answer == "default":
        return answer
    if question == "batch size":
        return f"`batch_size={answer}`"
    if question == "negatives":
        return f"{answer} negatives"
    return NAMES.get(answer, re.sub(r"^(\w+) (-?[\d.]+)$", r"`\1=\2`", answer))


def average(runs: Runs, metric: str) -> float:
    """The mean of a metric over runs, in percent."""
    return 100 * mean(run["metrics"][metric] for run in runs)


def of_all_metrics(runs: Runs) -> list[float]:
    """The mean over metrics and data sets, in percent, for each seed."""
    seeds = sorted({run["seed"] for run in runs})
    return [mean(average([run for run in runs if run["seed"] == seed], metric) for metric in METRICS) for seed in seeds]


def effect(question: str, answer: str, runs: Runs, default: Runs) -> Effect:
    """Compare the runs of an answer with those of the default, seed by seed."""
    differences = [ours - base for ours, base in zip(of_all_metrics(runs), of_all_metrics(default), strict=True)]
    noise = None
    if len(differences) > 1:
        quantile = T_QUANTILES[min(len(differences) - 1, len(T_QUANTILES)) - 1]
        noise = quantile * stdev(differences) / sqrt(len(differences))
    by_data = {}
    for name in sorted({run["data"] for run in default}):
        part, base = ([run for run in group if run["data"] == name] for group in (runs, default))
        by_data[name] = mean(of_all_metrics(part)) - mean(of_all_metrics(base))
    control = answer.startswith("wrong sign")
    name = f"{question}: {setting_name(question, answer)}"
    return Effect(name, mean(differences), noise, by_data, control)


def conclusion(effects: list[Effect]) -> str:
    """A list of what helps, what hurts, what changes little, and how much the rest changes.

    Args:
        effects: the effects, from the largest gain to the largest loss.
    """
    tested = [part for part in effects if not part.is_control]
    lines = []
    for group, title in GROUPS.items():
        found = [f"{part.name} ({signed(part.difference, 2)})" for part in tested if part.group == group]
        found = found[::-1] if group == "hurts" else found
        said = "; ".join(found) or "no setting"
        if group == "unclear" and len(found) > 1:
            said = f"{len(found)} of {counted(len(tested), 'setting')}, from {found[0]} to {found[-1]}"
        lines.append(f"**{title}** ({meaning(group)}): {said}.")
    controls = [
        f"{part.name.removesuffix(CONTROL)} ({signed(part.difference, 2)})" for part in effects if part.is_control
    ]
    if controls:
        lines.append(f"**Wrong on purpose** (the temperature falls with the label overlap): {'; '.join(controls)}.")
    best = max((part for part in tested if part.group != "unclear"), key=lambda part: part.difference, default=None)
    if best is None or best.difference <= 0:
        lines.append("No setting is above the default by more than the noise.")
    else:
        lines.append(f"The largest gain that exceeds the noise is that of {best.name}.")
    return "\n".join(f"- {line}" for line in lines)


def meaning(group: str) -> str:
    """What the effects of a group have in common."""
    if group == "unclear":
        return "the interval includes 0"
    return f"{'less than' if group == 'little' else 'at least'} {LARGE:g} point, and the interval excludes 0"
