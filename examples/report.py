"""The tables and the figures of train.py and evaluate.py."""

import json
from pathlib import Path
from typing import Any

import torch
from channel_files import preview
from torch import Tensor

from pml_macl import LabelStatistics
from pml_macl.visualization import plot_label_average_precision, plot_retrieval_grid, plot_training_curves

CURVES = ["label_mean_average_precision", "ndcg", "mean_average_precision", "mean_average_precision_at_r"]
NAMES = {
    "label_mean_average_precision": "label mAP",
    "label_mean_average_precision_tail": "label mAP, rarest third",
    "ndcg": "nDCG",
    "mean_average_precision_exact": "mAP (same label set)",
    "mean_average_precision_jaccard_50": "mAP (Jaccard >= 0.5)",
    "mean_average_precision": "mAP (shares a label)",
    "mean_average_precision_at_r": "mAP at R (shares a label)",
    "r_precision": "R-precision (shares a label)",
    "recall_at_1": "recall at 1 (shares a label)",
    "recall_at_5": "recall at 5 (shares a label)",
    "recall_at_10": "recall at 10 (shares a label)",
    "mean_reciprocal_rank": "mean reciprocal rank",
}


def save_json(path: Path, result: dict[str, Any]) -> None:
    """Write the result as JSON; an undefined metric (NaN) becomes null."""
    defined = json.loads(json.dumps(result), parse_constant=lambda _: None)
    path.write_text(json.dumps(defined, indent=2) + "\n")


def print_table(images: str, columns: dict[str, dict[str, Any]]) -> None:
    """Print one column of metrics per entry of ``columns``, in percent; ``images`` says on which images."""
    widths = {heading: max(12, len(heading) + 2) for heading in columns}
    print(f"\n{images + ', percent':<30}" + "".join(f"{heading:>{width}}" for heading, width in widths.items()))
    for name, title in NAMES.items():
        if all(name in metrics for metrics in columns.values()):  # an older checkpoint may lack a metric
            cells = (f"{100 * columns[heading][name]:>{width}.1f}" for heading, width in widths.items())
            print(f"{title:<30}" + "".join(cells))


def draw_curves(folder: Path, losses: dict[str, list], metrics: dict[str, list], best_epoch: int) -> None:
    """Draw the training curves from record-keeper's tables."""
    figure = plot_training_curves(
        {"metric_loss": losses["metric_loss"]},
        {name: metrics[name] for name in CURVES},
        [max(epoch, 0) for epoch in metrics["epoch"]],  # the record before the training has epoch -1
        best_epoch,
        "Training and validation",
    )
    figure.savefig(folder / "training_curves.png", dpi=150)


def draw_labels(
    folder: Path,
    average_precision: dict[str, list[float]],
    statistics: LabelStatistics,
    classes: list[str],
    images: str,
) -> None:
    """Draw the average precision of each label, ordered by its frequency in the training split."""
    title = f"Average precision per label, {images}"
    figure = plot_label_average_precision(average_precision, statistics.counts.cpu(), classes, title)
    figure.savefig(folder / "label_average_precision.png", dpi=150)


def draw_grid(
    folder: Path,
    dataset: Any,
    labels: Tensor,
    embeddings: Tensor,
    statistics: LabelStatistics,
    classes: list[str],
    images: str,
    channels: int | None = None,
) -> None:
    """Draw five queries with their five nearest images. Each query carries one of the rarest labels."""

    def picture(row: int) -> Tensor:
        image = dataset[row][0]
        return image if channels is None else preview(image)

    queries: list[int] = []
    for label in statistics.counts.cpu().argsort().tolist():
        carriers = [row for row in labels[:, label].nonzero().flatten().tolist() if row not in queries]
        queries += carriers[:1]
    queries = queries[:5]
    distances = torch.cdist(embeddings[queries], embeddings)
    distances[range(len(queries)), queries] = torch.inf
    nearest = distances.argsort(dim=1)[:, :5]
    figure = plot_retrieval_grid(
        [picture(row) for row in queries],
        labels[queries],
        [[picture(row) for row in found] for found in nearest.tolist()],
        labels[nearest],
        classes,
        f"Queries with a rare label and their nearest images, {images}",
    )
    figure.savefig(folder / "retrieval_grid.png", dpi=150)
