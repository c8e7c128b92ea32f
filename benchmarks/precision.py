"""Print the errors of the losses in each floating-point type against float64, as Markdown tables with a conclusion.

    python benchmarks/precision.py [--rows 128] [--references 65536] > tables.md

The benchmark rounds the embeddings to the type before it computes both losses. The errors are therefore those of the
computation, plus, in half precision, the rounding of the gradient. Under autocast, the benchmark multiplies the
embeddings by the unit matrix first, as the last layer of a network would.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from pytorch_metric_learning import losses as pml_losses
from torch import Tensor

from pml_macl import losses
from pml_macl.distances import TemperatureScheduledSimilarity

MODES: dict[str, tuple[torch.dtype, torch.dtype | None]] = {  # type of the embeddings, and of autocast
    "float32": (torch.float32, None),
    "bfloat16": (torch.bfloat16, None),
    "float16": (torch.float16, None),
    "bfloat16 autocast": (torch.float32, torch.bfloat16),
    "float16 autocast": (torch.float32, torch.float16),
}


class Errors(NamedTuple):
    """Relative error of the value, and the largest error of the gradient as a share of its largest entry."""

    value: float
    gradient: float


def make_losses(temperature: float) -> dict[str, Callable[[], torch.nn.Module]]:
    """Functions that make each loss of the table; PML's wrapped losses have no temperature and keep their defaults."""

    def macl(engine: str) -> losses.MACLLoss:
        similarity = TemperatureScheduledSimilarity(temperature, min_temperature=min(0.01, temperature))
        return losses.MACLLoss(distance=similarity, engine=engine)

    baselines = {
        "SupConAnyLoss": losses.SupConAnyLoss,
        "SupConExactLoss": losses.SupConExactLoss,
        "MultiSupConLoss": losses.MultiSupConLoss,
        "JaccardSupConLoss": losses.JaccardSupConLoss,
        "MulSupConLoss": losses.MulSupConLoss,
        "SimilarityDissimilarityLoss": losses.SimilarityDissimilarityLoss,
    }
    wrapped = {"MultiSimilarityLoss": pml_losses.MultiSimilarityLoss, "TripletMarginLoss": pml_losses.TripletMarginLoss}
    return {
        "MACLLoss, fused": lambda: macl("fused"),
        "MACLLoss, reference": lambda: macl("reference"),
        **{name: lambda loss=loss: loss(temperature) for name, loss in baselines.items()},
        **{f"wrapped {name}": lambda loss=loss: losses.MultiLabelLossWrapper(loss()) for name, loss in wrapped.items()},
    }


def make_batch(rows: int, references: int, classes: int = 17, size: int = 128) -> tuple[Tensor | None, ...]:
    """Embeddings that partly reflect the labels, as in the middle of a training run."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, size, generator=generator)

    def draw(number: int) -> tuple[Tensor, Tensor]:
        labels = torch.rand(number, classes, generator=generator) < 3.3 / classes
        noise = torch.randn(number, size, generator=generator)
        return labels.float() @ centres + noise, labels

    return (*draw(rows), *(draw(references) if references else (None, None)))


def value_and_gradient(
    loss_fn: torch.nn.Module, batch: tuple[Tensor | None, ...], dtype: torch.dtype, autocast: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """The loss of a batch and its gradient, computed in a type and returned as float64."""
    embeddings, labels, ref_emb, ref_labels = batch
    leaf = embeddings.detach().to(dtype).requires_grad_()
    context: AbstractContextManager = nullcontext()
    if autocast is not None:
        context = torch.autocast(leaf.device.type, dtype=autocast)
    with context:
        rows = leaf if autocast is None else leaf @ torch.eye(leaf.shape[1], device=leaf.device)
        references = None if ref_emb is None else ref_emb.to(rows.dtype)
        loss = loss_fn(rows, labels, None, references, ref_labels)
    loss.backward()
    return loss.detach().double(), leaf.grad.double()


def measure(make_loss: Callable[[], torch.nn.Module], batch: tuple[Tensor | None, ...], mode: str) -> Errors:
    """Errors of a loss on a batch that is rounded to the type of the mode first."""
    dtype, autocast = MODES[mode]
    rounded = tuple(x.to(autocast or dtype).float() if x is not None and x.is_floating_point() else x for x in batch)
    value, gradient = value_and_gradient(make_loss(), rounded, dtype, autocast)
    exact_value, exact_gradient = value_and_gradient(make_loss(), rounded, torch.float64, None)
    value_error = (value - exact_value).abs() / exact_value.abs()
    gradient_error = (gradient - exact_gradient).abs().max() / exact_gradient.abs().max()
    return Errors(value_error.item(), gradient_error.item())


def table(temperature: float, batch: tuple[Tensor | None, ...], names: list[str] | None = None) -> list[str]:
    """Lines of a Markdown table: one row per loss, with the errors of value and gradient for each mode."""
    lines = ["| loss | " + " | ".join(MODES) + " |", "|---|" + "---:|" * len(MODES)]
    for name, make_loss in make_losses(temperature).items():
        if names is None or name in names:
            errors = (measure(make_loss, batch, mode) for mode in MODES)
            lines.append(f"| {name} | " + " | ".join(f"{e.value:.0e}, {e.gradient:.0e}" for e in errors) + " |")
    return lines


def conclusion(lines: list[str]) -> str:
    """The largest errors of each mode and the losses that have them, as a list.

    Args:
        lines: lines of Markdown with any number of the tables; other lines are ignored.
    """
    largest: dict[tuple[str, int], tuple[float, str]] = {}
    for line in lines:
        name, *cells = line.strip("| ").split(" | ")
        if len(cells) != len(MODES) or not cells[0][:1].isdigit():
            continue
        for mode, cell in zip(MODES, cells, strict=True):
            for column, error in enumerate(map(float, cell.split(", "))):
                largest[mode, column] = max(largest.get((mode, column), (0.0, "")), (error, f"`{name}`"))
    said = []
    for mode in MODES:
        (value, value_name), (gradient, gradient_name) = largest[mode, 0], largest[mode, 1]
        said.append(
            f"- **{mode}**: at most {value:.0e} in the value ({value_name}) and {gradient:.0e} in the gradient "
            f"({gradient_name})."
        )
    return "\n".join(said)


def main(argv: list[str] | None = None) -> None:
    """Print a table for each temperature, one for many references, and the largest errors of all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--references", type=int, default=65536)
    parser.add_argument("--anchors", type=int, default=16, help="rows of the batch with references")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    printed: list[str] = []
    contrastive = [name for name in make_losses(0.1) if not name.startswith("wrapped")]
    for temperature, rows, references, names in (
        (0.1, args.rows, 0, None),
        (0.01, args.rows, 0, contrastive),
        (0.01, args.anchors, args.references, contrastive),
    ):
        beside = f", {references} references" if references else ""
        print(f"Temperature {temperature}, {rows} rows{beside}:\n")
        batch = tuple(None if x is None else x.to(args.device) for x in make_batch(rows, references))
        lines = table(temperature, batch, names)
        print("\n".join(lines), end="\n\n")
        printed += lines
    print(f"Largest errors of all tables:\n\n{conclusion(printed)}")


if __name__ == "__main__":
    main()
