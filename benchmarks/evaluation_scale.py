"""Measure what the evaluation of large archives costs.

    python benchmarks/evaluation_scale.py --output benchmarks/results/evaluation_scale.jsonl

The first part computes the metrics that need no more than k = 100 ranks, for 10,000, 100,000 and 1,000,000 references
in a memory-mapped file, each in a fresh process. Then faiss's flat search and the calculator rank 20,000 references for
as many queries, in turns in one process. The script needs Linux, 0.6 GB in the temporary folder, and the package's dev
extra.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from memory import machine_name

from pml_macl.evaluation import MultiLabelAccuracyCalculator

SIZES, QUERIES, SQUARE = (10_000, 100_000, 1_000_000), 1000, 20_000
DIMENSIONS, CLASSES, K = 128, 17, 100


def write_archive(folder: Path, size: int) -> None:
    """Write embeddings and label sets of an archive, block by block. The embeddings follow the label sets."""
    random = np.random.default_rng(0)
    prototypes = random.standard_normal((CLASSES, DIMENSIONS), dtype=np.float32)
    frequency = 0.5 / np.arange(1, 1 + CLASSES) ** 0.7
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", bool, (size, CLASSES))
    embeddings = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float32, (size, DIMENSIONS))
    for start in range(0, size, 10_000):
        rows = slice(start, start + 10_000)
        labels[rows] = random.random(labels[rows].shape) < frequency
        noise = random.standard_normal(embeddings[rows].shape, dtype=np.float32)
        embeddings[rows] = labels[rows] @ prototypes + 2 * noise


def calculator(device: str) -> MultiLabelAccuracyCalculator:
    return MultiLabelAccuracyCalculator(exclude=("r_precision", "mean_average_precision_at_r"), k=K, device=device)


def flat_index(device: str) -> Any:
    """Faiss's exact index, on the GPU if it is asked for and faiss can."""
    index = faiss.IndexFlatL2(DIMENSIONS)
    on_gpu = device == "cuda" and hasattr(faiss, "index_cpu_to_all_gpus")
    return faiss.index_cpu_to_all_gpus(index) if on_gpu else index


def measure_archive(folder: Path, size: int, repeats: int, device: str) -> dict[str, Any]:
    """Evaluate the first images as queries against the archive.

    Returns:
        The time of the fastest run; and the peak memory of this process, or on a GPU of torch's tensors there.
    """
    embeddings, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("embeddings", "labels"))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        archive = embeddings[:QUERIES], labels[:QUERIES], embeddings, labels
        calculator(device).get_accuracy(*archive, ref_includes_query=True)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {"name": "archive", "references": size, "queries": QUERIES, "seconds": min(seconds), "gib": peak}


def measure_square(folder: Path, size: int, repeats: int, device: str) -> dict[str, Any]:
    """Let faiss's flat search, the calculator with one metric and the calculator with all metrics take turns."""
    embeddings, labels = (np.load(folder / f"{name}.npy") for name in ("embeddings", "labels"))
    index = flat_index(device)
    index.add(embeddings)
    search = getattr(index, "search_numpy", index.search)
    contenders = {
        "faiss": lambda: search(embeddings, K),
        "one metric": lambda: calculator(device).get_accuracy(embeddings, labels, include=("precision_at_1",)),
        "all metrics": lambda: calculator(device).get_accuracy(embeddings, labels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {"name": "square", "references": size, "seconds": {name: min(times) for name, times in seconds.items()}}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of references")
    parser.add_argument("--square", type=int, default=SQUARE, help="references of the comparison with faiss")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="file for the measurements, one line of JSON each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args(argv)
    run(options.output, options.sizes, options.square, options.repeats, options.device)


def run(output: Path, sizes: Sequence[int], square: int, repeats: int, device: str) -> None:
    """Measure all sizes, and write the lines."""
    lines = []
    for measure, asked in ((measure_archive, sizes), (measure_square, [square])):
        for size in asked:
            with tempfile.TemporaryDirectory() as name, multiprocessing.get_context("spawn").Pool(1) as pool:
                write_archive(Path(name), size)
                found = pool.apply(measure, (Path(name), size, repeats, device))
            lines.append({**found, "machine": machine_name(device)})
            print(lines[-1], flush=True)
    output.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
