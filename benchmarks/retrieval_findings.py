"""Sentences about the retrieval benchmark, computed from its runs so that they cannot contradict the tables."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean
from typing import Any

import numpy as np
from retrieval_losses import LOSSES, UNTRAINED
from training import AT_K
from words import counted, data_name, listed, signed

METRICS = {
    "map_any": "mAP, shares a label",
    "map_jaccard_50": "mAP, Jaccard >= 0.5",
    "map_exact": "mAP, same label set",
    "ndcg": "nDCG",
    "ndcg_jaccard_20": "nDCG@20, Jaccard gains",
    "label_map": "label mAP",
    "label_map_tail": "label mAP, rarest third",
}
RECALLS = {
    "any_1": "R@1, shares a label",
    **{f"jaccard_50_{k}": f"R@{k}, Jaccard >= 0.5" for k in AT_K},
    **{f"exact_{k}": f"R@{k}, same label set" for k in AT_K},
}
DataRuns = dict[str, list[dict[str, Any]]]  # by loss
Runs = dict[str, DataRuns]  # by data set
Bounds = dict[tuple[str, str, str, str], dict[str, Any]]


def in_text(loss: str) -> str:
    """The name of a method inside a sentence."""
    if ", joined " in loss:
        method, _, weight = loss.partition(", joined ")
        return f"{in_text(method)} joined with features, w = {weight}"
    if loss.startswith("Classifier, "):
        return f"the classifier's {loss.removeprefix('Classifier, ')}"
    names = {
        "MACL, weighted": "weighted MACL",
        "MACL, proxies": "MACL with proxies",
        "MACL, frequency Jaccard": "MACL with frequency Jaccard",
        UNTRAINED: "features without training",
    }
    return names.get(loss, loss)


def means(by_loss: DataRuns, metric: str, group: str = "metrics") -> dict[str, float]:
    """The mean of a metric over seeds, for each loss; ``group`` is "metrics" or "recall"."""
    return {loss: mean(run[group][metric] for run in runs) for loss, runs in by_loss.items()}


def mean_of_all(metrics: dict[str, float]) -> float:
    """The mean of the metrics of a run, in percent."""
    return 100 * mean(metrics[metric] for metric in METRICS)


def best_pair(by_loss: DataRuns, metric: str) -> tuple[str, str, float]:
    """The best MACL variant, the best other loss, and the difference of their means in points."""
    values = means(by_loss, metric)
    macl = max((loss for loss in values if loss.startswith("MACL")), key=values.__getitem__)
    other = max((loss for loss in values if not loss.startswith("MACL")), key=values.__getitem__)
    return macl, other, 100 * (values[macl] - values[other])


def ahead_and_behind(runs: Runs, known: Bounds, macl: str, other: str) -> tuple[int, int]:
    """The number of metrics, over all data sets, on which the interval of MACL's difference is above and below 0."""
    intervals = [known[data, metric, macl, other] for data in runs for metric in METRICS]
    return sum(line["low"] > 0 for line in intervals), sum(line["high"] < 0 for line in intervals)


def interval_bounds(intervals: list[dict[str, Any]]) -> Bounds:
    """The lines of ``comparisons.jsonl``, by data set, metric and the two losses."""
    return {(line["data"], line["metric"], line["macl"], line["other"]): line for line in intervals}


def mean_ranks(runs: Runs) -> dict[str, dict[str, float]]:
    """The mean rank of each loss over metrics, by data set; 1 is best."""
    found = {}
    for data, by_loss in runs.items():
        ranks = defaultdict(list)
        for metric in METRICS:
            values = means(by_loss, metric)
            for loss, value in values.items():
                ranks[loss].append(1 + sum(other > value for other in values.values()))
        found[data] = {loss: mean(numbers) for loss, numbers in ranks.items()}
    return found


def overall_ranks(runs: Runs) -> dict[str, float]:
    """The mean rank of each loss over metrics and data sets, best loss first."""
    by_data = mean_ranks(runs).values()
    overall = {loss: mean(part[loss] for part in by_data) for loss in next(iter(by_data))}
    return dict(sorted(overall.items(), key=lambda item: item[1]))


def findings(runs: Runs, intervals: list[dict[str, Any]]) -> str:
    """A list of what the tables of the page show."""
    lines = [verdict(data, by_loss, interval_bounds(intervals)) for data, by_loss in runs.items()]
    ranks = overall_ranks(runs)
    best = [f"{in_text(loss)} ({rank:.1f})" for loss, rank in list(ranks.items())[:3]]
    lines.append(against_each_method(runs, interval_bounds(intervals)))
    over = "metrics and data sets" if len(runs) > 1 else "metrics"
    lines.append(f"**Mean rank** over {over}, of {counted(len(ranks), 'method')}. The best are {listed(best)}.")
    lines.append(" ".join(["**Range.**", *(spread(data, by_loss) for data, by_loss in runs.items())]))
    lines += [last_epoch(data, by_loss) for data, by_loss in runs.items()]
    return "\n".join(f"- {line}" for line in lines if line)


def verdict(data: str, by_loss: DataRuns, known: Bounds) -> str:
    """On which metrics the best MACL variant is ahead of the best other loss, and on which it is behind."""
    groups: dict[str, list[tuple[float, str]]] = {"ahead": [], "behind": [], "unclear": []}
    for metric, title in METRICS.items():
        macl, other, difference = best_pair(by_loss, metric)
        low = high = difference
        if known:
            low, high = (known[data, metric, macl, other][side] for side in ("low", "high"))
        group = "ahead" if low > 0 else "behind" if high < 0 else "unclear"
        name = f", {in_text(other)}" if group == "behind" else ""
        groups[group].append((-abs(difference), f"{title} ({signed(difference)}{name})"))
    said = {group: "; ".join(text for _, text in sorted(found)) for group, found in groups.items() if found}
    ahead = len(groups["ahead"])
    if ahead:
        sentences = [
            f"One of MACL's variants is ahead of every other method on {ahead} of {len(METRICS)} metrics, in points: "
            f"{said['ahead']}."
        ]
    else:
        sentences = ["None of MACL's variants is ahead of every other method on any metric."]
    if "behind" in said:
        sentences.append(f"Another method is ahead on: {said['behind']}.")
    if "unclear" in said:
        reason = "The interval of the difference includes 0" if known else "The best methods are equal"
        sentences.append(f"{reason} on: {said['unclear']}.")
    if not known:
        sentences.append("There are no intervals, so these differences may be chance.")
    return " ".join([f"**{data_name(data)}.**", *sentences])


def against_each_method(runs: Runs, known: Bounds) -> str:
    """The methods that are ahead of MACL on most metrics; empty if ``comparisons.jsonl`` lacks a pair."""
    others = [loss for loss in next(iter(runs.values())) if not loss.startswith("MACL")]
    if not has_all_pairs(runs, known, others):
        return ""
    counts = {other: ahead_and_behind(runs, known, "MACL", other) for other in others}
    total = len(runs) * len(METRICS)
    worse = [in_text(other) for other, (ahead, behind) in counts.items() if behind >= ahead]
    verdict = f"MACL is not ahead of {listed(worse)} on more" if worse else "MACL is ahead of each other method on more"
    most = max(counts, key=lambda other: counts[other][1])
    ahead, behind = counts[most]
    return (
        f"**MACL against each method.** {verdict} metrics than it is behind. It is behind on the most metrics against "
        f"{in_text(most)}: behind on {behind} of {total}, ahead on {ahead}."
    )


def has_all_pairs(runs: Runs, known: Bounds, others: Iterable[str]) -> bool:
    """Whether there is an interval for MACL against each of these methods, on each metric and data set."""
    return all((data, metric, "MACL", other) in known for data in runs for metric in METRICS for other in others)


def spread(data: str, by_loss: DataRuns) -> str:
    """On which metric the losses differ most and least."""
    ranges = {}
    for metric in METRICS:
        values = means(by_loss, metric).values()
        ranges[metric] = 100 * (max(values) - min(values))
    least, most = min(ranges, key=ranges.__getitem__), max(ranges, key=ranges.__getitem__)
    return (
        f"On {data_name(data)}, the best and the worst method are {ranges[most]:.1f} points apart on {METRICS[most]}, "
        f"but only {ranges[least]:.1f} on {METRICS[least]}."
    )


def last_epoch(data: str, by_loss: DataRuns) -> str:
    """How much the last epoch still changes the label mAP on the validation split; empty for runs of one epoch."""
    changes = {}
    for loss, runs in by_loss.items():
        curve = 100 * np.mean([run["curve"] for run in runs], axis=0)
        if len(curve) > 1:
            changes[loss] = curve[-1] - curve[-2]
    if not changes:
        return ""
    least, most = min(changes, key=changes.__getitem__), max(changes, key=changes.__getitem__)
    gaining = sum(change > 1 for change in changes.values())
    conclusion = "No method still gains more than 1 point."
    if gaining:
        conclusion = (
            f"{gaining} of {counted(len(changes), 'method')} still gain more than 1 point, so longer training may "
            "change the order."
        )
    return (
        f"**Training length on {data_name(data)}.** The last epoch changes the label mAP on the validation split by "
        f"{signed(changes[least])} ({in_text(least)}) to {signed(changes[most])} points ({in_text(most)}). {conclusion}"
    )


def at_an_edge(loss: str, value: float) -> bool:
    """Whether the value is the smallest or the largest that was tried."""
    grid = LOSSES[loss].grid
    return len(grid) > 1 and value in (min(grid), max(grid))


def edges(runs: Runs, tuned: list[dict[str, Any]]) -> str:
    """How much the values at an edge of their grid may matter.

    Args:
        runs: the runs on the test split.
        tuned: the runs on the validation split; without them the result only points to the page that has them.
    """
    if not tuned:
        return "Validation chose these settings [on frozen features](frozen.md#settings-of-the-losses)."
    chosen = [(data, loss, group[0]["value"]) for data, by_loss in runs.items() for loss, group in by_loss.items()]
    found = [(data, loss, value) for data, loss, value in chosen if at_an_edge(loss, value)]
    if not found:
        return "No method uses a value at an edge of its grid."
    note = (
        "**Bold**: the value is at an edge of the grid, so a value outside the grid may be better "
        f"({len({loss for _, loss, _ in found})} of {counted(len(next(iter(runs.values()))), 'method')})."
    )
    rows = [
        "| method | data set | value | next value | gain of the last step | behind MACL on the test split |",
        "|---|---|---:|---:|---:|---:|",
    ]
    passing = []
    for data, loss, value in found:
        grid = sorted(LOSSES[loss].grid)
        inner = grid[1] if value == grid[0] else grid[-2]
        by_value = {
            run["value"]: mean_of_all(run["metrics"]) for run in tuned if (run["data"], run["loss"]) == (data, loss)
        }
        if not {value, inner} <= by_value.keys():
            continue
        gain = by_value[value] - by_value[inner]
        ours, theirs = (mean(mean_of_all(run["metrics"]) for run in runs[data][name]) for name in ("MACL", loss))
        rows.append(
            f"| {loss} | {data_name(data)} | {value} | {inner} | {signed(gain, 2)} | {signed(ours - theirs, 2)} |"
        )
        if not loss.startswith("MACL") and 0 <= ours - theirs < gain:
            passing.append(f"{loss} on {data_name(data)}")
    passed = listed(passing) if passing else "no method that is behind it"
    return (
        f"{note} The table shows, in points of the mean of all metrics, what the step from the next value to the edge "
        "gained on the validation split with the one tuning seed, and how far the method is behind MACL. If one more "
        f"step gained as much again on the test split, {passed} would pass MACL.\n\n" + "\n".join(rows)
    )
