"""Time of MACL's engines against PML's SupConLoss and a floor, forward and backward, interleaved in one process.

    python benchmarks/loss.py [--sizes 512 2048 4096] [--memory]

The floor normalises, multiplies once, takes a log-sum-exp and goes backward.
"""

import argparse
import resource
import time
from collections.abc import Callable
from statistics import median

import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor

from pml_macl import LabelStatistics
from pml_macl.losses import MACLLoss
from pml_macl.reducers import FrequencyWeightedReducer


def contenders(labels: Tensor, classes: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Each takes embeddings and gives a loss."""
    statistics = LabelStatistics.from_labels(labels)
    by_label = FrequencyWeightedReducer(level="label")
    losses = {
        "MACL fused, co-occurrence weights": MACLLoss(label_statistics=statistics),
        "MACL fused, label weights": MACLLoss(label_statistics=statistics, reducer=by_label),
        "MACL reference, co-occurrence weights": MACLLoss(label_statistics=statistics, engine="reference"),
        "MACL reference, label weights": MACLLoss(label_statistics=statistics, reducer=by_label, engine="reference"),
    }
    supcon = SupConLoss()
    return {
        "PML SupCon": lambda embeddings: supcon(embeddings, classes),
        **{name: lambda embeddings, loss=loss: loss(embeddings, labels) for name, loss in losses.items()},
        "floor": floor,
    }


def floor(embeddings: Tensor) -> Tensor:
    """What any contrastive loss must do."""
    normalized = torch.nn.functional.normalize(embeddings)
    return (normalized @ normalized.T / 0.1).logsumexp(dim=1).mean()


def main(argv: list[str] | None = None) -> None:
    """Print a table for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--classes", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="peak memory growth of fused MACL instead, largest size")
    args = parser.parse_args(argv)
    generator = torch.Generator().manual_seed(0)
    for size in args.sizes if not args.memory else [max(args.sizes)]:
        embeddings = torch.randn(size, 128, generator=generator)
        labels = torch.rand(size, args.classes, generator=generator) < 3.3 / args.classes
        losses = contenders(labels, torch.randint(args.classes, (size,), generator=generator))
        if args.memory:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            losses["MACL fused, co-occurrence weights"](embeddings.requires_grad_()).backward()
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"{size} rows, {args.classes} classes: peak memory grew by {growth:.0f} MiB")
            continue
        times: dict[str, list[float]] = {name: [] for name in losses}
        for _ in range(args.repeats + 1):
            for name, loss in losses.items():
                leaf = embeddings.clone().requires_grad_()
                started = time.perf_counter()
                loss(leaf).backward()
                times[name].append(time.perf_counter() - started)
        medians = {name: median(values[1:]) for name, values in times.items()}  # the first is a warm-up
        print(f"{size} rows, {args.classes} classes: median ms, ratio to PML SupCon, ratio to the floor")
        for name, value in medians.items():
            print(
                f"  {name:<40}{1e3 * value:>9.1f}{value / medians['PML SupCon']:>7.2f}{value / medians['floor']:>7.2f}"
            )


if __name__ == "__main__":
    main()
