"""Time and memory of searches with ids, label sets and filters, compared with faiss alone.

    python benchmarks/search_speed.py [--images 100000] [--queries 1000] [--k 10] > table.md
    python benchmarks/search_speed.py memory [--images 1000000]

The first command prints a table of times: the search of ``MultiLabelInferenceModel`` and faiss's own search take turns.
The second indexes a memory-mapped file and prints the largest memory of the process.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from pml_macl.inference import MultiLabelInferenceModel

DIMENSIONS, CLASSES, REPEATS = 128, 17, 5


def best_times(contenders: list[Callable[[], object]]) -> list[float]:
    """The best of several times of each contender in seconds; the contenders take turns."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(REPEATS):
        for contender, measured in zip(contenders, times, strict=True):
            start = time.perf_counter()
            contender()
            measured.append(time.perf_counter() - start)
    return [min(measured) for measured in times]


def report_times(options: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(options.images, DIMENSIONS, generator=generator), dim=1)
    queries = torch.nn.functional.normalize(torch.randn(options.queries, DIMENSIONS, generator=generator), dim=1)
    labels = torch.rand(options.images, CLASSES, generator=generator) < torch.logspace(-3, -0.3, CLASSES)
    alone = faiss.IndexFlatL2(DIMENSIONS)
    model = MultiLabelInferenceModel(torch.nn.Identity(), normalize_embeddings=False, data_device="cpu")
    vectors, asked = images.numpy(), queries.numpy()

    start = time.perf_counter()
    model.index(images, labels, batch_size=4096)
    indexed = time.perf_counter() - start
    alone.add(vectors)
    rows = []
    search_alone = getattr(alone, "search_numpy", alone.search)
    filters = [("search", None), ("search, with a frequent label", CLASSES - 1), ("search, with a rare label", 0)]
    for name, column in filters:
        if column is None:
            contenders = [lambda: search_alone(asked, options.k), lambda: model.search(queries, options.k)]
        else:
            passing = np.packbits(labels[:, column].numpy(), bitorder="little")
            only = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(passing))
            contenders = [
                lambda only=only: search_alone(asked, options.k, params=only),
                lambda column=column: model.search(queries, options.k, having=[column], batch_size=4096),
            ]
            name += f" ({labels[:, column].float().mean():.1%} of the images)"
        rows.append((name, best_times(contenders)))
    print(
        f"{options.images:,} embeddings of {DIMENSIONS} dimensions in a flat index, indexed in {indexed:.2f} s; "
        f"{options.queries:,} queries, k = {options.k}:\n"
    )
    print("| step | faiss alone, s | with ids, labels and filters, s | ratio |\n|---|---:|---:|---:|")
    for name, (ours_without, ours) in rows:
        print(f"| {name} | {ours_without:.3f} | {ours:.3f} | {ours / ours_without:.2f} |")


def report_memory(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "embeddings.npy")
        written = np.lib.format.open_memmap(path, "w+", np.float32, (options.images, DIMENSIONS))
        random = np.random.default_rng(0)
        for start in range(0, options.images, 10_000):
            written[start : start + 10_000] = random.standard_normal((len(written[start : start + 10_000]), DIMENSIONS))
        written.flush()
        del written
        embeddings = np.load(path, mmap_mode="r")
        labels = torch.rand(options.images, CLASSES) < 0.1
        start = time.perf_counter()
        model = MultiLabelInferenceModel(torch.nn.Identity(), data_device="cpu")
        model.index(embeddings, labels, batch_size=4096)
        indexed = time.perf_counter()
        model.search(torch.randn(options.queries, DIMENSIONS), options.k, having=[0])
        searched = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{options.images:,} images x {DIMENSIONS} from a memory-mapped file: indexed in {indexed - start:.1f} s, "
        f"{options.queries:,} filtered queries in {searched - indexed:.1f} s, largest memory {peak:.2f} GiB"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("times", "memory"), default="times")
    parser.add_argument("--images", type=int, help="default: 100,000, and 1,000,000 for memory")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=10)
    options = parser.parse_args(argv)
    options.images = options.images or (1_000_000 if options.what == "memory" else 100_000)
    report_memory(options) if options.what == "memory" else report_times(options)


if __name__ == "__main__":
    main()
