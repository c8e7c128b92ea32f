"""Count the batches with a positive pair of each of the rarest labels, with and without LabelBalancedSampler.

Without arguments, the script counts on synthetic scenes. For your own images, it needs only their label table (an id
column, then one 0/1 column per class):

    python benchmarks/sampler_coverage.py --labels FILE --ignore-columns scene --split-column split --split train
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, Sampler

from pml_macl.datasets import SyntheticScenes
from pml_macl.datasets.label_table import read_label_table
from pml_macl.samplers import LabelBalancedSampler


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--labels", type=Path, help="label table (default: synthetic scenes)")
    add("--split-column", help="column with the split of each image")
    add("--split", help="count on this split only")
    add("--ignore-columns", nargs="*", default=[], metavar="NAME", help="columns that are not classes")
    add("--batch-size", type=int, default=64)
    add("--labels-per-batch", type=int, help="labels to balance in each batch (default: as many as fit)")
    add("--rarest", type=int, default=5, metavar="K", help="show the K rarest labels")
    add("--passes", type=int, default=20, help="number of passes; the table shows their mean")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if (args.split is None) != (args.split_column is None):
        parser.error("--split and --split-column must be given together; add the missing one")
    return args


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    args = parse_args(argv)
    torch.manual_seed(args.seed)
    try:
        labels, classes = load_labels(args.labels, args.split_column, args.split, args.ignore_columns)
        samplers = {
            "shuffled": RandomSampler(range(len(labels))),
            "balanced": LabelBalancedSampler(labels, args.batch_size, args.labels_per_batch),
            "balanced, every image": LabelBalancedSampler(
                labels, args.batch_size, args.labels_per_batch, every_image=True
            ),
        }
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    counts = labels.sum(dim=0)
    rarest = [index for index in counts.argsort(stable=True).tolist() if counts[index] > 1][: args.rarest]
    print(
        f"{len(labels)} images, {len(classes)} labels, {labels.sum(dim=1).float().mean():.2f} labels per image, "
        f"batches of {args.batch_size} balanced over {samplers['balanced'].labels_per_batch} labels\n"
        f"share of batches with a positive pair of the label, mean of {args.passes} passes\n"
        "last row: share of the images that a pass visits\n"
    )
    columns = {name: count(sampler, labels, rarest, args.batch_size, args.passes) for name, sampler in samplers.items()}
    width = max(len(classes[index]) for index in rarest)
    print(f"{'label':{width}}  images  " + "  ".join(columns))
    for row, name in enumerate([*(classes[index] for index in rarest), ""]):
        images = counts[rarest[row]].item() if name else len(labels)
        shares = [f"{values[row]:.1%}".rjust(len(column)) for column, values in columns.items()]
        print(f"{name:{width}}  {images:6}  " + "  ".join(shares))
    return {name: values.tolist() for name, values in columns.items()}


def load_labels(
    path: Path | None, split_column: str | None, split: str | None, ignore_columns: list[str]
) -> tuple[Tensor, list[str]]:
    """The labels and their names, of one split or of all images; without a path, those of synthetic scenes."""
    if path is None:
        scenes = SyntheticScenes(2000)
        return scenes.labels, scenes.classes
    table = read_label_table(path, split_column, ignore_columns)
    if split is None:
        return table.labels, table.classes
    chosen = torch.tensor([name == split for name in table.splits])
    if not chosen.any():
        raise ValueError(f"--split must be one of {sorted(set(table.splits))}, got {split!r}, which no image has")
    return table.labels[chosen], table.classes


def count(sampler: Sampler[int], labels: Tensor, rarest: list[int], batch_size: int, num_passes: int) -> Tensor:
    """Share of batches in which two images have the label, for each of the rarest; then share of the images visited."""
    passes = [list(BatchSampler(sampler, batch_size, drop_last=True)) for _ in range(num_passes)]
    seen = torch.tensor([len({index for batch in batches for index in batch}) for batches in passes])
    held = torch.stack([labels[batch][:, rarest].sum(dim=0) for batches in passes for batch in batches])
    return torch.cat([(held >= 2).float().mean(dim=0), seen.float().mean(dim=0, keepdim=True) / len(labels)])


if __name__ == "__main__":
    main()
