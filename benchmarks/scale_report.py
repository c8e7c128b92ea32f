"""Write the section of the page about the evaluation of large archives."""

import json
from pathlib import Path
from typing import Any

import numpy as np

DIMENSIONS, CLASSES = 128, 17
# NVIDIA H100 SXM, data sheet: float32 operations per second without tensor cores, and bytes per second.
OPERATIONS, TRAFFIC, SHARE = 67e12, 3.35e12, 0.5
BYTES_PER_KEY = 12  # torch writes each distance once and reads it twice


def large_archives(path: Path) -> list[str]:
    """Return the section; empty if ``evaluation_scale.py`` has not written the file."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    archives = [line for line in lines if line["name"] == "archive"]
    square = next(line for line in lines if line["name"] == "square")
    fixed, slope = fit(archives)
    machine = square.get("machine", "these two cores")
    memory = "peak of the memory that torch allocated on the GPU"
    if "cores" in machine:
        memory = "peak resident memory of the whole process: it includes torch and the pages of the file"
    queries = archives[0]["queries"]
    alone, one, everything = (square["seconds"][name] for name in ("faiss", "one metric", "all metrics"))
    rows = ["| references | seconds | fit, seconds | GiB |", "|---:|---:|---:|---:|"]
    for line in archives:
        predicted = fixed + slope * line["references"]
        rows.append(f"| {line['references']:,} | {line['seconds']:.2f} | {predicted:.2f} | {line['gib']:.2f} |")
    per_million = 1e6 * slope
    paper = ["| references | GB | queries | one GPU | eight GPUs |", "|---:|---:|---:|---:|---:|"]
    for size in (10**7, 10**8):
        for number in (10**5, size):
            one_gpu = gpu_seconds(number, size)
            cells = (f"{size:,}", f"{gpu_bytes(size) / 1e9:.0f}", f"{number:,}", span(one_gpu), span(one_gpu / 8))
            paper.append(f"| {' | '.join(cells)} |")
    return [
        "## Evaluation of large archives",
        f"Each row evaluates all metrics except R-precision and mAP at R, which need more ranks, with "
        f"k = 100 for {queries:,} queries (17 labels, 128 dimensions). "
        "`MultiLabelAccuracyCalculator` reads the references from a memory-mapped float32 file. "
        f"GiB is the {memory}.",
        "\n".join(rows),
        f"The fit is {fixed:.2f} s + {per_million:.1f} s per million references. Time also grows in proportion to the "
        f"number of queries, so 1,000,000 queries against 1,000,000 references take about "
        f"{span(1e6 / queries * per_million)} on {machine} (computed from the fit).",
        f"For {square['references']:,} queries among themselves and k = 100, faiss's flat search alone takes "
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
