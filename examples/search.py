"""Search an archive of images with a run of train.py or a pretrained head, by example image and by label.

Without arguments this trains on synthetic scenes, indexes them, and writes a page with the results of one query,
in about a minute on two cores. For your own images:

    python examples/search.py index (--run RUN | --pretrained) --images DIR [--labels FILE] --index FOLDER
    python examples/search.py query --index FOLDER --image FILE [--having LABEL ...] [--page result.html]
    python examples/search.py serve --index FOLDER
"""

import argparse
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from channel_files import channel_loader
from checkpoint import save_file
from command_line import add_table_options, device
from data import load_archive
from joined import add_feature_weight, chosen_weight, fit_components
from models import load_run, read_run
from pretrained_head import load_pretrained, pretrained_run
from result_page import result_page
from run_settings import check_device, new_folder
from torch import Tensor
from torch.utils.data import Dataset

from pml_macl.datasets import SyntheticScenes
from pml_macl.datasets.image_files import load_image
from pml_macl.datasets.image_matching import EXTENSIONS

try:
    from archive import Archive, make_search_model
except RuntimeError as error:  # PML imports faiss, and faiss-gpu loads its CUDA libraries when it is imported
    sys.exit(
        f"error: {error}; install faiss-gpu again with its CUDA libraries: pip install --force-reinstall faiss-gpu, or "
        "use the CPU: pip uninstall -y faiss-gpu && pip install faiss-cpu"
    )


class ImageFiles(Dataset[Tensor]):
    """The images of files, without labels."""

    def __init__(self, paths: list[Path], transform: Callable[[Any], Tensor], channels: int | None) -> None:
        self.paths, self.transform, self.load = paths, transform, channel_loader(channels) or load_image

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.load(self.paths[index]))


def is_hidden(path: Path) -> bool:
    """Whether the file or one of its folders is hidden."""
    return any(part.startswith(".") for part in path.parts)


def index(args: argparse.Namespace) -> None:
    """Embed all images of a folder and write the index folder."""
    if args.index.is_dir() and any(args.index.iterdir()) and not (args.index / "index").is_dir():
        raise ValueError(f"--index {args.index} holds something other than an index; choose another folder")
    network, transform, classes = load_pretrained(args.device) if args.pretrained else load_run(args.run, args.device)
    run = pretrained_run() if args.pretrained else read_run(args.run)
    channels = run["settings"].get("channels")
    images = args.images.resolve()
    extensions = EXTENSIONS if channels is None else (*EXTENSIONS, ".npy")
    if args.labels is None:
        files = (path for path in images.rglob("*") if path.is_file() and not is_hidden(path.relative_to(images)))
        paths = sorted(path for path in files if path.suffix.lower() in extensions)
        dataset: Dataset[Any] = ImageFiles(paths, transform, channels)
    else:
        archive = load_archive(args, transform, None if args.pretrained else classes, channels)
        paths, dataset, classes = list(archive.paths), archive.dataset, archive.dataset.classes
        paths = [images / path.relative_to(args.images) for path in paths]
    if not paths:
        raise ValueError(f"--images {images} holds no image ({', '.join(extensions)})")
    weight = chosen_weight(args, run["settings"])
    joined = fit_components(network.trunk, network.embedder, dataset, weight, args.device)
    model = make_search_model(network, classes, joined, args.device)
    model.index(dataset, ids=[path.relative_to(images).as_posix() for path in paths])
    args.index.mkdir(parents=True, exist_ok=True)
    (args.index / "archive.json").unlink(missing_ok=True)  # without it, an interrupted index is none
    model.save(args.index / "index")
    save_file(args.index / "best.pth", {**run, "classes": classes, "joined": joined})
    (args.index / "archive.json").write_text(json.dumps({"images": str(images)}), encoding="utf-8")
    print(f"{len(model)} images of {images} are indexed in {args.index}")


def query(args: argparse.Namespace) -> None:
    """Print the nearest images of an image file, and write a page if asked."""
    archive = Archive(args.index, args.device)
    answer = archive.search(args.image, args.k, args.having, args.lacking)
    if archive.model.labels is not None:
        print("predicted labels:", ", ".join(f"{name} {score:.0%}" for name, score in answer.predicted) or "none")
    for position, found in enumerate(answer.results, 1):
        name = found.path.relative_to(archive.images)
        print(f"{position:>3}  {found.distance:.4f}  {name}  {', '.join(found.labels)}")
    if not answer.results:
        print("no image passes the filters" if args.having or args.lacking else "there is no other image")
    if args.page is not None:
        chosen = (("with", args.having), ("without", args.lacking))
        filters = [f"{what} {', '.join(names)}" for what, names in chosen if names]
        shown = (args.image, answer.labels, answer.predicted, answer.results)
        page = result_page(*shown, "; ".join(filters), archive.channels)
        args.page.parent.mkdir(parents=True, exist_ok=True)
        args.page.write_text(page, encoding="utf-8")
        print(f"page: {args.page}")


def serve(args: argparse.Namespace) -> None:
    """Show a search page on this machine until Ctrl-C."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, to start again at once
            probe.bind(("127.0.0.1", args.port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"--port {args.port} is not free ({error}); choose another port") from error
    archive = Archive(args.index, args.device)
    from search_server import serve_page  # only this command needs Gradio

    serve_page(archive, args.port)


def demonstrate(folder: Path) -> None:
    """Train on synthetic scenes, index them, and search them with a scene that was not among them."""
    import train  # only the demonstration trains

    scenes = SyntheticScenes(1000, seed=0)
    write_archive(scenes, folder)
    write_images(SyntheticScenes(1, seed=1), folder / "query")
    data = ["--images", str(folder / "images"), "--labels", str(folder / "labels.csv")]
    train.main(["--dataset", "csv", *data, "--image-size", "32", "--epochs", "5", "--output", str(folder / "run")])
    main(["index", "--run", str(folder / "run"), *data, "--index", str(folder / "index")])
    image = ["--image", str(folder / "query" / "0.png")]
    main(["query", "--index", str(folder / "index"), *image, "--page", str(folder / "result.html")])


def write_archive(scenes: SyntheticScenes, folder: Path) -> None:
    """Write the images to ``images`` and their label sets to ``labels.csv``."""
    write_images(scenes, folder / "images")
    rows = [",".join([f"{row}.png", *map(str, labels.int().tolist())]) for row, labels in enumerate(scenes.labels)]
    (folder / "labels.csv").write_text("\n".join([",".join(["image", *scenes.classes]), *rows]), encoding="utf-8")


def write_images(scenes: SyntheticScenes, folder: Path) -> None:
    """Write each scene to a PNG file that is named by its number."""
    from torchvision.utils import save_image

    folder.mkdir(parents=True, exist_ok=True)
    for row, (image, _) in enumerate(scenes):
        save_image(image, folder / f"{row}.png")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder of the demonstration (default: runs/search-<time>)")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(metavar="{index,query,serve}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--index", type=Path, required=True, metavar="FOLDER", help="the index folder")
    shared.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    add = commands.add_parser("index", parents=[shared], help="embed the images of a folder and index them")
    add.set_defaults(command=index)
    network = add.add_mutually_exclusive_group(required=True)
    network.add_argument("--run", type=Path, help="output folder of train.py")
    network.add_argument("--pretrained", action="store_true", help="use the pretrained head for aerial images")
    add.add_argument("--images", type=Path, required=True, metavar="DIR", help="image folder")
    add.add_argument("--labels", type=Path, metavar="FILE", help="label table, for filters and predicted labels")
    add_table_options(add.add_argument)
    add_feature_weight(add.add_argument)
    ask = commands.add_parser("query", parents=[shared], help="find the images that are nearest to an image")
    ask.set_defaults(command=query)
    ask.add_argument("--image", type=Path, required=True, metavar="FILE", help="the query image")
    ask.add_argument("-k", type=int, default=10, help="number of images to find (default: 10)")
    ask.add_argument("--having", nargs="+", default=[], metavar="LABEL", help="labels that each result must have")
    ask.add_argument("--lacking", nargs="+", default=[], metavar="LABEL", help="labels that no result may have")
    ask.add_argument("--page", type=Path, metavar="FILE", help="write the results to an HTML file, too")
    page = commands.add_parser("serve", parents=[shared], help="search in a web page on this machine")
    page.set_defaults(command=serve)
    page.add_argument("--port", type=int, default=7860, help="port of the page on 127.0.0.1 (default: 7860)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        if args.command is None:
            demonstrate(args.output or new_folder("search"))
        else:
            check_device(args.device)
            args.command(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
