import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train
from archives import assert_same_state, write_archive
from joined import default_weight
from models import load_run
from package_losses import LOSSES, make_loss, make_miner
from pytorch_metric_learning.losses import MultipleLosses
from run_settings import new_settings

from pml_macl import LabelStatistics, losses
from pml_macl.datasets import MultiLabelImageDataset
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.inference import JoinedEmbedder

FIGURES = ["training_curves.png", "label_average_precision.png", "retrieval_grid.png"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"), num_images=60, image_size=32, seed=5)


def arguments(archive, output, *more):
    paths = ["--images", str(archive / "images"), "--labels", str(archive / "labels.csv"), "--output", str(output)]
    options = ["--split-column", "part", "--image-size", "32", "--batch-size", "12", "--device", "cpu"]
    return ["--dataset", "csv", *paths, *options, *more]


@pytest.mark.parametrize(
    ("epochs", "more"),
    [(4, ()), (2, ("--hard-negatives", "2", "--loss", "macl-weighted", "--num-workers", "1"))],
    ids=["four epochs", "two epochs, other settings"],
)
def test_a_run_equals_two_halves_bit_for_bit(archive, tmp_path, epochs, more, monkeypatch):
    with monkeypatch.context() as patch:
        for name in ("draw_curves", "draw_labels", "draw_grid"):  # only the resumed run draws
            patch.setattr(train, name, lambda *args: None)
        whole = train.main(arguments(archive, tmp_path / "whole", "--epochs", str(epochs), *more))
        train.main(arguments(archive, tmp_path / "parts", "--epochs", str(epochs // 2), *more))
    parts = train.main(arguments(archive, tmp_path / "parts", "--epochs", str(epochs), "--resume", *more))
    for name in ("checkpoint.pth", "best.pth"):
        assert_same_state(tmp_path / "whole" / name, tmp_path / "parts" / name)
    for key in ("before", "best", "best_epoch"):
        assert repr(whole[key]) == repr(parts[key])


def test_an_interrupted_run_with_every_option_of_the_training_ends_like_an_undisturbed_one(
    archive, tmp_path, monkeypatch
):
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    options = ["--schedule", "cosine", "--warmup-epochs", "1", "--augment", "crops", "--amp", "--patience", "3"]
    options += ["--epochs", "3", "--classifier-weight", "0.5", "--hidden-size", "8", "--image-size", "16"]
    options += ["--loss", "macl-proxies"]
    whole = train.main(arguments(archive, tmp_path / "whole", *options))
    save_file = train.save_file

    def save_and_interrupt(path, content):
        save_file(path, content)
        if content["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_file", save_and_interrupt)
    with pytest.raises(SystemExit):
        train.main(arguments(archive, tmp_path / "parts", *options))
    monkeypatch.setattr(train, "save_file", save_file)
    with pytest.raises(SystemExit, match="--epochs is 3 in the run and 4 on the command line"):
        train.main(["--output", str(tmp_path / "parts"), "--resume", "--epochs", "4"])
    parts = train.main(["--output", str(tmp_path / "parts"), "--resume"])
    for name in ("checkpoint.pth", "best.pth"):
        assert_same_state(tmp_path / "whole" / name, tmp_path / "parts" / name)
    for key in ("before", "best", "best_epoch", "classifier"):
        assert repr(whole[key]) == repr(parts[key])


def test_patience(archive, tmp_path, monkeypatch, capsys):
    """The learning rate is too small to change a weight, so no epoch is better than the first one."""
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    options = ["--freeze-trunk", "--lr", "1e-15", "--weight-decay", "0", "--hidden-size", "8", "--patience", "2"]
    train.main(arguments(archive, tmp_path / "run", *options))
    assert "epoch 3/40" in (output := capsys.readouterr().out)
    assert "stopped: no epoch after epoch 1 is better, and --patience is 2" in output
    assert "epoch 4/40" not in output
    train.main(["--output", str(tmp_path / "run"), "--resume"])
    assert "epoch 4/40" not in capsys.readouterr().out
    train.main(["--output", str(tmp_path / "run"), "--resume", "--patience", "3"])
    assert "epoch 4/40" in (output := capsys.readouterr().out)
    assert "epoch 5/40" not in output


@pytest.fixture(scope="module")
def run(archive, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "frozen"
    options = ("--backbone", "efficientnet-lite0", "--freeze-trunk", "--epochs", "3", "--tensorboard")
    return output, train.main(arguments(archive, output, *options)), options


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({"pretrained": True, "weights": None}, 0.2),
        ({"pretrained": False, "weights": "resnet.safetensors"}, 0.2),
        ({"pretrained": False, "weights": None}, 0.0),
        ({"pretrained": False}, 0.0),  # an older run
    ],
)
def test_only_pretrained_features_are_joined(settings, weight):
    assert default_weight(settings) == weight


def test_joined_metrics_of_the_test_split(archive, run):
    output, result, _ = run
    joined = dict(result["joined"])
    weight = joined.pop("feature_weight")
    network, transform, _ = load_run(output)
    dataset = MultiLabelImageDataset(
        archive / "images", archive / "labels.csv", split="test", split_column="part", transform=transform
    )
    with torch.no_grad():
        features = network.trunk(torch.stack([image for image, _ in dataset]))
        embeddings = JoinedEmbedder.fit(network.embedder, features, weight)(features)
    expected = MultiLabelAccuracyCalculator(("ndcg", "label_mean_average_precision")).get_accuracy(
        embeddings, dataset.labels
    )
    assert {name: joined[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert joined["ndcg"] != result["best"]["ndcg"]


def test_everything_is_written(run):
    output, result, _ = run
    for name in [*FIGURES, "best.pth", "checkpoint.pth"]:
        assert (output / name).stat().st_size > 1000
    saved = json.loads((output / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert saved["best"]["ndcg"] == result["best"]["ndcg"]
    assert saved["classes"] == result["classes"]
    assert saved["best"]["recall_at_1"] == saved["best"]["precision_at_1"] <= saved["best"]["recall_at_10"] <= 1
    assert list((output / "tensorboard").iterdir())
    records = {path.name for path in (output / "records").glob("*.csv")}
    assert {"loss_histories.csv", "metric_loss_MACLLoss.csv", "tuple_miner_LabelOverlapMiner.csv"} <= records


def test_records_hold_what_a_person_would_plot(run):
    output, _, _ = run
    with closing(sqlite3.connect(output / "records" / "logs.db")) as database:
        database.row_factory = sqlite3.Row
        tables = [row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]

        def read(part):
            (table,) = [name for name in tables if name.endswith(part)]
            return database.execute(f"SELECT * FROM {table}").fetchall()

        loss, miner = read("metric_loss_MACLLoss"), read("tuple_miner_LabelOverlapMiner")
        similarity, accuracy = read("TemperatureScheduledSimilarity"), read("VAL_vs_self")
    assert len(loss) == len(miner) == len(similarity) == 9  # 3 epochs of 3 batches
    for mined, used in zip(miner, loss, strict=True):
        for name in ("num_pos_pairs", "num_neg_pairs", "anchors_without_positives"):
            assert mined[name] == used[name]
        assert mined["mean_positive_overlap"] == pytest.approx(used["mean_positive_overlap"])
        assert used["num_pos_pairs"] > 0
    for row in similarity:
        assert 0 < row["min_pair_temperature"] < row["mean_pair_temperature"] < row["max_pair_temperature"]
        assert row["temperature"] == pytest.approx(0.2)
    assert [row["epoch"] for row in accuracy] == [-1, 1, 2, 3]
    assert all(0 < row["label_mean_average_precision"] <= 1 for row in accuracy)


def test_resume_without_a_checkpoint(archive, tmp_path):
    with pytest.raises(SystemExit, match=r"error: nothing to resume: .*none has no checkpoint\.pth"):
        train.main(["--output", str(tmp_path / "none"), "--resume"])


def test_a_new_run_overwrites_no_other_one(archive, run, tmp_path):
    output, _, options = run
    with pytest.raises(SystemExit, match=r"error: .*frozen already holds a run; continue it with --resume"):
        train.main(arguments(archive, output, *options))
    (tmp_path / "best.pth").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"error: .* already holds the model of a run \(best\.pth\)"):
        train.main(arguments(archive, tmp_path, *options))


def test_resume_refuses_changed_settings_and_names_each(archive, run):
    output, _, _ = run
    message = (
        "error: --resume cannot change these settings of the run in .*: --loss is macl in the run and supcon-any on "
        "the command line; --lr is 0.001 in the run and 0.1 on the command line"
    )
    changed = ["--loss", "supcon-any", "--lr", "0.1", "--seed", "0"]
    with pytest.raises(SystemExit, match=message):
        train.main(["--output", str(output), "--resume", *changed])


def test_resume_needs_no_option_but_the_output(archive, tmp_path, monkeypatch, capsys):
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    monkeypatch.chdir(archive)
    options = ["--split-column", "part", "--batch-size", "12", "--hidden-size", "8", "--image-size", "16"]
    paths = ["--images", "images", "--labels", "labels.csv", "--output", str(tmp_path)]
    first = train.main(["--dataset", "csv", *paths, *options, "--lr", "0.01", "--epochs", "1", "--device", "cpu"])
    monkeypatch.chdir(tmp_path)  # the checkpoint holds absolute paths
    train.main(["--output", str(tmp_path), "--resume", "--epochs", "2", "--device", "cpu"])
    again = train.main(["--output", str(tmp_path), "--resume"])
    assert "epoch 2/2" in capsys.readouterr().out
    assert again["settings"] == first["settings"] | {"epochs": 2}


def test_resume_refuses_another_archive(archive, run, tmp_path):
    output, _, _ = run
    table = (archive / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(table[:-1]))
    with pytest.raises(
        SystemExit, match=r"error: the images or labels are not those of the run .* 11\} images; correct"
    ):
        train.main(["--output", str(output), "--resume", "--labels", str(tmp_path / "labels.csv")])


def test_ctrl_c_prints_how_to_continue_and_the_command_works(archive, tmp_path):
    """A real process in the middle of its training gets the signal that a terminal sends.

    The output of both processes goes through pipes, so it has no progress bars, and no warnings.
    """
    argv = arguments(archive, tmp_path / "a run", "--epochs", "100000", "--hidden-size", "8", "--freeze-trunk")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    at_once = os.environ | {"PYTHONUNBUFFERED": "1"}  # otherwise epoch 2 arrives with a hundred others
    # A shell that starts the tests in the background lets them ignore the signal; the process would inherit this.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([sys.executable, train.__file__, *argv], env=at_once, preexec_fn=heed, **pipes) as process:
        while not process.stdout.readline().startswith("epoch 2/"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = error.splitlines()
    found = re.fullmatch(r"interrupted; (\d+) of 100000 epochs are saved in .*a run; continue with: (.*)", line)
    assert int(found[1]) >= 2
    command = [*shlex.split(found[2]), "--epochs", found[1]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert f"resuming after epoch {found[1]}" in done.stdout
    assert done.stderr == ""
    assert "\r" not in done.stdout


def test_ctrl_c_before_the_first_checkpoint(archive, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupt)
    with pytest.raises(SystemExit) as leaving:
        train.main(arguments(archive, tmp_path / "run"))
    assert leaving.value.code == 130
    error = capsys.readouterr().err
    assert error == "interrupted before the first checkpoint; nothing is saved, so start the run again\n"


def add_line(path, line):
    path.write_text(path.read_text() + line + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "labels.csv").unlink(), "labels.csv"),
        (lambda folder: (folder / "images").rename(folder / "pictures"), "images"),
        (lambda folder: (folder / "images" / "07.png").unlink(), "07"),
        (lambda folder: (folder / "images" / "07.png").write_bytes(b"no image"), "07.png"),
        (
            lambda folder: (folder / "images" / "07.png").write_bytes(
                (folder / "images" / "08.png").read_bytes()[:300]
            ),
            "07.png",
        ),
        (lambda folder: add_line(folder / "labels.csv", "99,train" + ",0" * 12), "99"),
    ],
    ids=["no table", "no folder", "no image", "no image file", "truncated image", "row without image"],
)
def test_broken_archives_are_named(archive, tmp_path, damage, message):
    import shutil

    shutil.copytree(archive, tmp_path / "broken")
    damage(tmp_path / "broken")
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        train.main(arguments(tmp_path / "broken", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dataset", "csv"], "--dataset csv needs --images DIR and --labels FILE"),
        (["--images", "a"], "--dataset csv needs --images DIR and --labels FILE"),
        (["--dataset", "synthetic", "--labels", "a.csv"], "--images and --labels need --dataset csv"),
        (["--resume"], "--resume needs --output"),
        (["--loss", "triplet"], "invalid choice"),
        (["--hard-negatives", "0"], "argument --hard-negatives: must be a whole number of at least 1, got '0'"),
        (["--epochs", "two"], "argument --epochs: must be a whole number of at least 1, got 'two'"),
        (["--num-workers", "-1"], "argument --num-workers: must be a whole number of at least 0, got '-1'"),
        (["--lr", "0"], "argument --lr: must be a number above 0, got '0'"),
        (["--weight-decay", "nan"], "argument --weight-decay: must be a number of at least 0, got 'nan'"),
        (["--dropout", "1"], "argument --dropout: must be a number in [0, 1), got '1'"),
        (["--device", "gpu"], "argument --device: must be a device of torch, such as cpu or cuda:0, got 'gpu'"),
        (["--pretrained"], "--pretrained needs another --backbone"),
        (["--backbone", "resnet"], "must be small-cnn, resnet18, efficientnet-lite0 or timm/NAME, got 'resnet'"),
        (["--group-column", "a", "--split-column", "b"], "--group-column and --split-column both decide the split"),
        (["--weights", "a.pth"], "--weights needs --backbone timm/NAME, got small-cnn"),
        (["--weights", "a.pth", "--backbone", "timm/a", "--pretrained"], "--weights and --pretrained both set"),
        (
            ["--freeze-trunk", "--augment", "crops"],
            "--freeze-trunk embeds each image once, so it cannot --augment crops",
        ),
    ],
)
def test_bad_arguments(argv, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        train.main(argv)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--warmup-epochs", "10"], "--warmup-epochs must be below --epochs \\(10\\), got 10"),
        (["--backbone", "timm/resnet18", "--dataset", "csv"], '--backbone timm/NAME needs timm; install it with: .*"'),
    ],
)
def test_bad_settings(archive, tmp_path, monkeypatch, argv, message):
    monkeypatch.setitem(sys.modules, "timm", None)
    paths = ["--images", str(archive / "images"), "--labels", str(archive / "labels.csv")]
    with pytest.raises(SystemExit, match=f"error: {message}"):
        train.main([*argv, *paths, "--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_splits_in_which_nothing_can_be_found(tmp_path):
    data = write_archive(tmp_path, num_images=30, image_size=32, seed=5)
    table = data / "labels.csv"
    table.write_text(table.read_text().replace(",test,", ",train,").replace(",train,", ",test,", 1))
    with pytest.raises(SystemExit, match="error: no label occurs in two images of the split test, so nothing can be"):
        train.main(arguments(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_images_of_an_unknown_split_and_a_frozen_random_backbone_are_mentioned(tmp_path, monkeypatch, capsys):
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    data = write_archive(tmp_path, num_images=60, image_size=32, seed=5)
    table = data / "labels.csv"
    table.write_text(table.read_text().replace(",train,", ",trian,", 1))
    train.main(arguments(data, tmp_path / "run", "--epochs", "1", "--freeze-trunk", "--hidden-size", "8")[2:])
    printed = capsys.readouterr().out
    assert "1 of 60 images have another split than train, val, test, and are left out" in printed
    assert "the frozen backbone has random weights; for others: --backbone efficientnet-lite0" in printed


def test_too_large_a_batch(archive, tmp_path):
    with pytest.raises(SystemExit, match="--batch-size 500 is larger than the training split \\(36 images\\)"):
        train.main(arguments(archive, tmp_path / "run", "--batch-size", "500"))


def test_a_stratified_split_without_a_split_column(archive, tmp_path, capsys):
    argv = arguments(archive, tmp_path / "run", "--epochs", "1", "--backbone", "resnet18", "--loss", "supcon-any")
    start = argv.index("--split-column")
    del argv[start : start + 2]
    train.main([*argv, "--ignore-columns", "part"])
    assert "36 train, 13 val, 11 test images, 12 labels" in capsys.readouterr().out


def test_the_id_column_need_not_be_the_first(archive, tmp_path, capsys):
    lines = (archive / "labels.csv").read_text().splitlines()
    rows = [f"{number},{line}" for number, line in enumerate(lines[1:])]
    (tmp_path / "labels.csv").write_text("\n".join([f"number,{lines[0]}", *rows]))
    argv = arguments(archive, tmp_path / "run", "--labels", str(tmp_path / "labels.csv"), "--epochs", "1")
    with pytest.raises(SystemExit, match="error: "):
        train.main([*argv, "--ignore-columns", "image"])
    train.main([*argv, "--id-column", "image", "--ignore-columns", "number"])
    assert "36 train, 12 val, 12 test images, 12 labels" in capsys.readouterr().out


def losses_of(loss_fn):
    """The terms of a loss."""
    return loss_fn.losses.values() if isinstance(loss_fn, MultipleLosses) else [loss_fn]


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_collect_stats_in_the_fused_engine(name):
    labels = torch.rand(12, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    loss_fn, miner = make_loss(name, 0.1, LabelStatistics.from_labels(labels), embedding_size=4), make_miner()
    embeddings = torch.randn(12, 4)
    loss_fn(embeddings, labels, miner(embeddings, labels))
    for part in losses_of(loss_fn):
        assert part.fallback is None
        assert part.num_pos_pairs > 0


def test_proxies_with_hard_negatives_need_one_process(monkeypatch):
    chosen = {"batch_size": 4, "hard_negatives": 2, "loss": "macl-proxies", "sync_batch_norm": False}
    settings = SimpleNamespace(device=torch.device("cpu"), **chosen)
    train.check_processes(settings)
    monkeypatch.setattr(train, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match="--loss macl-proxies with --hard-negatives runs in one process only"):
        train.check_processes(settings)


def test_every_loss_of_the_package_has_a_name():
    made = {type(part) for name in LOSSES for part in losses_of(make_loss(name, 0.1, LabelStatistics(3)))}
    exported = {getattr(losses, name) for name in losses.__all__}
    base = losses.MultiLabelContrastiveLoss
    assert made == {loss for loss in exported if issubclass(loss, base)} - {base}


def test_the_default_folder_is_that_of_this_process():
    """Otherwise runs that start in the same second would mix their files."""
    folder = new_settings({}).output
    assert re.fullmatch(rf"synthetic-macl-\d{{8}}-\d{{6}}-{os.getpid()}", folder.name)
    assert folder.parent == Path("runs")


def test_the_defaults_in_the_help_are_those_of_a_run(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    runs, checked = [new_settings({"freeze_trunk": frozen}) for frozen in (True, False)], set()
    for option in re.split(r"^  --", capsys.readouterr().out, flags=re.MULTILINE)[1:]:
        name = option.split()[0].replace("-", "_")
        stated = re.search(r"default: (\d[^);]*)", option)
        numbers = set(map(float, re.findall(r"\b\d[\d.]*\b", stated[1]))) if stated else set()
        if numbers and name != "image_size":  # that depends on the data and on the backbone
            assert numbers == {getattr(run, name) for run in runs}, name
            checked.add(name)
    assert {"batch_size", "embedding_size", "temperature", "epochs", "dropout", "lr"} <= checked
