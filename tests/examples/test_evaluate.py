"""evaluate.py: a run gets the metrics that train.py gave it; files get those of the calculator."""

import json
import math
import re
import shutil

import evaluate
import numpy as np
import pytest
import torch
import train
from archives import write_archive
from report import NAMES
from retrieval_metrics import METRICS
from torch.nn.functional import normalize

from pml_macl.datasets import MultiLabelImageDataset
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.inference import JoinedEmbedder

CPU = ("--device", "cpu")
TITLES = set(NAMES.values())


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"), num_images=60, image_size=32, seed=5)


def train_run(archive, output, *options):
    """A run of one epoch without figures."""
    argv = ["--dataset", "csv", "--images", archive / "images", "--labels", archive / "labels.csv", "--output", output]
    argv += ["--image-size", "32", "--hidden-size", "8", "--batch-size", "12", "--epochs", "1", *CPU, *options]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_curves", "draw_labels", "draw_grid"):
            patch.setattr(train, name, lambda *args: None)
        train.main([str(word) for word in argv])
    return output


@pytest.fixture(scope="module")
def run(archive, tmp_path_factory):
    return train_run(archive, tmp_path_factory.mktemp("runs") / "run", "--split-column", "part")


def last_column(capsys):
    """The number at the end of each row of the printed table, by its title."""
    rows = [line for line in capsys.readouterr().out.splitlines() if line[:30].rstrip() in TITLES]
    return {line[:30].rstrip(): line.split()[-1] for line in rows}


def call(*words):
    return evaluate.main([*map(str, words), *CPU])


def assert_equal_metrics(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        values = value if isinstance(value, list) else [value]
        values = [math.nan if value is None else value for value in values]  # JSON has null for NaN
        assert np.atleast_1d(found[name]).tolist() == pytest.approx(values, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    "options",
    [
        ("--split-column", "part"),
        ("--ignore-columns", "part", "--freeze-trunk", "--data-seed", "3"),
        ("--split-column", "part", "--backbone", "efficientnet-lite0", "--freeze-trunk", "--loss", "macl-proxies"),
    ],
    ids=["split column", "stratified split, frozen trunk", "joined with pretrained features, proxies"],
)
def test_a_run_gets_the_metrics_of_its_training(archive, tmp_path, options, capsys):
    """The last column of both tables is the same: joined with the features if these started from pretrained weights."""
    folder = shutil.move(train_run(archive, tmp_path / "run", *options), tmp_path / "moved")
    for file in folder.iterdir():  # these two are enough
        if file.is_file() and file.name not in ("best.pth", "checkpoint.pth", "metrics.json"):
            file.unlink()
    expected = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").unlink()
    trained = last_column(capsys)
    assert ("joined" in expected) == ("efficientnet-lite0" in options)
    joined = {"feature_weight": 0.0, **expected["best"]} | expected.get("joined", {})
    result = call("--run", folder)
    assert result["feature_weight"] == joined.pop("feature_weight")
    assert_equal_metrics(result["metrics"], joined)
    printed = last_column(capsys)
    assert printed == trained
    assert len(printed) == len(NAMES)
    if "joined" in expected:
        assert expected["joined"]["ndcg"] != expected["best"]["ndcg"]
        assert_equal_metrics(call("--run", folder, "--feature-weight", "0")["metrics"], expected["best"])


def test_json_and_figures_of_a_run(run, tmp_path):
    result = call("--run", run, "--json", tmp_path / "new" / "m.json", "--figures", tmp_path / "figures")
    saved = json.loads((tmp_path / "new" / "m.json").read_text(), parse_constant=pytest.fail)
    assert (saved["run"], saved["epoch"], saved["images"]) == (str(run), 1, None)
    assert (saved["num_queries"], saved["num_references"]) == (12, None)
    assert_equal_metrics(result["metrics"], saved["metrics"])
    assert len(saved["classes"]) == len(saved["metrics"]["label_average_precision"]) == 12
    for name in ("label_average_precision.png", "retrieval_grid.png"):
        assert (tmp_path / "figures" / name).stat().st_size > 1000


def test_another_archive_needs_no_image_of_the_run(archive, run, tmp_path):
    """All its images are queries; the training split of the run still decides which labels are rare."""
    other = write_archive(tmp_path, num_images=30, image_size=32, seed=6)
    moved = shutil.move(archive / "images", archive / "away")
    try:
        data = ("--images", other / "images", "--labels", other / "labels.csv", "--ignore-columns", "part")
        result = call("--run", run, *data)
        with pytest.raises(SystemExit, match=r"error: an image or the label table of the run is missing: .*--images"):
            call("--run", run)
    finally:
        shutil.move(moved, archive / "images")
    assert result["num_queries"] == 30
    settings, statistics, _ = evaluate.load_checkpoint(run, torch.device("cpu"))
    network, transform, _ = evaluate.load_run(run)
    dataset = MultiLabelImageDataset(
        other / "images", other / "labels.csv", ignore_columns=["part"], transform=transform
    )
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(network(torch.stack([image for image, _ in dataset])))
    name = "label_mean_average_precision_tail"
    calculator = MultiLabelAccuracyCalculator((name, "ndcg"), label_statistics=statistics)
    expected = calculator.get_accuracy(embeddings, dataset.labels)
    assert {key: result["metrics"][key] for key in expected} == pytest.approx(expected, abs=1e-4)
    train_labels = evaluate.load_splits(settings)[0]["train"].labels
    assert torch.equal(statistics.counts, train_labels.sum(0))


@pytest.mark.parametrize(("options", "weight"), [((), 0.5), (("--feature-weight", "0"), 0)])
def test_the_pretrained_head(archive, tmp_path, options, weight):
    """The embeddings are those that search.py indexes; any labels will do."""
    data = ("--images", archive / "images", "--labels", archive / "labels.csv", "--ignore-columns", "part", "court")
    result = call("--pretrained", *data, *options, "--json", tmp_path / "m.json")
    network, transform, _ = evaluate.load_pretrained()
    dataset = MultiLabelImageDataset(
        archive / "images", archive / "labels.csv", ignore_columns=["part", "court"], transform=transform
    )
    embedder = network.embedder
    if weight:
        features = network.trunk(torch.stack([image for image, _ in dataset]))
        embedder = JoinedEmbedder.fit(embedder, features, weight)
    with torch.no_grad():
        embeddings = normalize(embedder(network.trunk(torch.stack([image for image, _ in dataset]))))
    expected = MultiLabelAccuracyCalculator(METRICS, at_k=(1, 5, 10)).get_accuracy(embeddings, dataset.labels)
    assert {key: result["metrics"][key] for key in expected} == pytest.approx(expected, abs=1e-4)
    assert result["classes"] == dataset.classes
    assert json.loads((tmp_path / "m.json").read_text())["feature_weight"] == weight


@pytest.fixture
def files(tmp_path):
    """Embeddings and labels of 40 queries and 60 references, as arrays and in files of each kind."""
    rng = np.random.default_rng(0)
    arrays = {
        "query": rng.normal(size=(40, 6)).astype(np.float32),
        "reference": rng.normal(size=(60, 6)).astype(np.float32),
        "query_labels": rng.random((40, 5)) < 0.4,
        "reference_labels": rng.random((60, 5)) < 0.4,
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "one.npz", arrays["query"])
    np.savez(tmp_path / "all.npz", **arrays)
    rows = [
        ",".join([f"image{row}", *map(str, labels.astype(int))]) for row, labels in enumerate(arrays["query_labels"])
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["image,a,b,c,d,e", *rows]))
    return tmp_path, arrays


@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        ("query.npy", "query_labels.npy"),
        ("one.npz", "labels.csv"),
        ("all.npz:query", "all.npz:query_labels"),
    ],
)
def test_files_get_the_metrics_of_the_calculator(files, embeddings, labels):
    folder, arrays = files
    result = call("--embeddings", folder / embeddings, "--labels", folder / labels, "--json", folder / "m.json")
    names = ("query", "query_labels")
    calculator = MultiLabelAccuracyCalculator(METRICS, at_k=(1, 5, 10))
    expected = calculator.get_accuracy(*(arrays[name] for name in names))
    assert {name: result["metrics"][name] for name in expected} == expected
    exact = MultiLabelAccuracyCalculator(("mean_average_precision",), relevance_threshold=1.0)
    value = exact.get_accuracy(*(arrays[name] for name in names))["mean_average_precision"]
    assert result["metrics"]["mean_average_precision_exact"] == value
    assert result["classes"] == (list("abcde") if labels.endswith("csv") else None)
    assert json.loads((folder / "m.json").read_text()) == result


def test_queries_against_references_with_k(files, capsys):
    folder, arrays = files
    reference = (
        "--reference-embeddings",
        folder / "reference.npy",
        "--reference-labels",
        folder / "reference_labels.npy",
    )
    query = ("--embeddings", folder / "query.npy", "--labels", folder / "query_labels.npy", "--json", folder / "m.json")
    result = call(*query, *reference, "--k", "5")
    include = [name for name in METRICS if name not in ("mean_average_precision_at_r", "r_precision")]
    calculator = MultiLabelAccuracyCalculator(include, k=5, at_k=(1, 5), ap_denominator="min")
    expected = calculator.get_accuracy(*(arrays[n] for n in ("query", "query_labels", "reference", "reference_labels")))
    assert {name: result["metrics"][name] for name in expected} == expected
    assert not {"recall_at_10", "r_precision", "mean_average_precision_at_r"} & set(result["metrics"])
    assert "Warning" not in capsys.readouterr().err  # PML's, about metrics that need more ranks
    assert (result["num_queries"], result["num_references"], result["k"]) == (40, 60, 5)
    assert json.loads((folder / "m.json").read_text()) == result


def test_npy_files_are_mapped_and_never_changed(files):
    folder, arrays = files
    array = evaluate.load_array("--embeddings", folder / "query.npy")
    assert isinstance(array, np.memmap)
    array[:] = 0
    del array
    assert np.array_equal(np.load(folder / "query.npy"), arrays["query"])
    np.save(folder / "big.npy", arrays["query"].astype(">f8"))
    assert torch.equal(
        evaluate.load_embeddings("--embeddings", folder / "big.npy"), torch.tensor(arrays["query"]).double()
    )


def test_errors_about_files_name_the_option(files):
    folder, arrays = files
    np.save(folder / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    np.savez(folder / "objects.npz", np.array([{}, 1], dtype=object))
    np.save(folder / "flat.npy", np.arange(40))
    np.save(folder / "text.npy", np.array([["a"]]))
    np.save(folder / "nan.npy", np.where(np.arange(40)[:, None] == 3, np.nan, arrays["query"]))
    np.save(folder / "short.npy", arrays["query_labels"][:39])
    np.save(folder / "narrow.npy", arrays["reference"][:, :4])
    np.save(folder / "few.npy", arrays["reference_labels"][:, :4])
    np.save(folder / "minus.npy", np.where(arrays["query_labels"], 1, -1))
    (folder / "broken.npy").write_bytes((folder / "query.npy").read_bytes()[:150])
    (folder / "renamed.npz").write_bytes((folder / "query.npy").read_bytes())
    (folder / "broken.npz").write_bytes((folder / "all.npz").read_bytes()[:150])
    (folder / "other.csv").write_text((folder / "labels.csv").read_text().replace("a,b,c,d,e", "a,b,c,d,f"))
    query, labels = "query.npy", "query_labels.npy"
    for embeddings, labels_file, reference, message in (
        ("none.npy", labels, (), "--embeddings: there is no file .*none.npy; correct the path"),
        ("labels.csv", labels, (), "--embeddings must be an .npy or .npz file, got .*labels.csv"),
        ("objects.npy", labels, (), "--embeddings must hold an array of numbers, but numpy cannot read .*objects.npy"),
        ("objects.npz", labels, (), "--embeddings must hold an array of numbers, .*objects.npz .*allow_pickle=False"),
        ("broken.npy", labels, (), "--embeddings must hold an array of numbers, but numpy cannot read .*broken.npy"),
        ("broken.npz", labels, (), "--embeddings must hold an array of numbers, but numpy cannot read .*broken.npz"),
        ("renamed.npz", labels, (), r"--embeddings must hold .*renamed.npz \(it is no .npz file\); save the array"),
        ("text.npy", labels, (), "--embeddings must hold numbers, got an array of <U1"),
        ("flat.npy", labels, (), r"--embeddings must hold at least one embedding, .* got \(40,\)"),
        ("nan.npy", labels, (), "--embeddings must be finite, got NaN or infinity in 1 of 40 rows"),
        ("all.npz", labels, (), "--embeddings must name one array of .*all.npz, which has query, .*; write .*:NAME"),
        ("all.npz:emb", labels, (), "--embeddings: .*all.npz has no array 'emb'; it has query, reference"),
        (query, "short.npy", (), r"--labels .*short.npy must have one row per embedding \(40\), got 39 rows"),
        (query, "flat.npy", (), r"--labels .*flat.npy must have one row .* got shape \(40,\)"),
        (query, "minus.npy", (), "--labels .*minus.npy must hold only 0 and 1, got -1"),
        (query, "none.csv", (), "no label table at .*none.csv"),
        (
            query,
            labels,
            ("narrow.npy", "reference_labels.npy"),
            r"--reference-embeddings .* \(6\), got 4; compute both",
        ),
        (
            query,
            labels,
            ("reference.npy", "few.npy"),
            r"--reference-labels .* one column per class \(5\), got 4 columns",
        ),
        (
            query,
            "labels.csv",
            ("query.npy", "other.csv"),
            "--reference-labels must have the classes of --labels, .* got .*'f'",
        ),
    ):
        options = ("--reference-embeddings", "--reference-labels") if reference else ()
        words = [word for option, file in zip(options, reference, strict=True) for word in (option, folder / file)]
        with pytest.raises(SystemExit, match=f"error: {message}"):
            call("--embeddings", folder / embeddings, "--labels", folder / labels_file, *words)


def test_errors_about_runs_name_the_option(archive, run, tmp_path):
    with pytest.raises(SystemExit, match=r"error: .* has no best\.pth; give the --output folder"):
        call("--run", tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*best\.pth has no best\.pth; give the --output folder of a run"):
        call("--run", run / "best.pth")
    shutil.copyfile(run / "best.pth", tmp_path / "best.pth")
    with pytest.raises(SystemExit, match=r"error: --run .* has no checkpoint\.pth, .*; give the whole output folder"):
        call("--run", tmp_path)
    for option, path in (("--json", run / "metrics.json"), ("--figures", run)):
        with pytest.raises(SystemExit, match=f"error: {option} .* would overwrite what train.py wrote"):
            call("--run", run, option, path)
    with pytest.raises(SystemExit, match="error: --json must be a file, got the folder"):
        call("--run", run, "--json", tmp_path)
    data = ("--images", archive / "images", "--labels", archive / "labels.csv")
    with pytest.raises(
        SystemExit, match=r"error: .*labels\.csv, line 2, column 'part': .* name the column in ignore_columns"
    ):
        call("--run", run, *data)
    with pytest.raises(SystemExit, match=r"error: --labels must have the classes of the run, .*--ignore-columns"):
        call("--run", run, *data, "--ignore-columns", "part", "court")


def test_empty_cells(tmp_path, capsys):
    """A table whose empty cells mean 0 is read as the one with zeros."""
    data = write_archive(tmp_path, num_images=60, image_size=32, seed=5)
    expected = json.loads((train_run(data, tmp_path / "a", "--split-column", "part") / "metrics.json").read_text())
    table = data / "labels.csv"
    table.write_text("\n".join(re.sub(",0(?=,|$)", ",", line) for line in table.read_text().splitlines()))
    with pytest.raises(
        SystemExit, match=r"error: .* a label must be known, got an empty cell; .* \(--empty-cells absent"
    ):
        train_run(data, tmp_path / "b", "--split-column", "part")
    run = train_run(data, tmp_path / "b", "--split-column", "part", "--empty-cells", "absent")
    assert_equal_metrics(call("--run", run)["metrics"], expected["best"])
    images = ("--images", data / "images", "--labels", table, "--ignore-columns", "part", "--empty-cells", "absent")
    assert call("--run", run, *images)["num_queries"] == 60


def test_rows_in_another_order(tmp_path):
    """A stratified split depends on the order, so training images would be in the test split."""
    data = write_archive(tmp_path, num_images=60, image_size=32, seed=5)
    columns = ("--ignore-columns", "part")
    stratified = train_run(data, tmp_path / "stratified", *columns)
    # With so few hidden units, some embeddings would be equal, and their order would depend on that of the rows.
    by_column = train_run(data, tmp_path / "column", "--split-column", "part", "--hidden-size", "64")
    expected = json.loads((by_column / "metrics.json").read_text())["best"]
    header, *rows = (data / "labels.csv").read_text().splitlines()
    (data / "labels.csv").write_text("\n".join([header, *reversed(rows)]))
    with pytest.raises(SystemExit, match=r"has changed since the run: .* the order of the rows counts; restore"):
        call("--run", stratified)
    with pytest.raises(SystemExit, match=r"not those of the run in .* the order of the rows counts; correct"):
        train.main(["--output", str(stratified), "--resume"])
    assert call("--run", by_column)["metrics"]["ndcg"] == pytest.approx(expected["ndcg"], abs=1e-6)


def test_a_label_table_that_changed_since_the_run(tmp_path):
    data = write_archive(tmp_path, num_images=40, image_size=32, seed=5)
    run = train_run(data, tmp_path / "run", "--split-column", "part")
    table = data / "labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(
        SystemExit, match=r"error: .*labels\.csv has changed since the run: .*'test': 7\} images; restore"
    ):
        call("--run", run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "one of the arguments --run --pretrained --embeddings is required"),
        (("--run", "r", "--k", "5"), "--k needs --embeddings"),
        (("--run", "r", "--reference-labels", "l"), "--reference-labels needs --embeddings"),
        (("--run", "r", "--images", "i"), "--images DIR and --labels FILE need each other"),
        (("--pretrained", "--labels", "l"), "--pretrained needs --images DIR and --labels FILE"),
        (("--embeddings", "e"), "--embeddings needs --labels FILE"),
        (("--embeddings", "e", "--labels", "l", "--figures", "f"), "--figures needs --run or --pretrained"),
        (
            ("--embeddings", "e", "--labels", "l", "--reference-labels", "r"),
            "--reference-embeddings FILE and --reference-labels FILE need each other",
        ),
        (("--embeddings", "e", "--labels", "l", "--k", "0"), "argument --k: must be a whole number of at least 1"),
    ],
)
def test_bad_arguments(words, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        call(*words)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err
