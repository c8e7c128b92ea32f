"""Write the measured times and memory of losses and metrics as a Markdown page."""

import json
from pathlib import Path
from typing import Any

from figures import TYPE_SIZE, Theme, new_figure, save_figure
from loss_cases import (
    BANKS,
    BASELINES,
    BY_LABEL,
    CASES,
    FLOOR,
    MACL,
    MULTI_SIMILARITY,
    NTXENT,
    PARTS,
    PARTS_CASES,
    REFERENCE_ENGINE,
    STATS,
    SUPCON,
    TRAIN,
    TRAIN_CASES,
    Case,
)
from scale_report import large_archives
from words import listed

Lines = dict[Case, dict[str, dict[str, Any]]]
Evaluation = dict[tuple[int, str], dict[str, Any]]  # by number of queries and library


def write_page(path: Path, page: Path, command: str | None = None) -> None:
    """Write the page from the lines of a run.

    Args:
        path: the file that ``loss.py run`` wrote. ``evaluation.jsonl`` is beside it.
        page: the Markdown page. A light and a dark figure go beside it.
        command: the command that made this page; None names the commands of each measurement.
    """
    if not path.is_file():
        raise SystemExit(f"error: {path} does not exist; run the benchmark first")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found: Lines = {}
    for line in lines:
        case = Case(*(line[name] for name in ("rows", "references", "size", "classes")))
        found.setdefault(case, {})[line["name"]] = line
    measured = [json.loads(line) for line in path.with_name("evaluation.jsonl").read_text().splitlines()]
    evaluation = {(line["rows"], line["name"]): line for line in measured}
    caption = "Time and memory of a step with MACL and with PML's SupConLoss over the number of rows"
    device = lines[0].get("machine", "two CPU cores")
    parts = [
        "# Performance",
        "This page shows what a training step with MACL costs compared with PML's losses, and what the metrics cost "
        f"compared with other libraries. All numbers are from {device}."
        + " Nothing was timed on a GPU; `python benchmarks/gpu.py --output FOLDER` measures the same there."
        * (lines[0]["device"] == "cpu"),
        "## What the numbers say",
        findings(found, evaluation),
        "## What is compared",
        COMPARED,
        "## MACL and PML's SupConLoss",
        TABLE_NOTES,
        table_of_macl(found),
        "The figure shows the same for batches without references:",
        save_figure(lambda theme: draw(found, theme), page, page.stem, caption),
        NOTES,
        *memory_bank(found),
        *training(found),
        "## Other losses",
        "Time of a step as a multiple of PML's `SupConLoss`. Empty cells were not measured.",
        table_of_losses(found),
        "## Miner, statistics and sampler",
        "Time of one call, in milliseconds and as a multiple of the floor of the same size.",
        table_of_parts(found),
        "## Evaluation",
        EVALUATION,
        table_of_evaluation(evaluation),
        *large_archives(path.with_name("evaluation_scale.jsonl")),
        "## How it was measured",
        method(lines[0], device, path, page, command),
    ]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


COMPARED = """\
| name | what one step does |
|---|---|
| MACL | `MACLLoss` with its defaults, whose weights count co-occurrences of labels |
| MACL, label weights | `MACLLoss` with `FrequencyWeightedReducer(level="label")` |
| PML SupCon | PML's `SupConLoss`, with one random class per row instead of a label set |
| floor | the least that a contrastive loss does: normalise, one matrix product, log-sum-exp, backward |

A step is the forward and the backward pass of the loss alone, without a network. A batch has 17 classes, 3.3 labels per
row and embeddings of 128 dimensions, unless the table says otherwise."""
TABLE_NOTES = (
    "Time is in milliseconds. The ratios divide it by the time of PML SupCon and of the floor. Memory is the peak "
    "growth during a step."
)
NOTES = (
    "MACL computes the loss and its gradient in blocks. Its memory therefore grows with the number of rows or "
    "references, not with their product. Up to 24 classes (128 with label weights), matrix products sum over shared "
    "labels; with more classes, a loop over labels does. On a GPU, that loop makes the host wait once per block. "
    "Besides it, only the first checks of integer labels and of indices make the host wait; later checks are read when "
    "their results arrive. Under `torch.compile`, a step is one graph if the labels are boolean and the statistics are "
    "given or collected (`num_classes`). Integer labels and frequencies of the batch break the graph."
)
BANK_NOTES = (
    "The table compares `MultiLabelCrossBatchMemory` with a full queue to the same loss with as many rows as "
    "`ref_emb`. A step adds the batch to the queue, selects the pairs, and computes the loss against the queue. The "
    "ratios are memory bank to `ref_emb`; memory growth below 1 MiB counts as 1 MiB. The queue and the references "
    "exist before the step, so they are not part of its memory growth."
)
TRAIN_NOTES = (
    "The second row is MACL with `collect_stats=True`. The third row is what a step of `examples/train.py` computes "
    "from the embeddings: the miner selects all pairs, the loss uses them, and miner, distance and loss collect "
    "statistics."
)
EVALUATION = (
    "Each row evaluates precision at 1, R-precision, mAP and mAP at R of N queries among themselves (17 labels, 128 "
    "dimensions). torchmetrics has no mAP at R and computes the other three. Seconds and MiB are those of "
    "`MultiLabelAccuracyCalculator`. The other columns are multiples of them, for PML's `AccuracyCalculator` and for "
    "torchmetrics."
)


def findings(found: Lines, evaluation: Evaluation) -> str:
    """A list of what the tables of the page show."""
    batches = [case for case in CASES if case in found and case == Case(case.rows)]
    small, large = batches[0], batches[-1]
    times = {case: times_of(found[case], MACL, SUPCON) for case in CASES if case in found}
    slow = [f"{says(case)} ({time:.2f} times)" for case, time in times.items() if time > 1]
    time, memory = times[large], [found[large][name]["memory"] for name in (MACL, SUPCON)]
    lines = [
        f"**Time.** A step with MACL takes {times[small]:.2f} times as long as PML SupCon at {says(small)} and "
        f"{time:.2f} times as long at {says(large)}. It takes longer than PML SupCon at these sizes: "
        f"{'; '.join(slow) or 'none'}.",
        f"**Memory.** At {says(large)}, a step needs {memory[0]:.0f} MiB with MACL and {memory[1]:.0f} MiB with PML "
        "SupCon.",
    ]
    banks = [times_of(part, bank, name) for part in found.values() for name, bank in BANKS.items() if bank in part]
    if banks:
        lines.append(
            f"**Memory bank.** A step takes {min(banks):.2f} to {max(banks):.2f} times as long as with `ref_emb`."
        )
    trained = [(case, times_of(found[case], TRAIN, MACL)) for case in TRAIN_CASES if TRAIN in found.get(case, {})]
    if trained:
        said = listed([f"{ratio:.2f} times as long at {says(case)}" for case, ratio in trained])
        lines.append(
            f"**Miner and statistics.** With both, as in `examples/train.py`, a step of the loss takes {said}."
        )
    rows = sorted({number for number, _ in evaluation})
    for name, title in (("pml", "PML's `AccuracyCalculator`"), ("torchmetrics", "torchmetrics")):
        ratios = [evaluation[row, name]["seconds"] / evaluation[row, "pml_macl"]["seconds"] for row in rows]
        lines.append(
            f"**Evaluation.** With {title}, evaluation takes {min(ratios):.0f} to {max(ratios):.0f} times as long as "
            f"with `MultiLabelAccuracyCalculator`, for {rows[0]} to {rows[-1]} queries."
        )
    return "\n".join(f"- {line}" for line in lines)


def method(first: dict[str, Any], device: str, path: Path, page: Path, command: str | None) -> str:
    """How times and memory are measured, and the commands."""
    memory = "growth of the resident set to its peak during one step, in a fresh process"
    if first["device"] == "cuda":
        memory = "growth of the memory that torch allocated on the GPU to its peak during one step"
    said = f"This command writes this page:\n\n```\n{command}\n```"
    if command is None:
        said = (
            "The commands, of which the second writes this page:\n\n"
            "```\n"
            f"python benchmarks/loss.py run --output {path}\n"
            f"python benchmarks/loss.py report --output {path} --page {page}\n"
            f"python benchmarks/evaluation.py compare --lines {path.with_name('evaluation.jsonl')}\n"
            f"python benchmarks/evaluation_scale.py --output {path.with_name('evaluation_scale.jsonl')}\n"
            "python benchmarks/evaluation.py approximate  # prints recall and time of faiss indices\n"
            "```"
        )
    return (
        f"- **Time:** median over runs in one process on {device}. The losses take turns: first those with a memory "
        "column, then the others. The first run of each loss does not count.\n"
        f"- **Memory:** {memory}.\n"
        "- **Evaluation:** fastest run of several, in a fresh process.\n"
        f"- **Versions:** python {first['python']}, torch {first['torch']}.\n\n"
        f"{said}"
    )


def table_of_evaluation(found: Evaluation) -> str:
    """One row per number of queries: time and memory, and those of the other libraries as multiples."""
    rows = [
        "| N | seconds | MiB | PML, time | PML, memory | torchmetrics, time | torchmetrics, memory |",
        "|---:|" + "---:|" * 6,
    ]
    for number in sorted({rows for rows, _ in found}):
        ours = found[number, "pml_macl"]
        cells = [f"{ours['seconds']:.3f}", f"{ours['memory']:.0f}"]
        for name in ("pml", "torchmetrics"):
            cells += [
                f"{found[number, name][column] / max(ours[column], 1e-9):.1f}" for column in ("seconds", "memory")
            ]
        rows.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(rows)


def says(case: Case) -> str:
    """The sizes of a case; dimensions and classes only if they are not the usual ones."""
    words = [f"{case.rows} rows"]
    words += [f"{case.references} references"] * bool(case.references)
    words += [f"{case.size} dimensions"] * (case.size != Case().size)
    words += [f"{case.classes} classes"] * (case.classes != Case().classes)
    return ", ".join(words)


def times_of(lines: dict[str, dict[str, Any]], name: str, base: str) -> float:
    """The time of one part as a multiple of another's."""
    return lines[name]["seconds"] / lines[base]["seconds"]


def ratio(lines: dict[str, dict[str, Any]], name: str, base: str) -> str:
    """The same as text."""
    return f"{times_of(lines, name, base):.2f}"


def table_of_macl(found: Lines) -> str:
    """One row per case: times and ratios of MACL, and peak memory."""
    rows = [
        "| | MACL, ms | ratio to PML SupCon | ratio to floor "
        "| label weights, ms | ratio to PML SupCon | ratio to floor "
        "| MACL, MiB | PML SupCon, MiB |",
        "|---|" + "---:|" * 8,
    ]
    for case in CASES:
        if case not in found:
            continue
        lines = found[case]
        cells = []
        for name in (MACL, BY_LABEL):
            cells += [f"{1e3 * lines[name]['seconds']:.1f}", ratio(lines, name, SUPCON), ratio(lines, name, FLOOR)]
        cells += [f"{lines[name]['memory']:.0f}" for name in (MACL, SUPCON)]
        rows.append(f"| {says(case)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def memory_bank(found: Lines) -> list[str]:
    """The section of ``MultiLabelCrossBatchMemory``; empty if it was not measured."""
    cases = [case for case in CASES if case.references and case in found and BANKS[MACL] in found[case]]
    if not cases:
        return []
    rows = [
        "| | weights | ref_emb, ms | memory bank, ms | time ratio | ref_emb, MiB | memory bank, MiB | memory ratio |",
        "|---|---|" + "---:|" * 6,
    ]
    for case in cases:
        for name, weights in ((MACL, "co-occurrences"), (BY_LABEL, "labels")):
            alone, bank = found[case][name], found[case][BANKS[name]]
            cells = [f"{1e3 * line['seconds']:.1f}" for line in (alone, bank)]
            cells.append(ratio(found[case], BANKS[name], name))
            cells += [f"{line['memory']:.0f}" for line in (alone, bank)]
            cells.append(f"{max(bank['memory'], 1) / max(alone['memory'], 1):.2f}")
            rows.append(f"| {says(case)} | {weights} | {' | '.join(cells)} |")
    return ["## Memory bank", BANK_NOTES, "\n".join(rows)]


def training(found: Lines) -> list[str]:
    """The section of statistics and of the training example; empty if they were not measured."""
    cases = [case for case in TRAIN_CASES if case in found and TRAIN in found[case]]
    if not cases:
        return []
    heads = [head for case in cases for head in (f"{says(case)}, ms", "ratio to MACL", "MiB")]
    rows = [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in (MACL, STATS, TRAIN):
        cells = []
        for case in cases:
            line = found[case][name]
            cells += [f"{1e3 * line['seconds']:.1f}", ratio(found[case], name, MACL), f"{line['memory']:.0f}"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return ["## Statistics and the training example", TRAIN_NOTES, "\n".join(rows)]


def table_of_losses(found: Lines) -> str:
    """One row per loss, one column per batch size, as ratios to PML SupCon."""
    cases = [case for case in (Case(128), Case(512), Case(2048)) if case in found]
    names = [REFERENCE_ENGINE, *BASELINES, MULTI_SIMILARITY, NTXENT]
    rows = [f"| ratio to PML SupCon | {' | '.join(map(says, cases))} |", "|---|" + "---:|" * len(cases)]
    for name in names:
        cells = [ratio(found[case], name, SUPCON) if name in found[case] else "" for case in cases]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def table_of_parts(found: Lines) -> str:
    """One row per part, in milliseconds and as ratios to the floor."""
    cases = [case for case in PARTS_CASES if case in found]
    heads = [head for case in cases for head in (f"{says(case)}, ms", "ratio to floor")]
    rows = [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in PARTS:
        cells = []
        for case in cases:
            cells += [f"{1e3 * found[case][name]['seconds']:.2f}", ratio(found[case], name, FLOOR)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(found: Lines, theme: Theme) -> Any:
    """Time and memory of MACL and of PML SupCon over the number of rows."""
    figure, axes = new_figure(theme, 4.8, panels=2)
    cases = [case for case in CASES if case in found and case == Case(case.rows)]
    sizes = [case.rows for case in cases]
    for axis, column, scale in ((axes[0], "seconds", 1e3), (axes[1], "memory", 1)):
        least = 0 if column == "seconds" else 1  # MiB: smaller growth cannot be measured
        for number, (name, marker) in enumerate(((MACL, "o"), (SUPCON, "s"))):
            values = [max(scale * found[case][name][column], least) for case in cases]
            colour = theme.colours[number]
            axis.loglog(sizes, values, marker=marker, color=colour)
            place, offset = (sizes[-1], values[-1]), (8, 0)
            axis.annotate(
                name, place, offset, textcoords="offset points", color=colour, fontsize=TYPE_SIZE, va="center"
            )
        axis.set_xticks(sizes, list(map(str, sizes)))
        axis.minorticks_off()
        axis.grid(color=theme.grid)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_ylabel("time [ms]" if column == "seconds" else "memory [MiB]")
    axes[-1].set_xlabel("rows in the batch")
    return figure
