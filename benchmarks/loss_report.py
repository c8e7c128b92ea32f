"""The page and the picture of what the losses cost."""

import json
from pathlib import Path
from typing import Any

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

from pml_macl.visualization import add_legend, line_style, new_plot

Lines = dict[Case, dict[str, dict[str, Any]]]


def write_page(path: Path, page: Path) -> None:
    """Write the page from the lines of a run.

    Args:
        path: what ``loss.py run`` wrote.
        page: the Markdown page; its picture goes beside it.
    """
    if not path.is_file():
        raise SystemExit(f"error: {path} does not exist; run the benchmark first")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found: Lines = {}
    for line in lines:
        case = Case(*(line[name] for name in ("rows", "references", "size", "classes")))
        found.setdefault(case, {})[line["name"]] = line
    picture = page.parent / f"{page.stem}.png"
    draw(found).savefig(picture, dpi=90)
    first = lines[0]
    parts = [
        "# Performance",
        "What a loss costs, forward and backward, as a ratio to PML's `SupConLoss` (on random class indices) and to a "
        "floor: normalise, one matrix product, log-sum-exp, backward. Medians of runs in one process in which MACL, "
        "PML SupCon and the floor take turns, then the others, on random embeddings and label sets of 3.3 labels; "
        f"{'two CPU cores' if first['device'] == 'cpu' else 'a GPU'}, "
        f"python {first['python']}, torch {first['torch']}. MACL has co-occurrence weights unless label weights are "
        "said. Memory is the growth of the resident set to its peak in a fresh process. The commands:",
        "```\n"
        f"python benchmarks/loss.py run --output {path}\n"
        f"python benchmarks/loss.py report --output {path} --page {page}\n"
        "```",
        NOTES,
        "## MACL",
        table_of_macl(found),
        f"![Time and memory over the number of rows]({picture.name})",
        *memory_bank(found),
        *training(found),
        "## Other losses",
        table_of_losses(found),
        "## Miner, statistics and sampler",
        table_of_parts(found),
        "## Evaluation",
        EVALUATION,
        table_of_evaluation(path.with_name("evaluation.jsonl")),
    ]
    page.write_text("\n\n".join(parts) + "\n")


NOTES = (
    "The fused engine computes value and gradient block by block, so memory grows with the larger side of the batch "
    "and not with the product. Up to 24 classes (128 with label weights), sums over shared labels are matrix "
    "products. With more classes they are added up label by label, which makes the host wait for a GPU once per "
    "block. Nothing else in a training step waits: the first checks of integer labels and of indices do, later ones "
    "are read when they arrive. Under `torch.compile` a step is one graph with boolean labels and statistics that "
    "are given or learnt (`num_classes`); integer labels and frequencies of the batch break the graph. Speed on a "
    "GPU was not measured: that a step reads nothing back was tested on fake CUDA tensors."
)
BANK_NOTES = (
    "`MultiLabelCrossBatchMemory` with a full queue, against the same loss with as many rows as `ref_emb`. One step "
    "enqueues the batch, selects the pairs, computes the loss against the queue and goes backward. Both ratios give "
    "the memory bank as a multiple of `ref_emb`; memory growth below 1 MiB counts as 1 MiB. The two losses take turns. "
    "The queue and the references exist before the measurement, so memory growth holds only what a step adds."
)
TRAIN_NOTES = (
    "MACL that collects statistics (`collect_stats=True`), and what one step of `examples/train.py` computes from the "
    "embeddings: the miner selects all pairs and the loss takes them, and miner, distance and loss collect statistics."
)
EVALUATION = (
    "Four metrics (precision at 1, R-precision, mAP, mAP at R) of N queries among themselves, 17 labels, 128 "
    "dimensions: time and memory of `MultiLabelAccuracyCalculator`, and what PML's calculator and torchmetrics take as "
    "a multiple of it. `python benchmarks/evaluation.py compare --lines benchmarks/results/evaluation.jsonl` measures; "
    "`scale` prints what 20,000 and 100,000 references take, and `approximate` what faiss indices cost in recall and "
    "save in time."
)


def table_of_evaluation(path: Path) -> str:
    """One row per number of queries: our time and memory, and those of the others as multiples."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {(line["rows"], line["name"]): line for line in lines}
    rows = [
        "| N | seconds | MiB | PML, time | PML, memory | torchmetrics, time | torchmetrics, memory |",
        "|---:|" + "---:|" * 6,
    ]
    for number in sorted({line["rows"] for line in lines}):
        ours = found[number, "pml_macl"]
        cells = [f"{ours['seconds']:.3f}", f"{ours['memory']:.0f}"]
        for name in ("pml", "torchmetrics"):
            cells += [
                f"{found[number, name][column] / max(ours[column], 1e-9):.1f}" for column in ("seconds", "memory")
            ]
        rows.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(rows)


def says(case: Case) -> str:
    """The sizes of a case, where they are not the usual ones."""
    words = [f"{case.rows} rows"]
    words += [f"{case.references} references"] * bool(case.references)
    words += [f"{case.size} dimensions"] * (case.size != Case().size)
    words += [f"{case.classes} classes"] * (case.classes != Case().classes)
    return ", ".join(words)


def ratio(lines: dict[str, dict[str, Any]], name: str, base: str) -> str:
    """Time of one as a multiple of the other's."""
    return f"{lines[name]['seconds'] / lines[base]['seconds']:.2f}"


def table_of_macl(found: Lines) -> str:
    """One row per case: times and ratios of MACL, and peak memory."""
    rows = [
        "| | MACL, ms | to PML SupCon | to floor | label weights, ms | to PML SupCon | to floor "
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
    """The section of ``MultiLabelCrossBatchMemory``; nothing for lines that were measured without it."""
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
    """The section of statistics and of the training example; nothing for lines that were measured without them."""
    cases = [case for case in TRAIN_CASES if case in found and TRAIN in found[case]]
    if not cases:
        return []
    heads = [head for case in cases for head in (f"{says(case)}, ms", "to MACL", "MiB")]
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
    rows = [f"| to PML SupCon | {' | '.join(map(says, cases))} |", "|---|" + "---:|" * len(cases)]
    for name in names:
        cells = [ratio(found[case], name, SUPCON) if name in found[case] else "" for case in cases]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def table_of_parts(found: Lines) -> str:
    """One row per part, in milliseconds and as ratios to the floor."""
    cases = [case for case in PARTS_CASES if case in found]
    heads = [head for case in cases for head in (f"{says(case)}, ms", "to floor")]
    rows = [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in PARTS:
        cells = []
        for case in cases:
            cells += [f"{1e3 * found[case][name]['seconds']:.2f}", ratio(found[case], name, FLOOR)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def draw(found: Lines) -> Any:
    """Time and memory over the number of rows, and over that of references."""
    title = "Forward and backward: time and peak memory"
    figure, axes = new_plot(11, 3.8, title, columns=3)
    in_batch = [case for case in CASES if case in found and case == Case(case.rows)]
    bank = [case for case in CASES if case in found and case.references]
    for axis, cases, column, scale in (
        (axes[0], in_batch, "seconds", 1e3),
        (axes[1], in_batch, "memory", 1),
        (axes[2], bank, "memory", 1),
    ):
        for number, name in enumerate((MACL, BY_LABEL, SUPCON, FLOOR)):
            sizes = [case.references or case.rows for case in cases]
            least = 0 if column == "seconds" else 1  # MiB: less is not seen from outside
            values = [max(scale * found[case][name][column], least) for case in cases]
            axis.loglog(sizes, values, marker="o", label=name, **line_style(number))
        axis.set_xticks(sizes, list(map(str, sizes)), rotation=30)
        axis.minorticks_off()
        axis.set(xlabel="references, for 512 rows" if cases is bank else "rows")
        axis.set_ylabel("time [ms]" if column == "seconds" else "peak memory growth [MiB]")
    add_legend(axes[0])
    return figure
