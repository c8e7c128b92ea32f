"""Measure what one of several processes computes, in MultiLabelDistributedLossWrapper and in PML's wrapper.

    python benchmarks/loss_share.py

The script simulates one process after the gathering: PML's wrapper computes the loss of the joint batch, the other one
the share of the process. Communication is not included. Times are medians of forward and backward, in turns. Memory is
the growth of the resident set to its peak in a fresh process.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory

import torch
from memory import PeakMemory

from pml_macl.batch_share import BatchShare
from pml_macl.losses import MACLLoss

PML, OURS = "DistributedLossWrapper of PML", "MultiLabelDistributedLossWrapper"
LABELS = 17


def steps(batch_size: int, num_processes: int) -> dict[str, Callable[[], None]]:
    """One training step of the loss in each wrapper."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch_size, 128, generator=generator)
    labels = torch.rand(batch_size, LABELS, generator=generator) < 0.15
    share = BatchShare(0, batch_size // num_processes, num_processes)

    def step(share: BatchShare | None) -> None:
        leaf = embeddings.clone().requires_grad_()
        MACLLoss(num_classes=LABELS)(leaf, labels, share=share).backward()

    return {PML: partial(step, None), OURS: partial(step, share)}


def start_group(folder: str) -> None:
    """Let this process be a group of one, so that it sums over processes without waiting for others."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=0, world_size=1)


def measure_memory(name: str, batch_size: int, num_processes: int) -> float:
    """Return the growth of the resident set in MiB; runs in a fresh process."""
    with TemporaryDirectory() as folder:
        start_group(folder)
        steps(64, num_processes)[name]()  # loads code and starts threads
        step = steps(batch_size, num_processes)[name]
        with PeakMemory() as memory:
            step()
        torch.distributed.destroy_process_group()
    growth: float = memory.growth
    return growth


def measure_times(batch_size: int, num_processes: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of a step in each wrapper."""
    contenders = steps(batch_size, num_processes)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with TemporaryDirectory() as folder:
        start_group(folder)
        for repeat in range(repeats + 1):
            for name, step in contenders.items():
                start = time.perf_counter()
                step()
                if repeat:  # the first step warms up
                    times[name].append(time.perf_counter() - start)
        torch.distributed.destroy_process_group()
    return {name: median(values) for name, values in times.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=4096, help="images of all processes (default: 4096)")
    parser.add_argument("--processes", type=int, default=4, help="default: 4")
    parser.add_argument("--repeats", type=int, default=7, help="default: 7")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    seconds = measure_times(args.batch_size, args.processes, args.repeats)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        mib = {name: pool.apply(measure_memory, (name, args.batch_size, args.processes)) for name in (PML, OURS)}
    for name in (PML, OURS):
        print(f"{name:32} {1000 * seconds[name]:8.1f} ms {mib[name]:8.1f} MiB")
    print(f"{'ratio':32} {seconds[OURS] / seconds[PML]:8.2f}    {mib[OURS] / mib[PML]:8.2f}")


if __name__ == "__main__":
    main()
