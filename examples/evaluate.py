"""Measure the retrieval of a run of train.py, of a pretrained head, or of embeddings from any program.

The test split of a run, or all images of an archive with the network of a run or the pretrained head of search.py:

    python examples/evaluate.py --run RUN [--json FILE] [--figures FOLDER]
    python examples/evaluate.py (--run RUN | --pretrained) --images DIR --labels FILE [--feature-weight W]

Embeddings, each compared with the others, or with those of a reference set:

    python examples/evaluate.py --embeddings FILE --labels FILE [--k K] [--json FILE]
    python examples/evaluate.py --embeddings FILE --labels FILE --reference-embeddings FILE --reference-labels FILE

Embeddings are .npy files, or .npz files with one array; of an .npz file with several arrays, name one: FILE.npz:NAME.
Labels are such a file of zeros and ones, one row per embedding and one column per class, or a label table whose rows
have the order of the embeddings.
"""

import argparse
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint import load_file
from command_line import add_table_options, at_least_1, device
from data import Split, check_splits, load_archive, load_splits
from joined import add_feature_weight, chosen_weight, fit_components, make_embedder
from models import load_run, read_run
from pretrained_head import load_pretrained, pretrained_run
from progress import tidy_output
from report import draw_grid, draw_labels, print_table, save_json
from retrieval_metrics import make_calculator, measure
from run_settings import Settings, check_device, resumed_settings
from torch import Tensor

from pml_macl import LabelStatistics
from pml_macl.datasets.label_table import read_label_table
from pml_macl.labels import check_labels
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

ARRAYS = (".npy", ".npz")
STATISTICS = "label_statistics."


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = parse_args(argv)
    try:
        check_device(args.device)
        check_outputs(args)
        with tidy_output():
            return evaluate_embeddings(args) if args.embeddings is not None else evaluate_run(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def evaluate_run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed images with the network of a run or the pretrained one, then print, save and draw its metrics."""
    title, channels, loading = "all images", None, {"batch_size": 128, "dataloader_num_workers": 0}
    run = pretrained_run() if args.pretrained else read_run(args.run)
    if args.pretrained:
        (model, transform, _), epoch, heading = load_pretrained(args.device), None, "pretrained"
        split = load_archive(args, transform, None, None)
        classes, statistics = split.dataset.classes, LabelStatistics.from_labels(split.labels)
    else:
        model, transform, classes = load_run(args.run, args.device)
        settings, statistics, checkpoint = load_checkpoint(args.run, args.device)
        channels = settings.channels
        loading = {"batch_size": settings.batch_size, "dataloader_num_workers": settings.num_workers}
        if args.images is None:
            title, split = "test split", load_test_split(settings, checkpoint)
        else:
            split = load_archive(args, transform, classes, channels)
        epoch = run["epoch"]
        heading = f"epoch {epoch}"
    weight = chosen_weight(args, run["settings"])
    heading += f", joined {weight}" * (weight > 0)
    joined = fit_components(model.trunk, model.embedder, split.dataset, weight, args.device)
    embedder = make_embedder(model.embedder, joined, args.device)
    tester = MultiLabelEmbeddingSpaceTester(data_device=args.device, **loading)
    embeddings, labels = tester.get_all_embeddings(split.dataset, model.trunk, embedder)
    metrics = measure(make_calculator(statistics), embeddings, labels)
    paths = {name: None if getattr(args, name) is None else str(getattr(args, name)) for name in ("run", "images")}
    source = {**paths, "epoch": epoch, "feature_weight": weight}
    result = print_and_save(args, source, len(labels), None, classes, metrics, title, heading)
    if args.figures is not None:
        draw_labels(args.figures, {heading: metrics["label_average_precision"]}, statistics, classes, title)
        found = (labels.cpu().bool(), embeddings.cpu(), statistics, classes)
        draw_grid(args.figures, split.dataset, *found, title, channels)
        print(f"figures: {args.figures}")
    return result


def evaluate_embeddings(args: argparse.Namespace) -> dict[str, Any]:
    """Print and save the metrics of embeddings in files."""
    query = load_embeddings("--embeddings", args.embeddings)
    query_labels, classes = load_labels("--labels", args.labels, len(query), None, args)
    reference = reference_labels = None
    if args.reference_embeddings is not None:
        reference = load_embeddings("--reference-embeddings", args.reference_embeddings)
        if reference.shape[1] != query.shape[1]:
            raise ValueError(
                f"--reference-embeddings must have the embedding size of --embeddings ({query.shape[1]}), got "
                f"{reference.shape[1]}; compute both with the same network"
            )
        reference_labels, reference_classes = load_labels(
            "--reference-labels", args.reference_labels, len(reference), query_labels.shape[1], args
        )
        if classes is not None and reference_classes is not None and classes != reference_classes:
            raise ValueError(
                f"--reference-labels must have the classes of --labels, {classes}, got {reference_classes}; use the "
                "same columns in the same order"
            )
    metrics = measure(make_calculator(k=args.k, device=args.device), query, query_labels, reference, reference_labels)
    references = None if reference is None else len(reference)
    files = {name: getattr(args, name) for name in ("embeddings", "reference_embeddings")}
    source = {**{name: None if file is None else str(file) for name, file in files.items()}, "k": args.k}
    title = "all ranks" if args.k is None else f"first {args.k} ranks"
    return print_and_save(args, source, len(query), references, classes, metrics, title, "embeddings")


def print_and_save(
    args: argparse.Namespace,
    source: dict[str, Any],
    num_queries: int,
    num_references: int | None,
    classes: list[str] | None,
    metrics: dict[str, Any],
    title: str,
    heading: str,
) -> dict[str, Any]:
    """Print the table, write the JSON file if asked, and return its content."""
    others = "each compared with the others" if num_references is None else f"{num_references} references"
    print(f"{num_queries} queries, {others}, {len(metrics['label_average_precision'])} labels")
    print_table(title, {heading: metrics})
    result = {**source, "num_queries": num_queries, "num_references": num_references, "classes": classes}
    result["metrics"] = metrics
    if args.json is not None:
        save_json(args.json, result)
        print(f"\nJSON: {args.json}")
    return result


def load_checkpoint(run: Path, device: torch.device) -> tuple[Settings, LabelStatistics, dict[str, Any]]:
    """The settings of a run, the label counts of its training split, and its checkpoint."""
    try:
        checkpoint = load_file(run / "checkpoint.pth", ("settings", "classes", "num_images", "loss_funcs"))
    except FileNotFoundError as error:
        raise ValueError(
            f"--run {run} has no checkpoint.pth, which holds the settings of the run; give the whole output folder of "
            "train.py"
        ) from error
    settings = resumed_settings({"output": run, "resume": True, "device": device}, checkpoint["settings"])
    statistics = LabelStatistics(len(checkpoint["classes"]))
    state = checkpoint["loss_funcs"]["metric_loss"]
    # A sum of losses holds the counts of each; they are the same.
    counts = {name.rpartition(STATISTICS)[2]: value for name, value in state.items() if STATISTICS in name}
    statistics.load_state_dict(counts)
    return settings, statistics, checkpoint


def load_test_split(settings: Settings, checkpoint: dict[str, Any]) -> Split:
    """The test split that train.py evaluated.

    Raises:
        FileNotFoundError: the label table or an image is missing.
        ValueError: the images or labels are not those of the run.
    """
    try:
        splits, classes = load_splits(settings)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"an image or the label table of the run is missing: {error}. Put it back, or evaluate all images of "
            "another folder with --images and --labels"
        ) from error
    try:
        check_splits(splits, classes, checkpoint)
    except ValueError as error:
        raise ValueError(
            f"{settings.labels} has changed since the run: {error}; restore the label table, or evaluate all images "
            "with --images and --labels"
        ) from error
    return splits["test"]


def load_embeddings(option: str, file: Path) -> Tensor:
    """(N, D) finite embeddings from a file that ``option`` names."""
    array = load_array(option, file)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{option} must hold at least one embedding, shape (rows, embedding size), got {array.shape} in {file}"
        )
    embeddings = torch.from_numpy(array)
    not_finite = int((~embeddings.isfinite()).any(dim=1).sum())
    if not_finite:
        raise ValueError(
            f"{option} must be finite, got NaN or infinity in {not_finite} of {len(embeddings)} rows of {file}; remove "
            "these rows here and in the labels, or compute the embeddings again"
        )
    return embeddings


def load_labels(
    option: str, file: Path, num_rows: int, num_classes: int | None, args: argparse.Namespace
) -> tuple[Tensor, list[str] | None]:
    """(N, C) boolean labels from a file that ``option`` names, and the label names if the file is a table."""
    name, classes = f"{option} {file}", None
    if is_array(file):
        labels = torch.from_numpy(load_array(option, file))
        if labels.ndim != 2:
            raise ValueError(
                f"{name} must have one row per embedding and one column per class, got shape {tuple(labels.shape)}; "
                "turn class indices into rows of 0 and 1"
            )
    else:
        columns = {"ignore_columns": args.ignore_columns, "id_column": args.id_column}
        table = read_label_table(file, **columns, empty_cells=args.empty_cells)
        labels, classes = table.labels, table.classes
    return check_labels(labels, num_rows, num_classes, name), classes


def is_array(file: Path) -> bool:
    return file.suffix.lower() in ARRAYS or ".npz:" in file.name


def load_array(option: str, file: Path) -> np.ndarray[Any, Any]:
    """The array of an ``.npy`` file, which stays on the disk until it is used, or of an ``.npz`` file."""
    path, _, name = str(file).partition(".npz:")
    path = f"{path}.npz" if name else path
    if not is_array(file):
        raise ValueError(f"{option} must be an .npy or .npz file, got {file}; save the array with numpy.save")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option}: there is no file {path}; correct the path")
    if path.lower().endswith(".npz"):
        with open(path, "rb") as opened:  # numpy does not close a damaged file
            with readable(option, path):
                archive = np.load(opened, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ValueError("it is no .npz file")
            name = choose_array(option, path, archive.files, name)
            with readable(option, path):
                array = archive[name]
    else:
        with readable(option, path):
            # "c": torch wants an array that may be written to; the file itself never changes.
            array = np.load(path, mmap_mode="c", allow_pickle=False)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(f"{option} must hold numbers, got an array of {array.dtype} in {file}; convert it with astype")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@contextmanager
def readable(option: str, path: str) -> Iterator[None]:
    """Turn numpy's errors about a damaged file, or a file with other content, into one that names the option."""
    try:
        yield
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{option} must hold an array of numbers, but numpy cannot read {path} ({error}); save the array with "
            "numpy.save"
        ) from error


def choose_array(option: str, path: str, names: list[str], name: str) -> str:
    """The name of the array to read from an ``.npz`` file."""
    if name and name not in names:
        raise ValueError(f"{option}: {path} has no array {name!r}; it has {', '.join(names)}")
    if not name and len(names) != 1:
        raise ValueError(
            f"{option} must name one array of {path}, which has {', '.join(names) or 'none'}; write {path}:NAME"
        )
    return name or names[0]


def check_outputs(args: argparse.Namespace) -> None:
    """Make the folders of the output before the evaluation; refuse to overwrite what train.py wrote."""
    if args.run is not None:
        own = {args.run.resolve(), (args.run / "metrics.json").resolve()}
        for option, path in (("--json", args.json), ("--figures", args.figures)):
            if path is not None and path.resolve() in own:
                raise ValueError(f"{option} {path} would overwrite what train.py wrote; choose another path")
    if args.json is not None:
        if args.json.is_dir():
            raise ValueError(f"--json must be a file, got the folder {args.json}; add a file name")
        args.json.parent.mkdir(parents=True, exist_ok=True)
    if args.figures is not None:
        args.figures.mkdir(parents=True, exist_ok=True)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, metavar="RUN", help="output folder of train.py")
    what.add_argument("--pretrained", action="store_true", help="the pretrained head of search.py; needs --images")
    what.add_argument("--embeddings", type=Path, metavar="FILE", help="embeddings: .npy, .npz or FILE.npz:NAME")
    add = parser.add_argument
    add("--labels", type=Path, metavar="FILE", help="labels of the embeddings, or label table of --images")
    add_table_options(add)
    add("--json", type=Path, metavar="FILE", help="write the metrics to this file, too")
    add(
        "--device",
        type=device,
        default=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        help="default: cuda if there is a GPU, otherwise cpu",
    )
    add = parser.add_argument_group("with --run or --pretrained").add_argument
    add("--images", type=Path, metavar="DIR", help="evaluate all images of this archive; needs --labels")
    add_feature_weight(add)
    add("--figures", type=Path, metavar="FOLDER", help="draw the average precision of each label, and example queries")
    add = parser.add_argument_group("with --embeddings").add_argument
    add("--reference-embeddings", type=Path, metavar="FILE", help="rank these; needs --reference-labels")
    add("--reference-labels", type=Path, metavar="FILE", help="labels of --reference-embeddings")
    add("--k", type=at_least_1, metavar="K", help="rank only the K nearest references (default: all)")
    args = parser.parse_args(argv)
    is_file = args.embeddings is not None
    other = "images figures feature_weight" if is_file else "reference_embeddings reference_labels k"
    for name in other.split():
        if getattr(args, name) is not None:
            parser.error(f"--{name.replace('_', '-')} needs --{'run or --pretrained' if is_file else 'embeddings'}")
    if is_file and args.labels is None:
        parser.error("--embeddings needs --labels FILE")
    if args.pretrained and None in (args.images, args.labels):
        parser.error("--pretrained needs --images DIR and --labels FILE")
    if args.run is not None and (args.images is None) != (args.labels is None):
        parser.error("--images DIR and --labels FILE need each other; without both, the test split is evaluated")
    if (args.reference_embeddings is None) != (args.reference_labels is None):
        parser.error("--reference-embeddings FILE and --reference-labels FILE need each other")
    return args


if __name__ == "__main__":
    main()
