"""Measure the page about performance on a GPU, and write it.

    python benchmarks/gpu.py --output FOLDER

This runs loss.py, evaluation.py and evaluation_scale.py on the GPU, keeps their measurements in FOLDER, and writes
FOLDER/performance.md with its figures. It needs the package's dev extra. With faiss-gpu in the place of faiss-cpu,
faiss also searches on the GPU. To try the command on a CPU, make it small:

    python benchmarks/gpu.py --output FOLDER --device cpu --largest 128 --queries 100 --references 500 1000 --repeats 1
"""

import argparse
from pathlib import Path

import evaluation
import evaluation_scale
import loss
import torch
from loss_report import write_page


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--largest", type=int, default=65536, help="skip losses with more rows or references")
    parser.add_argument("--queries", type=int, nargs="+", default=[500, 1000, 2000, 3000], help="sizes of evaluations")
    parser.add_argument("--references", type=int, nargs="+", default=evaluation_scale.SIZES, help="sizes of archives")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; install a build of torch with CUDA, or try the command with --device cpu")
    args.output.mkdir(parents=True, exist_ok=True)
    loss.run(args.output / "loss.jsonl", args.device, args.repeats, args.largest)
    evaluation.compare(
        evaluation.Options(
            sizes=args.queries,
            runs=list(evaluation.RUNS),
            largest=0,
            device=args.device,
            threads=0,
            repeats=min(args.repeats, 3),
            output=None,
            lines=args.output / "evaluation.jsonl",
        )
    )
    evaluation_scale.run(
        args.output / "evaluation_scale.jsonl",
        args.references,
        min(evaluation_scale.SQUARE, max(args.references)),
        min(args.repeats, 3),
        args.device,
    )
    write_page(args.output / "loss.jsonl", args.output / "performance.md", "python benchmarks/gpu.py --output FOLDER")
    print(f"page: {args.output / 'performance.md'}")


if __name__ == "__main__":
    main()
