"""Measure what the evaluation of large archives costs, and write the section of the page about it.

    python benchmarks/evaluation_scale.py --output benchmarks/results/evaluation_scale.jsonl

All metrics with k = 100 rank 10,000, 100,000 and 1,000,000 references, which a memory-mapped file holds. Each of these
runs in a fresh process. Then the calculator and faiss's flat search rank 20,000 references for as many queries, in
turns in one process. The script needs Linux, 0.6 GB in the temporary folder, and the package's dev extra.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pml_macl.evaluation import MultiLabelAccuracyCalculator

SIZES, QUERIES, SQUARE = (10_000, 100_000, 1_000_000), 1000, 20_000
DIMENSIONS, CLASSES, K = 128, 17, 100
# NVIDIA H100 SXM, data sheet: float32 operations per second without tensor cores, bytes per second and bytes of memory.
OPERATIONS, TRAFFIC, MEMORY, SHARE = 67e12, 3.35e12, 80e9, 0.5
BYTES_PER_KEY = 12  # torch writes each distance once and reads it twice


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


def calculator(**settings: Any) -> MultiLabelAccuracyCalculator:
    return MultiLabelAccuracyCalculator(exclude=("r_precision", "mean_average_precision_at_r"), k=K, **settings)


def measure_archive(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Evaluate the first images as queries against the archive; the fastest run and the peak memory of this process."""
    embeddings, labels = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("embeddings", "labels"))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        calculator().get_accuracy(embeddings[:QUERIES], labels[:QUERIES], embeddings, labels, ref_includes_query=True)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"name": "archive", "references": size, "queries": QUERIES, "seconds": min(seconds), "gib": peak}


def measure_square(folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Let faiss's flat search, the calculator with one metric and the calculator with all metrics take turns."""
    embeddings, labels = (np.load(folder / f"{name}.npy") for name in ("embeddings", "labels"))
    index = faiss.IndexFlatL2(DIMENSIONS)
    index.add(embeddings)
    search = getattr(index, "search_numpy", index.search)
    contenders = {
        "faiss": lambda: search(embeddings, K),
        "one metric": lambda: calculator().get_accuracy(embeddings, labels, include=("precision_at_1",)),
        "all metrics": lambda: calculator().get_accuracy(embeddings, labels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {"name": "square", "references": size, "seconds": {name: min(times) for name, times in seconds.items()}}


def report(lines: list[dict[str, Any]]) -> list[str]:
    """Return the paragraphs of the section."""
    archives = [line for line in lines if line["name"] == "archive"]
    square = next(line for line in lines if line["name"] == "square")
    fixed, slope = fit(archives)
    alone, one, everything = (square["seconds"][name] for name in ("faiss", "one metric", "all metrics"))
    rows = ["| references | seconds | fit, seconds | GiB |", "|---:|---:|---:|---:|"]
    for line in archives:
        predicted = fixed + slope * line["references"]
        rows.append(f"| {line['references']:,} | {line['seconds']:.2f} | {predicted:.2f} | {line['gib']:.2f} |")
    per_million = 1e6 * slope
    paper = ["| references | GB | queries | one GPU | eight GPUs |", "|---:|---:|---:|---:|---:|"]
    for size in (10**7, 10**8):
        for queries in (10**5, size):
            one_gpu = gpu_seconds(queries, size)
            cells = (f"{size:,}", f"{gpu_bytes(size) / 1e9:.0f}", f"{queries:,}", span(one_gpu), span(one_gpu / 8))
            paper.append(f"| {' | '.join(cells)} |")
    return [
        "## Evaluation of large archives",
        f"Each row evaluates all metrics with k = {K} for {QUERIES:,} queries (17 labels, 128 dimensions). "
        "`MultiLabelAccuracyCalculator` reads the references from a memory-mapped float32 file. GiB is the peak "
        "resident memory of the whole process: it includes torch and the pages of the file.",
        "\n".join(rows),
        f"The fit is {fixed:.2f} s + {per_million:.1f} s per million references. Time also grows in proportion to the "
        f"number of queries, so 1,000,000 queries against 1,000,000 references take about "
        f"{span(1e6 / QUERIES * per_million)} on these two cores (computed from the fit).",
        f"For {square['references']:,} queries among themselves and k = {K}, faiss's flat search alone takes "
        f"{alone:.1f} s. The calculator takes {one:.1f} s for one metric ({one / alone:.2f} times faiss) and "
        f"{everything:.1f} s for all metrics ({everything / alone:.2f} times faiss).",
        "The next table is computed, not measured. It assumes an NVIDIA H100 SXM (data sheet: 67 TFLOPS in float32, "
        "3.35 TB/s, 80 GB) that reaches half of both speeds. Each pair of query and reference costs "
        f"{2 * DIMENSIONS} operations and {BYTES_PER_KEY} bytes of memory traffic, one after the other. With "
        "`distributed=True`, each GPU holds all references and ranks its share of the queries. GB is the memory of the "
        "references on each GPU.",
        "\n".join(paper),
    ]


def fit(lines: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the fixed seconds and the seconds per reference with the smallest squared relative errors."""
    sizes, seconds = (np.array([line[name] for line in lines], dtype=float) for name in ("references", "seconds"))
    design = np.stack([1 / seconds, sizes / seconds], axis=1)
    fixed, slope = np.linalg.lstsq(design, np.ones(len(lines)), rcond=None)[0]
    return float(fixed), float(slope)


def gpu_seconds(queries: int, references: int) -> float:
    """Return the seconds that one GPU needs, under the assumptions of the page."""
    pairs = queries * references
    return pairs * 2 * DIMENSIONS / (SHARE * OPERATIONS) + pairs * BYTES_PER_KEY / (SHARE * TRAFFIC)


def gpu_bytes(references: int) -> int:
    """Return the bytes of float32 embeddings, their squared norms, boolean labels and int64 codes of label sets."""
    return references * (4 * DIMENSIONS + 4 + CLASSES + 8)


def span(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of references")
    parser.add_argument("--square", type=int, default=SQUARE, help="references of the comparison with faiss")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, help="file for the measurements, one line of JSON each")
    options = parser.parse_args(argv)
    lines = []
    for measure, sizes in ((measure_archive, options.sizes), (measure_square, [options.square])):
        for size in sizes:
            with tempfile.TemporaryDirectory() as name, multiprocessing.get_context("spawn").Pool(1) as pool:
                write_archive(Path(name), size)
                lines.append(pool.apply(measure, (Path(name), size, options.repeats)))
            print(lines[-1], flush=True)
    options.output.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
