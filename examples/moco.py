"""Train on label sets with a queue of keys from a momentum encoder, as in MoCo (He et al., arXiv 1911.05722).

Each image gives two views. The encoder embeds the first view, the query. The momentum encoder, a slow average of the
encoder, embeds the second view, the key. The queries are the anchors. Their references are the keys of this batch and
of past batches, which are kept in a queue. Old keys stay comparable to new ones, because the momentum encoder changes
slowly. On synthetic scenes this takes less than a minute:

    python examples/moco.py
"""

import argparse
import copy
import time

import torch
from data import random_flip
from models import make_head, small_cnn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pml_macl.datasets import SyntheticScenes
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory

METRIC = "label_mean_average_precision"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--num-images", type=int, default=800, help="number of training images (default: 800)")
    add("--num-test-images", type=int, default=300, help="default: 300")
    add("--epochs", type=int, default=4, help="default: 4")
    add("--batch-size", type=int, default=32, help="default: 32")
    add("--memory-size", type=int, default=512, help="number of keys in the queue (default: 512)")
    add(
        "--momentum",
        type=float,
        default=0.95,
        help="momentum of the key encoder, in [0, 1); larger is slower (default: 0.95)",
    )
    add("--embedding-size", type=int, default=128, help="default: 128")
    add("--lr", type=float, default=1e-3, help="learning rate of AdamW (default: 0.001)")
    add("--seed", type=int, default=0, help="seed of the weights and of the flips (default: 0)")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", type=torch.device, default=device, help="default: cuda if there is a GPU, otherwise cpu")
    args = parser.parse_args(argv)
    if args.num_images < args.batch_size:
        parser.error("--num-images must be at least --batch-size")
    return args


def main(argv: list[str] | None = None) -> dict[str, float]:
    args = parse_args(argv)
    started = time.perf_counter()
    torch.manual_seed(args.seed)
    train_set = SyntheticScenes(args.num_images, seed=0, transform=two_views)
    test_set = SyntheticScenes(args.num_test_images, seed=1)
    num_classes = len(train_set.classes)

    encoder = nn.Sequential(small_cnn(), make_head(128, 256, args.embedding_size, dropout=0.0)).to(args.device)
    key_encoder = copy.deepcopy(encoder).requires_grad_(False)
    loss_fn = MultiLabelCrossBatchMemory(
        MACLLoss(num_classes=num_classes), args.embedding_size, num_classes, args.memory_size
    ).to(args.device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=args.lr)
    loader = DataLoader(train_set, args.batch_size, shuffle=True, drop_last=True)

    result = {"before": evaluate(encoder, test_set, args.device)}
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for (first, second), labels in loader:
            queries = encoder(first.to(args.device))
            with torch.no_grad():
                update_average(key_encoder, encoder, args.momentum)
                keys = key_encoder(second.to(args.device))
            # Queries and keys form one batch, in which the mask marks the keys. A query's own key is a positive.
            is_key = torch.arange(2 * len(labels)) >= len(labels)
            loss = loss_fn(torch.cat([queries, keys]), torch.cat([labels, labels]), enqueue_mask=is_key)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch}/{args.epochs}: loss {total / len(loader):.3f}")
    result["after"] = evaluate(encoder, test_set, args.device)
    print(
        f"label mAP on {len(test_set)} test images: {result['before']:.2%} before training, "
        f"{result['after']:.2%} after; {time.perf_counter() - started:.0f} s"
    )
    return result


def two_views(image: Tensor) -> tuple[Tensor, Tensor]:
    return random_flip(image), random_flip(image)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, momentum: float) -> None:
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


@torch.no_grad()
def evaluate(encoder: nn.Module, scenes: SyntheticScenes, device: torch.device) -> float:
    """Label mAP: each image is a query against the other images."""
    encoder.eval()
    embeddings = torch.cat([encoder(images.to(device)) for images, _ in DataLoader(scenes, 256)])
    encoder.train()
    calculator = MultiLabelAccuracyCalculator((METRIC,))
    return calculator.get_accuracy(nn.functional.normalize(embeddings), scenes.labels.to(device))[METRIC]


if __name__ == "__main__":
    main()
