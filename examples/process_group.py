"""What changes if torchrun starts train.py as several processes.

Each process loads and embeds its share of every batch, and the loss and its gradients are those of the joint batch. In
an evaluation, each one embeds and ranks its share of the images. The first process reads the command line, records,
saves and prints; the others wait for it.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_metric_learning.losses import MultipleLosses
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, RandomSampler

from pml_macl.losses import MultiLabelDistributedLossWrapper

T = TypeVar("T")
TIMEOUT = timedelta(hours=1)  # must be longer than what one process does while the others wait


def rank() -> int:
    """The number of this process: 0 for the first one, which is the only one without torchrun."""
    return int(os.environ.get("RANK", 0))


def is_first() -> bool:
    return rank() == 0


def num_processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined_processes() -> Iterator[None]:
    """Connect the processes that torchrun started; without torchrun, do nothing. Only the first process prints.

    If a process ends early, torchrun sends SIGTERM to the others, which this turns into KeyboardInterrupt.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # torch 2.2 asks for a GPU by default
    dist.init_process_group(backend, timeout=TIMEOUT)
    code: Any = 0
    try:
        with open(os.devnull, "w") as nowhere, nullcontext() if is_first() else redirect_stdout(nowhere):
            yield
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    if code or not is_first():
        sys.stderr.flush()
        os._exit(code)  # the end of the interpreter could wait for the other processes, or abort as they vanish


def leave() -> None:
    """Disconnect the processes. From here on, each one works alone."""
    if num_processes() > 1:
        dist.barrier()  # a process that exits while another one still works could break its connection
        dist.destroy_process_group()


def wait_for_torchrun() -> None:
    """Call this before an error is reported: if another process ended first, torchrun interrupts this one instead."""
    if num_processes() > 1:
        time.sleep(8)  # torchrun of torch 2.2 looks at its processes every 5 seconds


def choose_gpu(device: torch.device) -> None:
    """Give each process a GPU of its own; torch then takes it for ``cuda``."""
    if device.type != "cuda" or num_processes() == 1:
        return
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if here > torch.cuda.device_count():
        raise ValueError(
            f"--nproc-per-node must be at most the number of GPUs ({torch.cuda.device_count()}), got {here}; start "
            "fewer processes, or use --device cpu"
        )
    if device.index is not None:
        raise ValueError(f"--device must be cuda or cpu under torchrun, which gives each process a GPU, got {device}")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def gather(item: T) -> list[T]:
    """The items of all processes, in the order of their ranks."""
    items: list[Any] = [item] * num_processes()
    if num_processes() > 1:
        dist.all_gather_object(items, item)
    return items


def from_first(item: T) -> T:
    """The item of the first process."""
    items = [item]
    if num_processes() > 1:
        dist.broadcast_object_list(items)
    return items[0]


@contextmanager
def ending_together() -> Iterator[None]:
    """If ``sys.exit`` is called in one process, all processes end, after the first of these has printed its message."""
    own: SystemExit | None = None
    try:
        yield
    except SystemExit as leaving:
        own = leaving
    codes = gather((own is not None, None if own is None else own.code))
    if own is not None and num_processes() == 1:
        raise own
    ending = [number for number, (ends, _) in enumerate(codes) if ends]
    if ending:
        code = codes[ending[0]][1]
        if isinstance(code, str) and rank() == ending[0]:
            print(code, file=sys.stderr, flush=True)
        dist.barrier()  # torchrun stops the others as soon as one process has ended
        sys.exit(1 if isinstance(code, str) else code)


def share(size: int) -> range:
    """The rows of this process among ``size`` rows. The shares differ by at most one row."""
    if num_processes() == 1:
        return range(size)
    return range(size * rank() // num_processes(), size * (rank() + 1) // num_processes())


def copy_buffers_of_first(models: Iterable[nn.Module]) -> None:
    """Give all processes the buffers of the first one, such as the statistics of batch normalisation."""
    if num_processes() > 1:
        for model in models:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


class ShareOfBatches(BatchSampler):
    """The share of this process of each batch. The batches are those that the first process draws."""

    def __init__(self, dataset: Sized, batch_size: int) -> None:
        super().__init__(RandomSampler(dataset), batch_size, drop_last=True)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in from_first([*super().__iter__()]):
            yield [batch[row] for row in share(len(batch))]


def split_batches(trainer: Any, mine: bool, sync_batch_norm: bool) -> None:
    """Let a PML trainer train on the share of this process, with the loss and the gradients of the joint batch.

    Args:
        trainer: a trainer whose miner keeps all pairs, unless ``mine``.
        mine: use the miner. Each process then computes the loss of all anchors, otherwise that of its own anchors.
        sync_batch_norm: normalise with the statistics of the joint batch; needs GPUs.
    """
    loss_fn = trainer.loss_funcs["metric_loss"]
    if mine:
        multiplied = DistributedLossWrapper(loss_fn)  # returns the loss times the number of processes

        def joint_loss(*batch: Any) -> Tensor:
            loss = multiplied(*batch)
            return with_value(loss, loss / num_processes())

        trainer.maybe_mine_embeddings = DistributedMinerWrapper(trainer.mining_funcs["tuple_miner"])
        trainer.maybe_get_metric_loss = joint_loss
    else:
        trainer.mining_funcs = {}
        trainer.maybe_get_metric_loss = over_processes(loss_fn)
    trainer.sampler = ShareOfBatches(trainer.dataset, trainer.batch_size)
    for name, model in trainer.models.items():
        if any(parameter.requires_grad for parameter in model.parameters()):
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model) if sync_batch_norm else model
            trainer.models = {**trainer.models, name: DistributedDataParallel(model)}


def over_processes(loss_fn: nn.Module) -> nn.Module:
    """The loss of the joint batch, or the sum of several; its parameters get the gradients of the joint batch, too."""
    if isinstance(loss_fn, MultipleLosses):
        parts = {name: over_processes(part) for name, part in loss_fn.losses.items()}
        return MultipleLosses(parts, weights=loss_fn.weights)
    joint = MultiLabelDistributedLossWrapper(loss_fn)
    return DistributedDataParallel(joint) if any(part.requires_grad for part in loss_fn.parameters()) else joint


def joint_mean(mean: Tensor, size: int) -> Tensor:
    """The mean of a loss over the images of all processes.

    Args:
        mean: () mean over the images of this process. The gradient of the result is such that
            ``DistributedDataParallel``, which averages over the processes, yields the gradient of the joint mean.
        size: number of images of this process.
    """
    if num_processes() == 1:
        return mean
    sums = torch.stack([mean.detach() * size, torch.full_like(mean, size)])
    dist.all_reduce(sums)
    return with_value(mean * (size * num_processes() / sums[1]), sums[0] / sums[1])


def with_value(loss: Tensor, value: Tensor) -> Tensor:
    """The value, with the gradient of the loss."""
    return loss + (value - loss).detach()
