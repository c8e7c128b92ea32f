"""train.py in two processes against one.

One test starts torchrun. For the others, this file becomes two processes, which save what they found.
"""

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from archives import write_archive
from data import Split, extract_features
from package_losses import LOSSES, make_loss, make_miner
from process_group import (
    copy_buffers_of_first,
    ending_together,
    from_first,
    gather,
    num_processes,
    over_processes,
    rank,
    share,
    split_batches,
)
from processes import TIMEOUT, finish, fork_processes, free_port, run_processes
from pytorch_metric_learning.trainers import MetricLossOnly, TrainWithClassifier
from torch.utils.data import TensorDataset
from training_loop import MultiHotCrossEntropy

from pml_macl import LabelStatistics
from pml_macl.losses import MACLLoss, MultiLabelDistributedLossWrapper

TRAININGS = {  # name of the loss, batch size, whether to mine
    "unequal shares": ("macl", 7, False),
    "hard negatives": ("macl", 6, True),
    "proxies": ("macl-proxies", 7, False),
}


def train_three_batches(loss, batch_size, mine):
    """The losses of each batch and the weights after it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3 * batch_size + 1, 5, dtype=torch.float64, generator=generator)
    labels = torch.rand(len(images), 4, generator=generator) < 0.4
    torch.manual_seed(0)
    models = {"trunk": torch.nn.Linear(5, 8), "embedder": torch.nn.Linear(8, 3), "classifier": torch.nn.Linear(3, 4)}
    models = {name: model.double() for name, model in models.items()}
    loss_fn = make_loss(loss, 0.1, LabelStatistics.from_labels(labels), embedding_size=3).double()
    trained = {**models, "metric_loss": loss_fn}
    found = []
    trainer = TrainWithClassifier(
        dict(models),
        {
            f"{name}_optimizer": torch.optim.SGD(model.parameters(), lr=0.5)
            for name, model in trained.items()
            if list(model.parameters())
        },
        batch_size,
        {"metric_loss": loss_fn, "classifier_loss": MultiHotCrossEntropy()},
        TensorDataset(images, labels),
        mining_funcs={"tuple_miner": make_miner(2 if mine else None)},
        loss_weights={"metric_loss": 1, "classifier_loss": 0.5},
        data_device="cpu",
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        end_of_iteration_hook=lambda trainer: found.extend(value.detach() for value in trainer.losses.values()),
    )
    if num_processes() > 1:
        split_batches(trainer, mine, sync_batch_norm=False)
    torch.manual_seed(rank())  # the first process draws the batches
    trainer.train()
    weights = [parameter.detach().flatten() for model in trained.values() for parameter in model.parameters()]
    return torch.cat([torch.stack(found), *weights])


def synchronise(model):
    """The state dict and the layers that a trainer has if batch normalisation is synchronised."""
    trainer = MetricLossOnly({"trunk": model}, {}, 2, {"metric_loss": MACLLoss()}, range(2), data_device="cpu")
    with patch("process_group.DistributedDataParallel", lambda model: model):  # it refuses these layers on the CPU
        split_batches(trainer, mine=False, sync_batch_norm=True)
    return list(model.state_dict()), [type(layer).__name__ for layer in trainer.models["trunk"].modules()]


def leave_with(code, leaving_rank):
    """The exit code, if the process with this rank calls ``sys.exit(code)``."""
    try:
        with ending_together():
            if rank() == leaving_rank:
                sys.exit(code)
    except SystemExit as error:
        return error.code
    return "stayed"


def extract(num_images):
    images = torch.arange(3.0 * num_images).view(num_images, 3)
    split = Split(TensorDataset(images, torch.ones(num_images, 2)), torch.ones(num_images, 2))
    return extract_features(torch.nn.Identity(), split, "train", batch_size=2).dataset.tensors[0]


def run_process(folder):
    """What one of the processes does."""
    torch.distributed.init_process_group("gloo", timeout=TIMEOUT)
    found = {name: train_three_batches(*options) for name, options in TRAININGS.items()}
    found["gathered"] = gather({"rank": rank()})
    found["from first"] = from_first(rank())
    found["share"] = list(share(5))
    found["features"] = [extract(num_images) for num_images in (1, 5)]  # a share of one image is empty
    layer = torch.nn.BatchNorm1d(2)
    layer.running_mean.fill_(rank() + 1)
    copy_buffers_of_first([torch.nn.Identity(), layer])
    found["buffers"] = layer.running_mean
    found["synchronised"] = synchronise(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2)))
    found["exits"] = [leave_with("error: no images", 1), leave_with(0, 0), leave_with(2, 0), leave_with(1, None)]
    finish(found, folder)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of the two processes found."""
    return run_processes(__file__, tmp_path_factory.mktemp("processes"), 2)


@pytest.mark.parametrize("name", TRAININGS)
def test_losses_and_weights_equal_those_of_one_process(name, processes):
    expected = train_three_batches(*TRAININGS[name])
    for found in processes:
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_processes_can_split_the_anchors_of_every_loss(name):
    with patch("process_group.DistributedDataParallel", lambda loss_fn: loss_fn):  # it needs a process group
        joint = over_processes(make_loss(name, 0.1, LabelStatistics(3)))
    parts = joint.losses.values() if name == "macl-proxies" else [joint]
    assert {type(part) for part in parts} == {MultiLabelDistributedLossWrapper}


def test_what_the_processes_exchange(processes):
    for found in processes:
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert found["from first"] == 0
        assert found["buffers"].tolist() == [1, 1]
        assert found["features"][0].tolist() == [[0, 1, 2]]
        assert found["features"][1].tolist() == torch.arange(15).view(5, 3).tolist()
    assert [found["share"] for found in processes] == [[0, 1], [2, 3, 4]]


def test_synchronised_batch_normalisation_keeps_the_names_of_the_weights(processes):
    """Only GPUs can compute it."""
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    for found in processes:
        names, layers = found["synchronised"]
        assert names == list(plain.state_dict())
        assert layers == ["Sequential", "Conv2d", "SyncBatchNorm"]


def test_if_one_process_exits_all_do(processes):
    for found in processes:
        assert found["exits"] == [1, 0, 2, "stayed"]


def start(archive, output, *more):
    options = ["--dataset", "csv", "--images", archive / "images", "--labels", archive / "labels.csv"]
    options += ["--split-column", "part", "--image-size", "32", "--device", "cpu", "--output", output]
    options += ["--backbone", "efficientnet-lite0", "--freeze-trunk", "--dropout", "0", "--batch-size", "9"]
    return [str(part) for part in [*options, "--classifier-weight", "0.5", "--hidden-size", "8", *more]]


def test_one_process_continues_what_two_have_begun(tmp_path, monkeypatch, capsys):
    """One of the two is killed. The other one says how to continue, and the result is that of a single process."""
    import train  # not at the top: the two processes need no figures

    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    archive = write_archive(tmp_path, num_images=60, image_size=32, seed=5)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command = [*launcher, "--master-port", str(free_port()), train.__file__]
    argv = start(archive, tmp_path / "two", "--epochs", "100000")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *argv], env=environment, **pipes) as torchrun:
        try:
            lines = []
            while not lines or not lines[-1].startswith("epoch 2/"):
                lines.append(torchrun.stdout.readline())
                assert lines[-1], torchrun.stderr.read()
            children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
            os.kill(int(children[1]), signal.SIGKILL)
            _, error = torchrun.communicate(timeout=120)
        finally:
            torchrun.kill()
    assert torchrun.returncode == 1
    assert "36 train, 12 val, 12 test images" in "".join(lines)
    assert len(re.findall("epoch 1/", "".join(lines))) == 1  # only one process prints
    found = re.search(r"interrupted; (\d+) of 100000 epochs are saved in .*two; continue with: (.*)", error)
    assert shlex.split(found[2])[-6:-4] == ["--nproc-per-node", "2"]
    assert "Signal 9 (SIGKILL)" in error

    epochs = str(int(found[1]) + 1)
    one = train.main(start(archive, tmp_path / "one", "--epochs", epochs))
    continued = train.main([*shlex.split(found[2])[-3:], "--epochs", epochs])
    assert f"resuming after epoch {found[1]}" in capsys.readouterr().out
    for key in ("before", "best", "joined", "classifier"):
        for name, value in one[key].items():
            assert continued[key][name] == pytest.approx(value, abs=1e-4, nan_ok=True)
    losses = []
    for folder in ("one", "two"):
        with closing(sqlite3.connect(tmp_path / folder / "records" / "logs.db")) as database:
            losses.append(database.execute("SELECT * FROM loss_histories").fetchall())
    assert [row[1] for row in losses[1]] == list(range(4 * int(epochs)))
    assert losses[1] == [pytest.approx(row, abs=1e-4) for row in losses[0]]


if __name__ == "__main__":
    fork_processes(run_process, sys.argv[1])
