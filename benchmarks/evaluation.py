"""Measure time and peak memory of evaluation, and compare them with PML's AccuracyCalculator and torchmetrics.

    python benchmarks/evaluation.py compare       # a table over N with ratios, and a plot
    python benchmarks/evaluation.py approximate   # faiss indices on 100,000 references

Each measurement runs in a fresh process, after a small warm-up run. Memory is the growth of the resident set to its
peak (on a GPU, the growth of the allocated memory). The script needs Linux and the package's dev extra.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import torch
from memory import PeakMemory
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import FaissKNN
from torchmetrics.retrieval import RetrievalMAP, RetrievalPrecision, RetrievalRPrecision

from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.evaluation.ranker import Ranker

METRICS = ("precision_at_1", "r_precision", "mean_average_precision", "mean_average_precision_at_r")


def make_data(num_rows, device, num_classes=17, size=128, seed=0):
    """Normalised embeddings around the sum of label prototypes, with a long-tailed label distribution."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 0.5 / torch.arange(1, 1 + num_classes) ** 0.7
    labels = torch.rand(num_rows, num_classes, generator=generator) < frequency
    labels[torch.arange(num_rows), torch.randint(0, num_classes, (num_rows,), generator=generator)] = True
    prototypes = torch.randn(num_classes, size, generator=generator)
    embeddings = labels.float() @ prototypes + 2 * torch.randn(num_rows, size, generator=generator)
    return torch.nn.functional.normalize(embeddings).to(device), labels.to(device)


def share_a_label(labels, other_labels):
    """Relevance for PML's calculator: two images are relevant to each other if they share a label."""
    return (labels.bool() & other_labels.bool()).any(dim=-1)


def run_pml(embeddings, labels, **settings):
    """Evaluate with PML's calculator, which ranks with faiss."""
    calculator = AccuracyCalculator(METRICS, label_comparison_fn=share_a_label, device=embeddings.device, **settings)
    return calculator.get_accuracy(embeddings, labels)


def run_pml_macl(embeddings, labels, include=METRICS, **settings):
    """Evaluate with this package."""
    return MultiLabelAccuracyCalculator(include, **settings).get_accuracy(embeddings, labels)


def run_torchmetrics(embeddings, labels):
    """Evaluate the three metrics that torchmetrics has; torchmetrics loops over the queries."""
    num_rows = len(labels)
    others = ~torch.eye(num_rows, dtype=torch.bool, device=labels.device)
    scores = (3 - torch.cdist(embeddings, embeddings))[others]  # torchmetrics counts a score below 0 as no hit
    relevance = share_a_label(labels[:, None], labels)[others]
    queries = torch.arange(num_rows, device=labels.device).repeat_interleave(num_rows - 1)
    metrics = {
        "precision_at_1": RetrievalPrecision(empty_target_action="skip", top_k=1),
        "r_precision": RetrievalRPrecision(empty_target_action="skip"),
        "mean_average_precision": RetrievalMAP(empty_target_action="skip"),
    }
    return {
        name: metric.to(labels.device)(scores, relevance, indexes=queries).item() for name, metric in metrics.items()
    }


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Args:
        sizes: numbers of queries, for :func:`compare`.
        runs: names of ``RUNS``, for :func:`compare`.
        largest: number of references, for :func:`approximate`.
        device: "cpu" or "cuda".
        threads: number of threads of torch and faiss; 0 keeps their defaults.
        repeats: number of timed runs; the fastest counts.
        output: PNG file for the plot of :func:`compare`.
        lines: file for the measurements of :func:`compare`, one line of JSON each.
    """

    sizes: Sequence[int]
    runs: Sequence[str]
    largest: int
    device: str
    threads: int
    repeats: int
    output: Path | None
    lines: Path | None


RUNS = {"pml": run_pml, "torchmetrics": run_torchmetrics, "pml_macl": run_pml_macl}


def measure(name, num_rows, device, threads, repeats, settings):
    """Measure in this process: seconds of the fastest run, growth and total of the peak memory in MiB, and values."""
    if threads:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
    run = RUNS[name]
    run(*make_data(200, device), **settings)
    data = make_data(num_rows, device)
    with PeakMemory(device) as peak:
        values = run(*data, **settings)
    seconds = []
    for _ in range(repeats):  # timed without the sampling thread
        start = time.perf_counter()
        run(*data, **settings)  # returns Python floats, so the device has finished
        seconds.append(time.perf_counter() - start)
    return min(seconds), peak.growth, peak.total, values


def in_fresh_process(*args):
    """Call :func:`measure` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, args)


def compare(options: Options) -> None:
    """Print times and memory over N, and their ratios to those of this package."""
    print(f"{', '.join(METRICS)}; 17 labels, 128 dimensions, {options.device}; fastest of {options.repeats}")
    print(f"{'N':>7} {'':14} {'seconds':>9} {'ratio':>7} {'MiB':>7} {'ratio':>7}  largest difference of a value")
    costs = {name: [] for name in options.runs}
    for num_rows in options.sizes:
        results = {
            name: in_fresh_process(name, num_rows, options.device, options.threads, options.repeats, {})
            for name in options.runs
        }
        our_seconds, our_growth, _, our_values = results["pml_macl"]
        for name, (seconds, growth, _, values) in results.items():
            costs[name].append((seconds, growth))
            difference = max(abs(values[metric] - our_values[metric]) for metric in values)
            print(
                f"{num_rows:7} {name:14} {seconds:9.3f} {seconds / our_seconds:7.1f} {growth:7.0f} "
                f"{growth / max(our_growth, 1):7.1f}  {difference:.1e}",
                flush=True,
            )
    if options.lines:
        lines = [
            {"rows": rows, "name": name, "seconds": seconds, "memory": memory}
            for name, points in costs.items()
            for rows, (seconds, memory) in zip(options.sizes, points, strict=True)
        ]
        options.lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if options.output:
        plot(options.sizes, costs, options.output)


def plot(sizes, costs, path):
    """Draw time and memory over N, both on logarithmic scales."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, column, title in ((axes[0], 0, "time [s]"), (axes[1], 1, "peak memory growth [MiB]")):
        for name, points in costs.items():
            axis.loglog(sizes, [point[column] for point in points], marker="o", label=name)
        axis.set(xlabel="queries = references", title=title)
        axis.grid(alpha=0.3)
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"wrote {path}")


def approximate(options: Options) -> None:
    """Measure recall and time of faiss indices: 2,000 queries against 100,000 references, k = 100."""
    if options.threads:
        torch.set_num_threads(options.threads)
        faiss.omp_set_num_threads(options.threads)
    k, num_queries = 100, 2000
    embeddings, labels = make_data(options.largest + num_queries, options.device)
    data = (embeddings[:num_queries], labels[:num_queries], embeddings[num_queries:], labels[num_queries:])
    query, reference = data[0], data[2]
    nearest = torch.cat([torch.cdist(rows, reference).topk(k, largest=False).indices for rows in query.split(100)])
    include = ("precision_at_1", "ndcg", "acg", "label_precision")
    print(f"{len(query)} queries, {len(reference)} references, k={k}, {options.device}")
    print(f"{'':22} {'build s':>8} {'search s':>9} {'metrics s':>10} {'recall':>7}  " + "  ".join(include))
    for title, make_search in {
        "exact (no knn_func)": lambda: Exact(reference),
        "faiss flat": lambda: Filled(faiss.IndexFlatL2(reference.shape[1]), reference),
        "IVF1024, nprobe 8": lambda: Filled(trained_ivf(reference, 8), reference),
        "IVF1024, nprobe 64": lambda: Filled(trained_ivf(reference, 64), reference),
        "HNSW32, efSearch 128": lambda: Filled(hnsw(reference.shape[1], 128), reference),
    }.items():
        start = time.perf_counter()
        search = make_search()
        build = time.perf_counter() - start
        start = time.perf_counter()
        values = MultiLabelAccuracyCalculator(include, k=k, knn_func=search).get_accuracy(*data)
        metrics = time.perf_counter() - start - search.seconds
        recall = (search.indices[:, :, None] == nearest[:, None]).any(dim=2).double().mean().item()
        row = "  ".join(f"{values[name]:{len(name)}.4f}" for name in include)
        print(f"{title:22} {build:8.2f} {search.seconds:9.2f} {metrics:10.2f} {recall:7.4f}  {row}", flush=True)


class Search:
    """A ``knn_func`` that keeps the indices it found and its duration."""

    def __call__(self, query, k, reference, ref_includes_query=False):
        start = time.perf_counter()
        distances, self.indices = self.search(query, k)
        self.seconds = time.perf_counter() - start
        return distances, self.indices


class Exact(Search):
    """The calculator's own search without ``knn_func``, in chunks of 64 queries."""

    def __init__(self, reference):
        self.ranker = Ranker(reference)

    def search(self, query, k):
        return None, torch.cat([self.ranker(rows, k) for rows in query.split(64)])


class Filled(Search):
    """PML's ``FaissKNN`` on an index that keeps its references between calls."""

    def __init__(self, index, reference):
        index.add(reference.cpu().numpy())
        self.knn = FaissKNN(reset_before=False, reset_after=False)
        self.knn.index = index

    def search(self, query, k):
        return self.knn(query, k)


def trained_ivf(reference, nprobe):
    """Inverted file with 1024 cells; a search visits ``nprobe`` of them."""
    index = faiss.index_factory(reference.shape[1], "IVF1024,Flat")
    index.train(reference.cpu().numpy())
    index.nprobe = nprobe
    return index


def hnsw(size, ef_search):
    """Graph with 32 neighbours per node."""
    index = faiss.IndexHNSWFlat(size, 32)
    index.hnsw.efSearch = ef_search
    return index


def main():
    """Parse the command line and run one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "approximate"))
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[500, 1000, 2000, 3000], help="numbers of queries, for compare"
    )
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="libraries to compare")
    parser.add_argument("--largest", type=int, default=100_000, help="number of references, for approximate")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="threads of torch and faiss; 0 keeps their defaults")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="PNG file for the plot of compare")
    parser.add_argument("--lines", type=Path, help="file for the measurements of compare, one line of JSON each")
    given = vars(parser.parse_args())
    what, options = given.pop("what"), Options(**given)
    if "pml_macl" not in options.runs:
        parser.error("--runs must include pml_macl, because the ratios are those to pml_macl; add it")
    {"compare": compare, "approximate": approximate}[what](options)


if __name__ == "__main__":
    main()
