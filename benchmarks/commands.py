"""The command line of a benchmark that keeps its runs in a folder: run, compare and report."""

import argparse
from pathlib import Path


def make_parser(
    description: str, run_help: str, compare_help: str | None = None
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """A parser with the commands of a benchmark.

    Args:
        description: the module's docstring.
        run_help: what ``run`` does.
        compare_help: what ``compare`` does; None: the benchmark has no such command.

    Returns:
        The parser, and that of ``run``, for further options.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help=run_help)
    report = commands.add_parser("report", help="write the page of the finished runs")
    report.add_argument("--page", type=Path, required=True, help="Markdown page; its figures go beside it")
    made = [run, report]
    if compare_help is not None:
        made.append(commands.add_parser("compare", help=compare_help))
    for command in made:
        command.add_argument("--output", type=Path, required=True, help="folder of runs.jsonl")
    return parser, run


def add_data(run: argparse.ArgumentParser) -> None:
    """Add the options that name the data sets and their splits."""
    run.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR")
    run.add_argument("--split-column", default="aitlas_split")
