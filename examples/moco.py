"""Train with a queue of keys from a momentum encoder, as in MoCo (He et al., arXiv 1911.05722), on label sets.

Each image is seen in two views. The encoder that is trained embeds the first one: the query. A second encoder, a slow
average of the first, embeds the other one: the key. The keys are enqueued and are no anchors; the queries meet the keys
of many past batches, which stay comparable because the second encoder changes slowly. This takes less than a minute on
synthetic scenes:

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
    add("--num-images", type=int, default=800, help="training images")
    add("--num-test-images", type=int, default=300)
    add("--epochs", type=int, default=4)
    add("--batch-size", type=int, default=32)
    add("--memory-size", type=int, default=512, help="keys in the queue")
    add("--momentum", type=float, default=0.95, help="of the key encoder")
    add("--embedding-size", type=int, default=128)
    add("--lr", type=float, default=1e-3)
    add("--seed", type=int, default=0)
    add("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


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
            # Queries and keys in one batch, with the keys marked; an image's own key is one of its positives.
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
    """Mean average precision of each label, each image queried against the others, averaged over the labels."""
    encoder.eval()
    embeddings = torch.cat([encoder(images.to(device)) for images, _ in DataLoader(scenes, 256)])
    encoder.train()
    calculator = MultiLabelAccuracyCalculator((METRIC,))
    return calculator.get_accuracy(nn.functional.normalize(embeddings), scenes.labels.to(device))[METRIC]


if __name__ == "__main__":
    main()
