"""examples/train.py when it is killed or interrupted, when a disk is full, and when files are damaged."""

import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import checkpoint
import data
import pytest
import torch
import train
from archives import assert_same_state, write_archive
from processes import call_in_place_of_a_script, forkserver
from records import copy_records, restore_records


@pytest.fixture(scope="module", autouse=True)
def shorter_runs():
    """Skip the figures, which tests/examples/test_train.py checks, and wait less for the workers of a DataLoader.

    After an error, torch waits up to 5 s for each worker before it ends the worker; here it waits 0.1 s.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_curves", "draw_labels", "draw_grid"):
            patch.setattr(train, name, lambda *args: None)
        patch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"), num_images=48, image_size=16, seed=3)


@pytest.fixture
def copy_of_archive(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "archive")
    return tmp_path / "archive"


def arguments(archive, output, *more, epochs):
    options = {
        "dataset": "csv",
        "images": archive / "images",
        "labels": archive / "labels.csv",
        "split-column": "part",
        "image-size": 16,
        "batch-size": 10,
        "hidden-size": 16,
        "embedding-size": 8,
        "device": "cpu",
        "output": output,
        "epochs": epochs,
    }
    return [str(part) for name, value in options.items() for part in (f"--{name}", value)] + list(more)


def assert_same_run(first, second):
    """Both runs have the same weights, optimizers, metrics and records."""
    for name in ("checkpoint.pth", "best.pth"):
        assert_same_state(first / name, second / name)
    results = [json.loads((folder / "metrics.json").read_text()) for folder in (first, second)]
    for key in ("before", "best", "best_epoch"):
        assert results[0][key] == results[1][key]
    records = first / "records", second / "records"
    csvs = [{path.name: path.read_bytes() for path in folder.glob("*.csv")} for folder in records]
    assert csvs[0] == csvs[1]
    assert len(csvs[0]) > 3
    dumps = []
    for folder in records:
        with closing(sqlite3.connect(folder / "logs.db")) as database:
            dumps.append(sorted(database.iterdump()))
    assert dumps[0] == dumps[1]


@pytest.fixture
def start():
    """A function that starts another one in a new process, which has already imported everything."""
    processes = []

    def start_one(target, *arguments):
        process = forkserver().Process(target=target, args=arguments)
        process.start()
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.join()


def read_epoch(output):
    """The epoch of the last checkpoint; None before the first."""
    try:
        return torch.load(output / "checkpoint.pth", weights_only=True)["epoch"]
    except FileNotFoundError:
        return None


def test_ten_kills_at_random_moments_change_nothing(archive, tmp_path, start):
    """Half of the kills come soon after the start, half soon after the process has finished an epoch.

    The killed run has too many epochs to end before a kill. At last it and an undisturbed run train to the same epoch.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rng = random.Random(0)
    killed_after = []
    for number in range(10):
        begun = read_epoch(killed)
        resume = [] if begun is None else ["--resume"]
        process = start(train.main, arguments(archive, killed, *resume, epochs=10**6))
        if number % 2:
            while process.is_alive() and read_epoch(killed) == begun:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
        else:
            time.sleep(rng.uniform(0, 0.8))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found = read_epoch(killed)
        killed_after.append(-1 if found is None else found)
    assert killed_after == sorted(killed_after)
    assert len(set(killed_after)) >= 5  # some processes saved epochs, some did not
    last = killed_after[-1] + 1
    for argv in (arguments(archive, killed, "--resume", epochs=last), arguments(archive, whole, epochs=last)):
        process = start(train.main, argv)
        process.join()
        assert process.exitcode == 0
    assert_same_run(whole, killed)


@pytest.fixture(scope="module")
def short_run(archive, tmp_path_factory):
    """A folder with a run of three epochs, and a copy of it after two."""
    folder = tmp_path_factory.mktemp("short")
    train.main(arguments(archive, folder / "two", epochs=2))
    shutil.copytree(folder / "two", folder / "three")
    train.main(arguments(archive, folder / "three", "--resume", epochs=3))
    return folder


def damage_half(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_block(path):
    """Overwrite a block with zeros, as after a power cut; torch.load does not notice that."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4096))


def damage_all(path):
    path.write_bytes(b"")


DAMAGES = [damage_half, damage_block, damage_all]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_detected(archive, short_run, tmp_path, damage):
    run = shutil.copytree(short_run / "two", tmp_path / "run")
    damage(run / "checkpoint.pth")
    message = r"error: cannot resume: .*checkpoint\.pth is damaged .*; start a new run with another --output"
    with pytest.raises(SystemExit, match=message):
        train.main(arguments(archive, run, "--resume", epochs=3))


def test_a_checkpoint_of_another_version_is_refused(archive, tmp_path):
    torch.save({"epoch": 1, "settings": {}}, tmp_path / "checkpoint.pth")
    with pytest.raises(SystemExit, match=r"error: cannot resume: .* it lacks before, classes, .*; start a new run"):
        train.main(arguments(archive, tmp_path, "--resume", epochs=3))


def test_a_missing_best_epoch_is_reported(archive, short_run, tmp_path):
    run = shutil.copytree(short_run / "three", tmp_path / "run")
    (run / "best.pth").unlink()
    with pytest.raises(SystemExit, match=r"has no best\.pth: it was removed"):
        train.main(arguments(archive, run, "--resume", epochs=3))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_process_that_dies_while_it_saves_leaves_the_old_checkpoint(tmp_path, monkeypatch, name):
    path = tmp_path / "checkpoint.pth"
    checkpoint.save_file(path, {"epoch": 1})

    def die(*args):
        raise Killed

    monkeypatch.setattr(checkpoint.os, name, die)
    with pytest.raises(Killed):
        checkpoint.save_file(path, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load_file(path, ("epoch",))["epoch"] == 1
    checkpoint.save_file(path, {"epoch": 3})
    assert checkpoint.load_file(path, ("epoch",))["epoch"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_loading_a_checkpoint_runs_no_code_from_it(tmp_path):
    class Stranger:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "called"),)

    torch.save({"epoch": Stranger()}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint\.pth was not written by these examples"):
        checkpoint.load_file(tmp_path / "checkpoint.pth", ("epoch",))
    assert not (tmp_path / "called").exists()


def test_records_are_restored_from_their_copy(short_run, tmp_path):
    records = shutil.copytree(short_run / "three" / "records", tmp_path / "records")
    (records / "logs.db-journal").write_bytes(b"left by a killed process")
    (records / "notes.txt").write_text("not a record")
    copy = torch.load(short_run / "two" / "checkpoint.pth", weights_only=True)["records"]
    restore_records(records, copy)
    assert_same_bytes(copy_records(records), copy)
    assert (records / "notes.txt").read_text() == "not a record"
    restore_records(records, {})
    assert [path.name for path in records.iterdir()] == ["notes.txt"]


def assert_same_bytes(first, second):
    assert first.keys() == second.keys()
    for name, content in first.items():
        assert torch.equal(content, second[name]), name


@pytest.fixture
def run_script(start, tmp_path):
    """A function that runs train.main in a new process and returns the exit code and the error output."""

    def run(argv, largest_file=None):
        errors = tmp_path / "errors.txt"
        process = start(call_in_place_of_a_script, train.main, argv, errors, largest_file)
        process.join()
        return process.exitcode, errors.read_text()

    return run


def test_a_full_disk_stops_the_run_and_loses_nothing(archive, short_run, tmp_path, run_script):
    """Limit the size of files to 100 kB, which a checkpoint exceeds; then resume without the limit."""
    run = shutil.copytree(short_run / "two", tmp_path / "run")
    limit = 100_000
    assert (run / "checkpoint.pth").stat().st_size > limit
    code, error = run_script(arguments(archive, run, "--resume", epochs=3), limit)
    assert code == 1
    last_line = error.strip().splitlines()[-1]
    assert last_line.startswith("error: the run stopped: ")
    assert "cannot write the file: File too large" in last_line
    assert "--resume" in last_line
    assert not list(run.glob("*.partial"))
    assert_same_state(run / "checkpoint.pth", short_run / "two" / "checkpoint.pth")
    train.main(arguments(archive, run, "--resume", epochs=3))
    assert_same_run(short_run / "three", run)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    checkpoint.save_file(path, {"epoch": 1})
    monkeypatch.setattr(checkpoint.Path, "open", lambda self, mode: io.FileIO("/dev/full", mode))
    with pytest.raises(OSError, match="cannot write the file: No space left on device"):
        checkpoint.save_file(path, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load_file(path, ("epoch",)) == {"epoch": 1}


@pytest.mark.parametrize("place", ["a file in the way", "no permission"])
def test_an_output_folder_that_cannot_be_written(archive, tmp_path, place):
    output = tmp_path / "blocked" / "run"
    if place == "a file in the way":
        output.parent.write_text("")
    else:
        output.parent.mkdir(mode=0o500)
        if os.access(output.parent, os.W_OK):
            pytest.skip("this user may write everywhere")
    with pytest.raises(SystemExit, match=r"error: cannot write to --output .*blocked.*run \(.*\); choose another"):
        train.main(arguments(archive, output, epochs=1))


@pytest.fixture
def forked_workers():
    """Fork the workers of a DataLoader, so that they see what a test has patched."""
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(method, force=True)


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_process_that_dies(archive, short_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(short_run / "two", tmp_path / "run")

    def die_in_a_worker(image):
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return image

    monkeypatch.setattr(data, "random_flip", die_in_a_worker)
    with pytest.raises(SystemExit, match=r"error: the run stopped: DataLoader worker .*--resume"):
        train.main(arguments(archive, run, "--resume", "--num-workers", "1", epochs=3))
    assert "Traceback" in capsys.readouterr().err
    assert_same_state(run / "checkpoint.pth", short_run / "two" / "checkpoint.pth")


def corrupt(path):
    path.write_bytes(b"no image at all")


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [(corrupt, "cannot decode image"), (truncate, "cannot decode image"), (Path.unlink, "No such file")],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_in_the_middle_of_a_run(
    copy_of_archive, short_run, tmp_path, monkeypatch, damage, message, workers
):
    """The image breaks after the check of all images. Once it is repaired, the run ends like an undisturbed one."""
    run = shutil.copytree(short_run / "two", tmp_path / "run")
    image = copy_of_archive / "images" / "07.png"
    content = image.read_bytes()
    make_state = train.make_state

    def break_the_image(*args):
        damage(image)
        return make_state(*args)

    monkeypatch.setattr(train, "make_state", break_the_image)
    argv = arguments(copy_of_archive, run, "--resume", epochs=3)
    with pytest.raises(SystemExit, match=rf"error: the run stopped: .*{message}.*07\.png.*--resume"):
        train.main([*argv, "--num-workers", str(workers)])
    monkeypatch.undo()
    image.write_bytes(content)
    train.main(argv)
    moved = ("/settings/images", "/settings/labels")
    assert_same_state(run / "checkpoint.pth", short_run / "three" / "checkpoint.pth", ignore=moved)


def test_an_image_that_is_broken_before_the_run(copy_of_archive, tmp_path, run_script):
    """The script exits with 1, prints one line and makes no output folder."""
    truncate(copy_of_archive / "images" / "07.png")
    code, error = run_script(arguments(copy_of_archive, tmp_path / "run", epochs=1))
    assert code == 1
    assert error.startswith("error: 1 of 48 images cannot be read, the first ones: cannot decode image")
    assert "07.png" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
