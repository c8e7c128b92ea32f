"""Train on several processes with shared label frequencies, on synthetic scenes.

    torchrun --nproc-per-node 2 examples/distributed.py

MultiLabelDistributedLossWrapper gathers the embeddings and labels of all processes. Each process compares its images
with all images, and the loss counts the labels of the joint batch. The gradients equal those of a single process on the
joint batch, except that batch normalisation uses only the images of its own process.

The backend is NCCL if each process has its own GPU, otherwise gloo.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from models import make_head, small_cnn
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from pml_macl import LabelStatistics
from pml_macl.datasets import SyntheticScenes
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss, MultiLabelDistributedLossWrapper

METRIC = "label_mean_average_precision"


@dataclass(frozen=True)
class Settings:
    """The options of the command line."""

    num_images: int
    num_test_images: int
    epochs: int
    batch_size: int
    lr: float
    seed: int


def parse_args(argv: list[str] | None = None) -> Settings:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--num-images", type=int, default=800, help="number of training images of all processes together (default: 800)"
    )
    add("--num-test-images", type=int, default=300, help="default: 300")
    add("--epochs", type=int, default=4, help="default: 4")
    add("--batch-size", type=int, default=32, help="images per process and step (default: 32)")
    add("--lr", type=float, default=1e-3, help="learning rate of AdamW (default: 0.001)")
    add("--seed", type=int, default=0, help="seed of the weights and of the order of the images (default: 0)")
    return Settings(**vars(parser.parse_args(argv)))


def main(argv: list[str] | None = None) -> None:
    settings = parse_args(argv)
    if "RANK" not in os.environ:
        sys.exit(
            "error: this script needs torchrun; start it with: torchrun --nproc-per-node 2 examples/distributed.py"
        )
    local_rank, processes_here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    on_gpus = torch.cuda.device_count() >= processes_here
    device = torch.device("cuda", local_rank) if on_gpus else torch.device("cpu")
    if on_gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=timedelta(minutes=5))
    try:
        train(settings, device)
        dist.barrier()  # a process that exits while another one still works could break its connection
    finally:
        dist.destroy_process_group()


def train(settings: Settings, device: torch.device) -> None:
    is_first = dist.get_rank() == 0
    torch.manual_seed(settings.seed)  # all processes start with the same weights
    train_set = SyntheticScenes(settings.num_images, seed=0)
    test_set = SyntheticScenes(settings.num_test_images, seed=1) if is_first else None
    model = nn.Sequential(small_cnn(), make_head(128, 256, 128, dropout=0.0)).to(device)
    model = DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])
    loss_fn = MultiLabelDistributedLossWrapper(MACLLoss(num_classes=len(train_set.classes))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    # drop_last gives each process equally many images. Otherwise the sampler repeats some, and they count twice.
    sampler = DistributedSampler(train_set, seed=settings.seed, drop_last=True)
    loader = DataLoader(train_set, settings.batch_size, sampler=sampler, drop_last=True)
    if not len(loader):
        raise ValueError(
            f"--num-images must be at least one batch per process ({settings.batch_size * dist.get_world_size()}), "
            f"got {settings.num_images}"
        )
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
    same, num_samples = compare_statistics(loss_fn.loss.label_statistics)
    if is_first:
        print(f"label mAP after training:  {evaluate(model.module, test_set, device):.2%}")
        print(f"label statistics of {num_samples} images, {'the same' if same else 'NOT THE SAME'} on each process")


def compare_statistics(statistics: LabelStatistics) -> tuple[bool, int]:
    """Whether all processes have the same counts, and the number of images that this process has counted."""
    gathered = [torch.empty_like(statistics.cooccurrence) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, statistics.cooccurrence)
    return all(torch.equal(counts, statistics.cooccurrence) for counts in gathered), int(statistics.num_samples)


@torch.no_grad()
def evaluate(model: nn.Module, scenes: SyntheticScenes, device: torch.device) -> float:
    """Label mAP: each image is a query against the other images."""
    model.eval()
    embeddings = torch.cat([model(images.to(device)) for images, _ in DataLoader(scenes, 256)])
    model.train()
    calculator = MultiLabelAccuracyCalculator((METRIC,))
    return calculator.get_accuracy(nn.functional.normalize(embeddings), scenes.labels.to(device))[METRIC]


if __name__ == "__main__":
    main()
