"""Write docs/results/index.md, the start page of the results, from the stored runs of the other benchmarks.

python benchmarks/results_index.py --results benchmarks/results --page docs/results/index.md
"""

import argparse
import json
from pathlib import Path

import trade_off
from figures import THEMES
from generalisation import METHODS as TRAINED
from generalisation_report import PRESETS, by_question, joining, lead_if_all_are_joined, listed_runs
from generalisation_report import test_runs as runs_of_generalisation
from retrieval_findings import (
    METRICS,
    Bounds,
    DataRuns,
    Runs,
    ahead_and_behind,
    in_text,
    interval_bounds,
    means,
    overall_ranks,
)
from retrieval_report import EXPLAINED, each_table, test_runs
from training import read_runs
from words import bounds, data_name, signed

METHODS = (*TRAINED, *PRESETS)
JOINED_WEIGHT = ", joined 0.2"
SEEN, FINE_TUNED, UNSEEN = "all labels seen", "fine-tuned", "unseen labels"
INTRODUCTION = """\
# All results

This page shows which method to choose for your kind of relevance, whether that changes for labels that training has not
seen, and where MACL is ahead or behind. A script computes it from the stored runs."""
BEST_RANKS = (
    "For each question, the methods with the best [mean ranks](#mean-rank). The last two columns name the methods, "
    "without MACL's variants, that are ahead of the best and of plain MACL on more metrics than they are behind "
    "(*ahead / behind*: the number of metrics, of 14, on which the 95 % interval of the difference excludes 0). "
    "*Joined*: the embeddings are joined with [features of the backbone]"
    "(generalisation.md#joined-with-the-features-of-the-backbone) at this weight. *Proxies*: MACL with a [learnt proxy "
    "of each label](../parts/proxy_macl_loss.md)."
)
BEST_JOINED = (
    "Joining helps other methods as well. The next table ranks only methods that are joined at 0.2: the best of MACL's "
    "variants and the best other method."
)
JOINED = "What joining changes:"
PICTURED = ("seen labels", "unseen labels")
PICTURES = (
    "The label mAP of searches by seen labels, then by unseen labels. The vertical line is MACL; a bar is the 95 % "
    "interval of the difference to MACL."
)
BEST = (
    "Each row is a measure of what a search should find; the [metrics](#metrics) are explained below. A cell names the "
    "best method. If that is another one than MACL, the difference of MACL to it follows, in points; if it is no "
    "variant of MACL, also the 95 % interval of the difference (**bold**: it excludes 0). All are heads on frozen "
    "features. *All labels seen*: the methods of [Frozen backbone](frozen.md). *Unseen labels*: the methods of [Unseen "
    "labels, scenes and archives](generalisation.md); training has left out the labels that are searched."
)
RANKS = (
    "The rank of each method, averaged over metrics and data sets; 1 is best. *All labels seen* is a head on frozen "
    "features. [*Fine-tuned*](fine_tuned.md) has fewer methods, so the last column leaves it out. The other columns "
    "are questions of [Unseen labels, scenes and archives](generalisation.md). The pages of single comparisons rank "
    "more methods, so mean ranks are larger there."
)
EACH = (
    "On how many metrics, over both data sets, the 95 % interval of MACL's difference is above 0 and below 0: *ahead / "
    "behind*. The other metrics are undecided."
)
PRESET_EACH = "The same for {} ([how](generalisation.md#joined-with-the-features-of-the-backbone)):"
PAGES = """\
| question | page |
|---|---|
| Which method retrieves best when only a head is trained? | [Frozen backbone](frozen.md) |
| And for labels, scenes and archives that training has not seen, few images, incomplete labels? | \
[Unseen labels, scenes and archives](generalisation.md) |
| And when the whole network is trained? | [Fine-tuned](fine_tuned.md) |
| And without pretrained weights? | [From random weights](random_weights.md) |
| What do database-side augmentation and query expansion add? | [Post-processing](post_processing.md) |
| Which part of MACL matters? | [Ablation](ablation.md) |
| What do the losses, the memory bank and the metrics cost? | [Performance](performance.md) |
| What do searches with label filters cost, compared with faiss alone? | [Search](search.md) |
| How exact is half precision? | [Precision](precision.md) |"""
METHOD = (
    "- Each method gets the same network, optimizer, epochs and batches; learnt proxies have 10 times the learning "
    "rate of the head. One setting per method is chosen on the validation split with a frozen backbone; the other "
    "comparisons use the same settings.\n"
    "- Figures are percentages on the test split. Each test image is a query, and all other test images are its "
    "references. The ablation uses the validation split, because the defaults are chosen from it.\n"
    "- Intervals come from a paired bootstrap over queries and runs. The runs from random weights have two "
    "seeds.\n"
    "- Two data sets are few, and both are aerial photographs. Everything ran on a CPU, so images are small and epochs "
    "are few.\n\n"
    "Each page names the commands behind its figures. This command writes this page:\n\n"
    "```\npython benchmarks/results_index.py --results benchmarks/results --page docs/results/index.md\n```"
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder of head/ and generalisation/")
    parser.add_argument("--page", type=Path, required=True, help="Markdown page")
    args = parser.parse_args(argv)
    known = {**read_intervals(args.results / "head"), **read_intervals(args.results / "generalisation")}
    tuned, tuned_intervals = read_runs(args.results / "finetune"), read_intervals(args.results / "finetune")
    known |= {(f"{FINE_TUNED}, {data}", *names): line for (data, *names), line in tuned_intervals.items()}
    every = runs_of_generalisation(read_runs(args.results / "generalisation"))
    groups = {
        SEEN: test_runs(read_runs(args.results / "head")),
        FINE_TUNED: {f"{FINE_TUNED}, {data}": by_loss for data, by_loss in test_runs(tuned).items()},
        **by_question(listed_runs(every)),
    }
    parts = [INTRODUCTION, "## In short", BEST_RANKS, best_ranks_table(groups, known)]
    joined = {**groups, **by_question(every)}  # the listed methods lack most of the joined ones
    parts += [BEST_JOINED, best_joined_table(joined)]
    parts += [trade_off.explained(every), images(trade_off.CAPTION, "trade_off"), JOINED]
    parts += ["\n".join(f"- {line}" for line in (*joining(every, known), *lead_if_all_are_joined(every, known)))]
    parts += ["## Seen and unseen labels", PICTURES]
    parts += [images(f"Label mAP of each method: {question}", question) for question in PICTURED]
    parts += ["## Which method for which search", BEST, best_table(groups, known)]
    parts += ["## Mean rank", RANKS, rank_table(groups)]
    parts += ["## MACL against each other method", EACH, against_others(groups, known, "MACL")]
    for preset in PRESETS:
        parts += [PRESET_EACH.format(in_text(preset)), against_others(groups, known, preset)]
    parts += ["## Pages", PAGES, "## Metrics", EXPLAINED, "## How the methods are compared", METHOD]
    args.page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def ranks_of(runs: Runs) -> dict[str, float]:
    """The mean ranks of the methods of this page that all data sets have, best method first."""
    methods = [loss for loss in METHODS if all(loss in by_loss for by_loss in runs.values())]
    return overall_ranks({data: {loss: by_loss[loss] for loss in methods} for data, by_loss in runs.items()})


def best_ranks_table(groups: dict[str, Runs], known: Bounds) -> str:
    """For each question, the two methods with the best mean ranks, and the methods that are ahead of MACL."""
    rows = ["| question | methods | best | second | ahead of the best | ahead of MACL |", "|---|---:|---|---|---|---|"]
    for question, runs in groups.items():
        ranks = ranks_of(runs)
        first, second = list(ranks)[:2]
        cells = [question, str(len(ranks)), *(f"{loss} ({ranks[loss]:.1f})" for loss in (first, second))]
        cells += [ahead_of(macl, runs, known) if macl.startswith("MACL") else "" for macl in (first, "MACL")]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def best_joined_table(groups: dict[str, Runs]) -> str:
    """For each question, MACL's best variant and the best other method, if all are joined at the same weight."""
    rows = ["| question | methods | best variant of MACL | best other method |", "|---|---:|---|---|"]
    for question, runs in groups.items():
        shared = set.intersection(*(set(by_loss) for by_loss in runs.values()))
        names = [loss for loss in next(iter(runs.values())) if loss in shared and loss.endswith(JOINED_WEIGHT)]
        ranks = overall_ranks({data: {loss: by_loss[loss] for loss in names} for data, by_loss in runs.items()})
        cells = []
        for is_macl in (True, False):
            best = next(loss for loss in ranks if loss.startswith("MACL") == is_macl)
            mark = "**" * (ranks[best] == min(ranks.values()))
            cells.append(f"{mark}{best.removesuffix(JOINED_WEIGHT)} ({ranks[best]:.1f}){mark}")
        rows.append(f"| {question} | {len(names)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def ahead_of(macl: str, runs: Runs, known: Bounds) -> str:
    """The methods that are ahead of a MACL variant on more metrics than they are behind, with both numbers."""
    others = [loss for loss in ranks_of(runs) if not loss.startswith("MACL")]
    counts = {other: ahead_and_behind(runs, known, macl, other) for other in others}
    return (
        "; ".join(f"{other} ({behind} / {ahead})" for other, (ahead, behind) in counts.items() if behind > ahead)
        or "none"
    )


def images(caption: str, name: str) -> str:
    """A figure of the page about generalisation."""
    start = f"generalisation-{name.replace(' ', '_')}"
    return "\n".join(f"![{caption}]({start}-{mode}.svg#only-{mode})" for mode in THEMES)


def read_intervals(folder: Path) -> Bounds:
    lines = (folder / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()
    return interval_bounds([json.loads(line) for line in lines])


def best_table(groups: dict[str, Runs], known: Bounds) -> str:
    """The best method for each metric, with seen and with unseen labels, on each data set."""
    columns = [(group, data) for group in (SEEN, UNSEEN) for data in groups[group]]
    titles = [f"{SEEN}, {data_name(data)}" if group == SEEN else data for group, data in columns]
    rows = [f"| metric | {' | '.join(titles)} |", "|---|" + "---|" * len(columns)]
    for metric, title in METRICS.items():
        cells = [best_cell(data, groups[group][data], metric, known) for group, data in columns]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def best_cell(data: str, by_loss: DataRuns, metric: str, known: Bounds) -> str:
    values = means(by_loss, metric)
    best = max(values, key=values.__getitem__)
    text = f"{in_text(best)} {100 * values[best]:.1f}"
    if best == "MACL":
        return text
    text += f"; MACL {signed(100 * (values['MACL'] - values[best]))}"
    line = known.get((data, metric, "MACL", best))
    if line is None:  # weighted MACL
        return text
    mark = "**" * (line["low"] > 0 or line["high"] < 0)
    return f"{text} ({mark}{bounds(100 * line['low'], 100 * line['high'])}{mark})"


def against_others(groups: dict[str, Runs], known: Bounds, macl: str) -> str:
    """How often a MACL variant is ahead of each other method and behind it, by question."""
    return each_table(groups, known, {other: (macl, other) for other in METHODS if not other.startswith("MACL")})


def rank_table(groups: dict[str, Runs]) -> str:
    ranks = {group: ranks_of(runs) for group, runs in groups.items()}
    complete = [part for part in ranks.values() if len(part) == len(METHODS)]
    overall = {loss: sum(part[loss] for part in complete) / len(complete) for loss in METHODS}
    rows = [f"| method | {' | '.join(ranks)} | mean |", "|---|" + "---:|" * (len(ranks) + 1)]
    for loss in sorted(overall, key=overall.__getitem__):
        cells = [f"{part[loss]:.1f}" if loss in part else "" for part in (*ranks.values(), overall)]
        rows.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
