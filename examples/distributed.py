"""Train on several processes, with the label frequencies of all of them.

On synthetic scenes:

    torchrun --nproc-per-node 2 examples/distributed.py

By default each process compares its images with those of all processes: PML's DistributedLossWrapper gathers embeddings
and labels, so each process counts the labels of the joint batch by itself. The gradients are those of one process on
the joint batch, but for batch normalisation, which sees the images of its own process. With --no-gather each process
compares its own images only, and the statistics are summed over the processes. PML's efficient=True compares label
matrices by itself and raises ValueError; with a DistributedMinerWrapper(miner, efficient=True) it works, but takes the
images of its own process only as anchors, so its gradients are not those of the joint batch.

The backend is NCCL where each process has a GPU of its own, and gloo otherwise.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from models import make_head, small_cnn
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from pml_macl.datasets import SyntheticScenes
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss

METRIC = "label_mean_average_precision"


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    no_gather: bool
    num_images: int
    num_test_images: int
    epochs: int
    batch_size: int
    lr: float
    seed: int


def parse_args(argv: list[str] | None = None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--no-gather", action="store_true", help="compare images of the same process only")
    add("--num-images", type=int, default=800, help="training images of all processes together")
    add("--num-test-images", type=int, default=300)
    add("--epochs", type=int, default=4)
    add("--batch-size", type=int, default=32, help="images a process and step")
    add("--lr", type=float, default=1e-3)
    add("--seed", type=int, default=0)
    return Settings(**vars(parser.parse_args(argv)))


def make_loss(num_classes: int, gather: bool) -> nn.Module:
    """MACL with the label frequencies of all processes, for a model in DistributedDataParallel."""
    loss_fn = MACLLoss(num_classes=num_classes)
    if gather:
        return DistributedLossWrapper(loss_fn)
    loss_fn.label_statistics.synchronize = True
    return loss_fn


def main(argv: list[str] | None = None) -> None:
    settings = parse_args(argv)
    if "RANK" not in os.environ:
        sys.exit("error: start this under torchrun, e.g. torchrun --nproc-per-node 2 examples/distributed.py")
    local_rank, processes_here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    on_gpus = torch.cuda.device_count() >= processes_here
    device = torch.device("cuda", local_rank) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=timedelta(minutes=5))
    try:
        train(settings, device)
        dist.barrier()  # a process that leaves while another still works may abort as its connections go
    finally:
        dist.destroy_process_group()


def train(settings: Settings, device: torch.device) -> None:
    is_first = dist.get_rank() == 0
    torch.manual_seed(settings.seed)  # the same first weights everywhere
    train_set = SyntheticScenes(settings.num_images, seed=0)
    test_set = SyntheticScenes(settings.num_test_images, seed=1) if is_first else None
    model = nn.Sequential(small_cnn(), make_head(128, 256, 128, dropout=0.0)).to(device)
    model = DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])
    loss_fn = make_loss(len(train_set.classes), not settings.no_gather).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    # Equally many images for each process: without drop_last it would repeat some, which would be counted twice.
    sampler = DistributedSampler(train_set, seed=settings.seed, drop_last=True)
    loader = DataLoader(train_set, settings.batch_size, sampler=sampler, drop_last=True)
    if not len(loader):
        raise ValueError(f"--num-images {settings.num_images} is less than one batch of each process")
    if is_first:
        print(f"{dist.get_world_size()} processes, {dist.get_backend()}, {device.type}")
        print(f"label mAP before training: {evaluate(model.module, test_set, device):.2%}")
    for epoch in range(settings.epochs):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            loss = loss_fn(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    same, num_samples = compare_statistics(loss_fn)
    if is_first:
        print(f"label mAP after training:  {evaluate(model.module, test_set, device):.2%}")
        print(f"label statistics of {num_samples} images, {'the same' if same else 'NOT THE SAME'} on each process")


def compare_statistics(loss_fn: nn.Module) -> tuple[bool, int]:
    """Whether all processes have counted the same, and how many images this one has counted."""
    statistics = getattr(loss_fn, "loss", loss_fn).label_statistics
    gathered = [torch.empty_like(statistics.cooccurrence) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, statistics.cooccurrence)
    return all(torch.equal(counts, statistics.cooccurrence) for counts in gathered), int(statistics.num_samples)


@torch.no_grad()
def evaluate(model: nn.Module, scenes: SyntheticScenes, device: torch.device) -> float:
    """Mean average precision of each label, each image queried against the others, averaged over the labels."""
    model.eval()
    embeddings = torch.cat([model(images.to(device)) for images, _ in DataLoader(scenes, 256)])
    model.train()
    calculator = MultiLabelAccuracyCalculator((METRIC,))
    return calculator.get_accuracy(nn.functional.normalize(embeddings), scenes.labels.to(device))[METRIC]


if __name__ == "__main__":
    main()
