"""Measure time and memory of the losses, forward and backward, and compare them with PML's losses and a floor.

    python benchmarks/loss.py run --output benchmarks/results/loss.jsonl
    python benchmarks/loss.py report --output benchmarks/results/loss.jsonl --page docs/results/performance.md

The floor is the least that a contrastive loss does: normalise, one matrix product, log-sum-exp, backward. Memory banks
are compared with the same loss and references. Times are medians; the losses take turns in one process. Memory is the
growth of the resident set to its peak in a fresh process (on a GPU, the growth of the allocated memory).
"""

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from from_examples import make_train_loss, make_train_miner
from loss_cases import (
    BANKS,
    BASELINES,
    BY_LABEL,
    CASES,
    FLOOR,
    HARD_MINER,
    MACL,
    MINER,
    MULTI_SIMILARITY,
    NTXENT,
    PARTS_CASES,
    REFERENCE_ENGINE,
    SAMPLER,
    STATISTICS,
    STATS,
    SUPCON,
    TRAIN,
    TRAIN_CASES,
    Case,
)
from loss_report import write_page
from memory import PeakMemory, machine_name
from pytorch_metric_learning import losses as pml_losses
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from pml_macl import LabelStatistics, losses
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer
from pml_macl.samplers import LabelBalancedSampler

WITH_MEMORY = (FLOOR, SUPCON, MACL, BY_LABEL, *BANKS.values(), STATS, TRAIN)


def contenders(case: Case, device: str) -> tuple[Tensor, dict[str, Callable[[Tensor], object]]]:
    """The embeddings, and the losses and parts to measure: functions of a leaf tensor with the embeddings, by name."""
    generator = torch.Generator().manual_seed(0)

    def multi_hot(rows: int) -> Tensor:
        return (torch.rand(rows, case.classes, generator=generator) < 3.3 / case.classes).to(device)

    embeddings = torch.randn(case.rows, case.size, generator=generator).to(device)
    labels = multi_hot(case.rows)
    classes = torch.randint(case.classes, (case.rows,), generator=generator).to(device)
    reference: dict[str, Tensor] = {}
    ref_classes: dict[str, Tensor] = {}
    if case.references:
        ref_emb = torch.randn(case.references, case.size, generator=generator).to(device)
        reference = {"ref_emb": ref_emb, "ref_labels": multi_hot(case.references)}
        ref_labels = torch.randint(case.classes, (case.references,), generator=generator).to(device)
        ref_classes = {"ref_emb": ref_emb, "ref_labels": ref_labels}
    statistics = LabelStatistics.from_labels(reference.get("ref_labels", labels))

    def floor(leaf: Tensor) -> Tensor:
        query = normalize(leaf)
        others = normalize(ref_emb) if case.references else query
        return (query @ others.T / 0.1).logsumexp(dim=1).mean()

    def of_classes(loss: pml_losses.BaseMetricLossFunction) -> Callable[[Tensor], Tensor]:
        return lambda leaf: loss(leaf, classes, **ref_classes)

    def of_labels(loss: losses.MultiLabelContrastiveLoss) -> Callable[[Tensor], Tensor]:
        loss.to(device)
        return lambda leaf: loss(leaf, labels, **reference)

    def of_bank(loss: losses.MultiLabelContrastiveLoss) -> Callable[[Tensor], Tensor]:
        bank = losses.MultiLabelCrossBatchMemory(loss, case.size, case.classes, case.references).to(device)
        bank.add_to_memory(reference["ref_emb"], reference["ref_labels"])
        return lambda leaf: bank(leaf, labels)

    def make_macl(**options: Any) -> losses.MACLLoss:
        return losses.MACLLoss(label_statistics=statistics, **options)

    weights = {MACL: "cooccurrence", BY_LABEL: "label"}
    found: dict[str, Callable[[Tensor], object]] = {FLOOR: floor, SUPCON: of_classes(pml_losses.SupConLoss())}
    for name, level in weights.items():
        found[name] = of_labels(make_macl(reducer=FrequencyWeightedReducer(level=level)))
        if case.references:
            found[BANKS[name]] = of_bank(make_macl(reducer=FrequencyWeightedReducer(level=level)))
    if case in TRAIN_CASES:
        train_loss, train_miner = make_train_loss("macl", 0.2, statistics).to(device), make_train_miner()
        found[STATS] = of_labels(make_macl(collect_stats=True))
        found[TRAIN] = lambda leaf: train_loss(leaf, labels, train_miner(leaf, labels))
    if max(case.rows, case.references) <= 2048:
        found[MULTI_SIMILARITY] = of_classes(pml_losses.MultiSimilarityLoss())
        if case.rows <= 128:  # it compares each positive pair with each negative pair: 30 GB for 512 rows
            found[NTXENT] = of_classes(pml_losses.NTXentLoss())
        found[REFERENCE_ENGINE] = of_labels(make_macl(engine="reference"))
        found |= {name: of_labels(make(label_statistics=statistics)) for name, make in BASELINES.items()}
    if case in PARTS_CASES:
        miner, hard = LabelOverlapMiner(), LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=16)
        running = LabelStatistics(case.classes).to(device)
        drawn = iter(LabelBalancedSampler(one_hot(classes).repeat(20, 1), case.rows))
        found[MINER] = lambda leaf: miner(leaf, labels)
        found[HARD_MINER] = lambda leaf: hard(leaf, labels)
        found[STATISTICS] = lambda leaf: running.update(labels)
        found[SAMPLER] = lambda leaf: [next(drawn) for _ in range(case.rows)]
    return embeddings, found


def step(part: Callable[[Tensor], object], embeddings: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    leaf = embeddings.clone().requires_grad_()
    if leaf.is_cuda:
        torch.cuda.synchronize()
    started = time.perf_counter()
    loss = part(leaf)
    if isinstance(loss, Tensor):
        loss.backward()
    if leaf.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def memory_growth(case: Case, name: str, device: str) -> float:
    """Peak memory growth of one step, in MiB, in this process."""
    few = Case(references=min(case.references, Case().rows), size=case.size, classes=case.classes)
    warm_up, small = contenders(few, device)
    step(small[name], warm_up)
    embeddings, found = contenders(case, device)
    with PeakMemory(device) as peak:
        step(found[name], embeddings)
    return peak.growth


def measure(case: Case, device: str, repeats: int) -> list[dict]:
    """Measure all losses and parts of a case: one line for each."""
    embeddings, found = contenders(case, device)
    times: dict[str, list[float]] = {name: [] for name in found}
    # The losses with a memory column take turns among themselves, undisturbed by caches and memory of the others.
    closely = [name for name in found if name in WITH_MEMORY]
    for group in (closely, [name for name in found if name not in WITH_MEMORY]):
        for _ in range(repeats + 1):
            for name in group:
                times[name].append(step(found[name], embeddings))
    lines, versions = [], {"torch": torch.__version__, "python": platform.python_version()}
    for name, values in times.items():
        line = {**asdict(case), "device": device, "name": name, "seconds": median(values[1:])}  # the first warms up
        if name in WITH_MEMORY:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                line["memory"] = pool.apply(memory_growth, (case, name, device))
        lines.append({**line, "machine": machine_name(device), **versions})
    return lines


def run(output: Path, device: str, repeats: int, largest: int) -> None:
    """Measure all cases with at most ``largest`` rows and references, and write the lines."""
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for case in CASES:
        if max(case.rows, case.references) > largest:
            continue
        measured = measure(case, device, repeats)
        lines += measured
        base = {line["name"]: line["seconds"] for line in measured}
        print(case)
        for line in measured:
            name, seconds = line["name"], line["seconds"]
            memory = f"{line['memory']:9.0f} MiB" if "memory" in line else ""
            ratios = f"{seconds / base[SUPCON]:8.2f}{seconds / base[FLOOR]:8.2f}"
            print(f"  {name:42}{1e3 * seconds:10.1f} ms{ratios}{memory}", flush=True)
    output.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main(argv: list[str] | None = None) -> None:
    """Run the command ``run`` or ``report``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="measure, and print times and their ratios to PML SupCon and to the floor")
    runner.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    runner.add_argument("--repeats", type=int, default=15)
    runner.add_argument("--largest", type=int, default=65536, help="skip cases with more rows or references")
    report = commands.add_parser("report", help="write the page and its figures")
    report.add_argument("--page", type=Path, required=True)
    for command in (runner, report):
        command.add_argument(
            "--output", type=Path, required=True, help="file of the measurements, one line of JSON each"
        )
    args = parser.parse_args(argv)
    if args.command == "run":
        run(args.output, args.device, args.repeats, args.largest)
    else:
        write_page(args.output, args.page)


if __name__ == "__main__":
    main()
