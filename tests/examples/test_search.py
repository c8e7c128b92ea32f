"""Index and query of examples/search.py, its result page, and the demonstration."""

import json
import re
import runpy
import shutil
import sys
from html.parser import HTMLParser

import pytest
import search
import torch
from archive import Archive
from archives import write_untrained_run
from models import load_run, read_run
from result_page import Found, figure, result_page, thumbnail_or_blank

from pml_macl.datasets import SyntheticScenes
from pml_macl.datasets.image_files import load_image
from pml_macl.inference import JoinedEmbedder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A run with random weights, 30 scenes in files of two folders, and their label table."""
    folder = tmp_path_factory.mktemp("data")
    scenes = SyntheticScenes(30, seed=0)
    search.write_archive(scenes, folder)
    (folder / "images" / "deep").mkdir()
    (folder / "images" / "29.png").rename(folder / "images" / "deep" / "29.png")
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("\n29.png,", "\ndeep/29.png,"))
    write_untrained_run(folder / "run", scenes.classes)
    return folder, scenes


@pytest.fixture(scope="module")
def index(data):
    folder, _ = data
    arguments = ["--run", str(folder / "run"), "--images", str(folder / "images")]
    search.main(["index", *arguments, "--labels", str(folder / "labels.csv"), "--index", str(folder / "index")])
    search.main(["index", *arguments, "--index", str(folder / "unlabelled")])
    return folder / "index"


def lines(capsys):
    """Rank, name and labels of each printed result."""
    found = re.findall(r"^ +(\d+)  ([\d.]+)  (\S+)  (.*)$", capsys.readouterr().out, re.MULTILINE)
    return [(int(rank), name, labels.split(", ") if labels else []) for rank, _, name, labels in found]


def nearest(data, image):
    """Names of all images but the query itself, nearest first, by a loop."""
    folder, _ = data
    model, transform, _ = load_run(folder / "run")
    distances = {}
    with torch.no_grad():
        query = torch.nn.functional.normalize(model(transform(load_image(image))[None]))
        for path in sorted((folder / "images").rglob("*.png")):
            embedding = torch.nn.functional.normalize(model(transform(load_image(path))[None]))
            distances[path.relative_to(folder / "images").as_posix()] = float((embedding - query).norm())
    distances.pop(image.name, None)
    return sorted(distances, key=distances.get)


def test_a_query_finds_what_a_loop_finds(data, index, capsys):
    folder, scenes = data
    capsys.readouterr()
    search.main(["query", "--index", str(index), "--image", str(folder / "images" / "3.png"), "-k", "50"])
    found = lines(capsys)
    assert [name for _, name, _ in found] == nearest(data, folder / "images" / "3.png")  # without itself
    assert [rank for rank, _, _ in found] == list(range(1, 30))
    for _, name, labels in found:
        row = int(re.search(r"(\d+)\.png", name)[1])
        assert labels == [label for label, has in zip(scenes.classes, scenes.labels[row], strict=True) if has]


def test_filters(data, index, capsys):
    folder, scenes = data
    having, lacking = scenes.classes[0], scenes.classes[1]
    capsys.readouterr()
    query = ["query", "--index", str(index), "--image", str(folder / "images" / "3.png"), "-k", "50"]
    search.main([*query, "--having", having, "--lacking", lacking])
    found = lines(capsys)
    passing = (scenes.labels[:, 0] & ~scenes.labels[:, 1]).nonzero().flatten().tolist()
    assert {int(re.search(r"(\d+)\.png", name)[1]) for _, name, _ in found} == set(passing) - {3}
    search.main([*query, "--having", having, "--lacking", having])
    assert "no image passes the filters" in capsys.readouterr().out


def test_an_index_moves_with_its_networks(data, index, tmp_path, capsys):
    """The index folder needs neither the run nor the label table."""
    folder, _ = data
    moved = tmp_path / "moved"
    shutil.copytree(index, moved)
    assert sorted(path.name for path in moved.iterdir()) == ["archive.json", "best.pth", "index"]
    settings = {"images": str((folder / "images").resolve())}
    assert json.loads((moved / "archive.json").read_text()) == settings
    search.main(["query", "--index", str(moved), "--image", str(folder / "images" / "3.png")])
    assert lines(capsys)


@pytest.mark.parametrize(
    ("pretrained", "options", "weight"),
    [
        (False, (), None),
        (True, (), 0.2),
        (True, ("--feature-weight", "0"), None),
        (False, ("--feature-weight", "1"), 1),
    ],
)
def test_joined_embeddings(data, tmp_path, pretrained, options, weight):
    """By default, features that started from pretrained weights are joined."""
    folder, scenes = data
    write_untrained_run(tmp_path / "run", scenes.classes, pretrained)
    arguments = ["--run", str(tmp_path / "run"), "--images", str(folder / "images"), *options]
    search.main(["index", *arguments, "--index", str(tmp_path / "index")])
    joined = read_run(tmp_path / "index")["joined"]
    assert weight == (None if joined is None else joined["weight"])
    found = Archive(tmp_path / "index").search(folder / "images" / "3.png", 29, [], []).results
    network, transform, _ = load_run(tmp_path / "run")
    names = sorted((folder / "images").rglob("*.png"))
    with torch.no_grad():
        features = network.trunk(torch.stack([transform(load_image(path)) for path in names]))
        embedder = network.embedder if weight is None else JoinedEmbedder.fit(network.embedder, features, weight)
        embeddings = torch.nn.functional.normalize(embedder(features))
    query = embeddings[names.index(folder / "images" / "3.png")]
    distances = {name: float(d) for name, d in zip(names, (embeddings - query).square().sum(dim=1), strict=True)}
    assert [result.distance for result in found] == pytest.approx(sorted(distances.values())[1:], abs=1e-5)
    for result in found:
        assert result.distance == pytest.approx(distances[result.path], abs=1e-5)


def test_links_are_indexed_and_hidden_files_are_not(data, tmp_path, capsys):
    folder, _ = data
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        (images / f"{number}.png").symlink_to(folder / "images" / f"{number}.png")
    (images / "._0.png").write_bytes(b"of a Mac")
    (images / "a.png").mkdir()
    (images / ".thumbs").mkdir()
    shutil.copy(folder / "images" / "0.png", images / ".thumbs" / "0.png")
    search.main(["index", "--run", str(folder / "run"), "--images", str(images), "--index", str(tmp_path / "index")])
    search.main(["query", "--index", str(tmp_path / "index"), "--image", str(images / "3.png")])
    assert {name for _, name, _ in lines(capsys)} == {"0.png", "1.png", "2.png", "4.png"}


def test_a_run_is_not_overwritten(data):
    folder, _ = data
    before = (folder / "run" / "best.pth").read_bytes()
    images = ["--images", str(folder / "images"), "--index", str(folder / "run")]
    with pytest.raises(
        SystemExit, match=r"error: --index .* holds something other than an index; choose another folder"
    ):
        search.main(["index", "--pretrained", *images])
    assert (folder / "run" / "best.pth").read_bytes() == before


def test_an_interrupted_index_is_none_and_can_be_made_again(data, tmp_path, monkeypatch):
    folder, _ = data
    words = ["index", "--run", str(folder / "run"), "--images", str(folder / "images"), "--index", str(tmp_path / "x")]
    search.main(words)

    def fails(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(search, "save_file", fails)
        with pytest.raises(SystemExit, match="disk full"):
            search.main(words)
    with pytest.raises(SystemExit, match="holds no index; make one with"):
        search.main(["query", "--index", str(tmp_path / "x"), "--image", str(folder / "images" / "3.png")])
    search.main(words)
    search.main(["query", "--index", str(tmp_path / "x"), "--image", str(folder / "images" / "3.png")])


def test_images_without_labels(data, index, capsys):
    folder, _ = data
    image = folder / "images" / "deep" / "29.png"
    search.main(["query", "--index", str(folder / "unlabelled"), "--image", str(image), "-k", "50"])
    printed = capsys.readouterr().out
    assert "predicted" not in printed
    assert len(printed.splitlines()) == 29
    with pytest.raises(SystemExit, match="error: having and lacking need labels"):
        search.main(["query", "--index", str(folder / "unlabelled"), "--image", str(image), "--having", "ship"])


def test_errors_name_the_argument(data, index, tmp_path):
    folder, _ = data
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"PNG")
    image = ["--image", str(folder / "images" / "3.png")]
    for arguments, message in (
        (["query", "--index", str(tmp_path), *image], "--index .* holds no index"),
        (["query", "--index", str(index), "--image", str(tmp_path / "broken.png")], "cannot decode image .*broken.png"),
        (["query", "--index", str(index), "--image", str(tmp_path / "none.png")], "none.png"),
        (["query", "--index", str(index), *image, "-k", "0"], "k must be at least 1"),
        (["query", "--index", str(index), *image, "--having", "shp"], "having must hold names of classes, got 'shp'"),
        (["index", "--run", str(tmp_path), "--images", str(tmp_path), "--index", str(tmp_path / "i")], "best.pth"),
    ):
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            search.main(arguments)
    (tmp_path / "broken.png").unlink()
    with pytest.raises(SystemExit, match=r"error: --images .* holds no image"):
        search.main(["index", "--run", str(folder / "run"), "--images", str(tmp_path), "--index", str(tmp_path / "i")])


def test_devices_are_checked(data, index, monkeypatch, capsys):
    query = ["query", "--index", str(index), "--image", str(data[0] / "images" / "3.png")]
    with pytest.raises(SystemExit) as leaving:
        search.main([*query, "--device", "gpu"])
    assert leaving.value.code == 2
    assert "must be a device of torch, such as cpu or cuda:0, got 'gpu'" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="error: --device cuda needs a GPU, and torch finds none"):
        search.main([*query, "--device", "cuda"])


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_faiss_without_its_cuda_libraries(monkeypatch):
    class Archive:  # in the place of the module, whose import of PML imports faiss
        def __getattr__(self, name):
            raise RuntimeError("faiss-gpu installed but nvidia-cublas-cu12 is missing")

    monkeypatch.setitem(sys.modules, "archive", Archive())
    with pytest.raises(SystemExit, match=r"error: faiss-gpu .* is missing; .* pip install --force-reinstall faiss-gpu"):
        runpy.run_path(search.__file__)


def test_an_image_behind_a_linked_folder_leaves_itself_out(data, tmp_path, capsys):
    folder, _ = data
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "part").symlink_to(folder / "images", target_is_directory=True)
    header, *rows = (folder / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([header, *(f"part/{row}" for row in rows)]) + "\n")
    words = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels.csv")]
    search.main(["index", "--run", str(folder / "run"), *words, "--index", str(tmp_path / "index")])
    capsys.readouterr()
    search.main(["query", "--index", str(tmp_path / "index"), "--image", str(tmp_path / "images" / "part" / "3.png")])
    found = {name for _, name, _ in lines(capsys)}
    assert len(found) == 10
    assert "part/3.png" not in found


def test_a_result_without_its_file_is_a_grey_square(tmp_path):
    found = Found(tmp_path / "gone.png", 0.5, ["ship"])
    assert thumbnail_or_blank(found.path, None).getpixel((0, 0)) == (136, 136, 136)
    assert "gone.png" in figure(found, 1, ["ship"], None)


def test_the_page_needs_no_network_and_shows_shared_labels(data, index, tmp_path):
    folder, scenes = data
    page = tmp_path / "result.html"
    image = folder / "images" / "3.png"
    search.main(["query", "--index", str(index), "--image", str(image), "--page", str(page)])
    text = page.read_text()
    tags = Tags(text).tags
    sources = [found["src"] for tag, found in tags if tag == "img"]
    assert len(sources) == 11
    assert all(source.startswith("data:image/") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}
    assert not re.search(r"url\(|@import|https?:", text)
    shared = set(re.findall(r'class="label shared">([^<]+)<', text))
    assert shared <= {label for label, has in zip(scenes.classes, scenes.labels[3], strict=True) if has}
    assert shared


def test_names_are_escaped(data, tmp_path):
    folder, _ = data
    path = tmp_path / "<b>&.png"
    path.write_bytes((folder / "images" / "3.png").read_bytes())
    text = result_page(path, ["a<b"], [("a<b", 0.5)], [Found(path, 0.1, ["a<b"])], "with a<b")
    assert "<b>" not in text
    assert "a&lt;b" in text
    assert '<span class="label shared">a&lt;b</span>' in text


def test_the_demonstration(tmp_path, capsys, monkeypatch):
    """What README's reader starts without arguments, on a quarter of the images."""
    monkeypatch.setattr(search, "SyntheticScenes", lambda size, seed: SyntheticScenes(min(size, 250), seed=seed))
    search.main(["--output", str(tmp_path / "demo")])
    printed = capsys.readouterr().out
    assert "250 images of" in printed
    assert "predicted labels: " in printed
    assert (tmp_path / "demo" / "result.html").stat().st_size > 10_000
