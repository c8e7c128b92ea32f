"""Measure what each part of MACL does: change one setting at a time, on frozen features with a trained head.

    python benchmarks/ablation.py run --data DIR [DIR ...] --output FOLDER
    python benchmarks/ablation.py report --output FOLDER --page docs/results/ablation.md

retrieval.py describes DIR. All measurements use the validation split, because they serve to choose defaults. Each run
adds one line to FOLDER/runs.jsonl. To resume an interrupted ablation, repeat the command: it skips finished runs.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablation_report import write_page
from commands import add_data, make_parser
from protocols import load
from pytorch_metric_learning.miners import BaseMiner
from settings import DEFAULTS, Settings
from torch import Tensor
from torch.utils.data import Sampler
from training import Method, append_run, is_finished, measure_run, records_folder, train, versions

from pml_macl import LabelStatistics
from pml_macl.distances import CosineTemperature, LinearTemperature, TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer
from pml_macl.samplers import LabelBalancedSampler

DEFAULT = "default"


@dataclass
class Variant:
    """Arguments of MACL's parts. What is not given keeps its default."""

    distance: dict[str, Any] = field(default_factory=dict)
    reducer: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    miner: dict[str, Any] | None = None
    schedule: Callable[[int], Any] | None = None
    batch_size: int | None = None
    is_balanced: bool = False
    wrong_overlap_scale: float | None = None


def of(part: str, name: str, *values: Any) -> dict[str, Variant]:
    """One variant for each value of one argument."""
    return {f"{name} {value}": Variant(**{part: {name: value}}) for value in values}


# The variants that answer each question. The report compares each of them with the default.
QUESTIONS: dict[str, dict[str, Variant]] = {
    "frequency weights": {
        "off": Variant(reducer={"power": 0.0}),
        "label level": Variant(reducer={"level": "label"}),
        "label level, power 0.5": Variant(reducer={"level": "label", "power": 0.5}),
        **of("reducer", "power", 0.5, 1.5),
        **of("reducer", "anchor_power", 0.5, 1.0),
    },
    "overlap in the weights": of("reducer", "overlap_power", 0.5, 1.0, 2.0),
    "overlap in the temperature": {
        **of("distance", "overlap_scale", 0.0, 0.5, 2.0, 4.0),
        "wrong sign, overlap_scale -0.5": Variant(wrong_overlap_scale=-0.5),
        "wrong sign, overlap_scale -0.8": Variant(wrong_overlap_scale=-0.8),
    },
    "rarity in the temperature": of("distance", "rarity_scale", 0.0, 0.15, 0.6),
    "temperature": of("distance", "temperature", 0.05, 0.1, 0.4, 0.8),
    "schedule": {
        "linear 0.4 to 0.1": Variant(schedule=lambda steps: LinearTemperature(0.4, 0.1, steps)),
        "cosine 0.4 to 0.1": Variant(schedule=lambda steps: CosineTemperature(0.4, 0.1, steps)),
        "linear 0.1 to 0.4": Variant(schedule=lambda steps: LinearTemperature(0.1, 0.4, steps)),
    },
    "thresholds": {
        **of("loss", "positive_threshold", 0.25, 0.5),
        "positive 0.25, negative 1": Variant(loss={"positive_threshold": 0.25, "negative_threshold": 1.0}),
        "positive 0.5, negative 1": Variant(loss={"positive_threshold": 0.5, "negative_threshold": 1.0}),
    },
    "negatives": {
        f"{count} hardest": Variant(miner={"neg_strategy": "hard", "max_negatives_per_anchor": count})
        for count in (4, 16, 64)
    },
    "sampler": {"label-balanced": Variant(is_balanced=True)},
    "batch size": {str(size): Variant(batch_size=size) for size in (32, 64, 256, 512)},
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser, run = make_parser(__doc__, "train the variants that runs.jsonl does not have yet")
    add_data(run)
    run.add_argument("--ignore-columns", nargs="*", default=["scene"], metavar="NAME")
    run.add_argument("--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="QUESTION")
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--epochs", type=int, default=DEFAULTS["head"]["epochs"])
    run.add_argument("--batch-size", type=int, default=DEFAULTS["head"]["batch_size"])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == "report":
        write_page(args.output, args.page, DEFAULT, {name: list(answers) for name, answers in QUESTIONS.items()})
    else:
        run(Settings.of_protocol("head", vars(args)), args.data, args.questions)


def run(settings: Settings, folders: list[Path], questions: list[str]) -> None:
    """Train and measure the default and every answer to the questions, with each seed."""
    settings.output.mkdir(parents=True, exist_ok=True)
    data = {folder.resolve().name: load(folder, settings) for folder in folders}
    variants = [(question, name, variant) for question in questions for name, variant in QUESTIONS[question].items()]
    # Seeds are in the outer loop, so that all variants have the same seeds after an interruption.
    for seed in range(settings.seeds):
        for name, splits in data.items():
            for question, answer, variant in [("", DEFAULT, Variant()), *variants]:
                key = {"data": name, "question": question, "answer": answer, "seed": seed}
                if not is_finished(settings.output, key):
                    result = run_once(settings, splits, variant, seed, key)
                    append_run(settings.output, {**key, **result, "versions": versions()})


def run_once(
    settings: Settings, splits: dict[str, Any], variant: Variant, seed: int, key: dict[str, Any]
) -> dict[str, Any]:
    """Train and measure one variant with one seed."""
    labels: Tensor = splits["train"].labels
    settings = replace(settings, batch_size=variant.batch_size or settings.batch_size)
    steps = settings.epochs * (len(labels) // settings.batch_size)
    sampler: Sampler | None = None
    if variant.is_balanced:
        sampler = LabelBalancedSampler(labels, settings.batch_size)
    records = records_folder(settings.output, key)
    loss = make_loss(variant, LabelStatistics.from_labels(labels), steps)
    miner: BaseMiner | None = None if variant.miner is None else LabelOverlapMiner(**variant.miner)
    trained = train(settings, splits, Method(loss, miner, sampler), seed, records)
    return measure_run(settings, splits, "val", trained, 0.0, records)


def make_loss(variant: Variant, statistics: LabelStatistics, steps: int) -> MACLLoss:
    """Make the loss of a variant for a run with this number of training steps."""
    schedule = None if variant.schedule is None else variant.schedule(steps)
    distance = TemperatureScheduledSimilarity(schedule=schedule, **variant.distance)
    if variant.wrong_overlap_scale is not None:  # negative control; the constructor would refuse it
        distance.overlap_scale = variant.wrong_overlap_scale
    reducer = FrequencyWeightedReducer(**variant.reducer)
    return MACLLoss(label_statistics=statistics, distance=distance, reducer=reducer, **variant.loss)


if __name__ == "__main__":
    main()
