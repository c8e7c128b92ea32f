"""The questions page quotes PML's error messages and the results as they are."""

import operator
import re
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning.losses import CrossBatchMemory, SelfSupervisedLoss, TripletMarginLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.distributed import get_indices_tuple
from torch.utils.data import Dataset

from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "learn" / "questions.md").read_text(encoding="utf-8")
EMBEDDINGS = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.rand(16, 5, generator=torch.Generator().manual_seed(1)) < 0.5


class Samples(Dataset):
    """Embeddings with label sets, as tuples or as dictionaries."""

    def __init__(self, as_dict=False):
        self.as_dict = as_dict

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        image, labels = EMBEDDINGS[index], LABELS[index]
        return {"image": image, "labels": labels} if self.as_dict else (image, labels)


def train(dataset, loss_fn=None, **kwargs):
    trunk = torch.nn.Linear(8, 8)
    MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        batch_size=16,
        loss_funcs={"metric_loss": MACLLoss() if loss_fn is None else loss_fn},
        dataset=dataset,
        data_device="cpu",
        dataloader_num_workers=0,
        **kwargs,
    ).train(num_epochs=1)


def evaluate(tester, dataset, **kwargs):
    tester = tester(accuracy_calculator=MultiLabelAccuracyCalculator(), dataloader_num_workers=0, **kwargs)
    return tester.test({"test": dataset}, 1, torch.nn.Identity())["test"]


MESSAGES = {
    "labels must be a 1D tensor of shape (batch_size,)": [
        lambda: TripletMarginLoss()(EMBEDDINGS, LABELS),
        lambda: MultiSimilarityMiner()(EMBEDDINGS, LABELS),
    ],
    "'str' object has no attribute 'ndim'": [
        lambda: train(Samples(as_dict=True), label_hierarchy_level="all"),
        lambda: evaluate(MultiLabelEmbeddingSpaceTester, Samples(as_dict=True)),
    ],
    "The size of tensor a (N) must match the size of tensor b (M)": [
        lambda: AccuracyCalculator(include=("mean_average_precision",)).get_accuracy(EMBEDDINGS, LABELS),
    ],
    "SelfSupervisedLoss not supported for MACLLoss": [lambda: SelfSupervisedLoss(MACLLoss())],
    "CrossBatchMemory not supported for MACLLoss": [lambda: CrossBatchMemory(MACLLoss(), 8)],
    "too many values to unpack (expected 2)": [  # efficient=True calls this on several processes
        lambda: get_indices_tuple(LABELS, torch.cat([LABELS, LABELS])),
    ],
}


@pytest.mark.parametrize(
    ("message", "call"), [(message, call) for message, calls in MESSAGES.items() for call in calls]
)
def test_pml_gives_the_messages_of_the_page(message, call):
    assert f"\n### `{message}`\n" in PAGE
    pattern = re.escape(message).replace(r"\(N", r"\(\d+").replace(r"\(M", r"\(\d+")  # N and M stand for numbers
    with pytest.raises(Exception, match=pattern):
        call()


def test_every_message_on_the_page_is_tried():
    assert set(re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE)) == set(MESSAGES)


def test_dictionaries_work_with_a_getter():
    getter = {"data_and_label_getter": operator.itemgetter("image", "labels")}
    train(Samples(as_dict=True), label_hierarchy_level="all", **getter)
    assert evaluate(MultiLabelEmbeddingSpaceTester, Samples(as_dict=True), **getter) == evaluate(
        MultiLabelEmbeddingSpaceTester, Samples()
    )


def test_without_all_levels_our_losses_raise_and_those_of_pml_see_one_column():
    with pytest.raises(ValueError, match=r"labels must be .*\(16,\)"):
        train(Samples())
    with pytest.raises(ValueError, match=r"labels must be .*\(16,\)"):
        evaluate(GlobalEmbeddingSpaceTester, Samples())
    seen = []

    class Spy(TripletMarginLoss):
        def forward(self, embeddings, labels, *args, **kwargs):
            seen.append(labels)
            return super().forward(embeddings, labels, *args, **kwargs)

    train(Samples(), Spy())
    assert sorted(seen[0].tolist()) == sorted(LABELS[:, 0].long().tolist())


def test_pml_tester_scores_each_column_by_itself():
    tester = GlobalEmbeddingSpaceTester(
        accuracy_calculator=AccuracyCalculator(include=("precision_at_1",)),
        label_hierarchy_level="all",
        dataloader_num_workers=0,
    )
    found = tester.test({"test": Samples()}, 1, torch.nn.Identity())["test"]
    assert {f"precision_at_1_level{column}" for column in range(5)} <= set(found)


@pytest.mark.parametrize("page", ["frozen", "fine_tuned"])
def test_weighted_macl_is_ahead_on_as_many_metrics_as_the_page_says(page):
    """Counts in the tables, where a tie of the rounded values goes to the bold one."""
    text = (DOCS / "results" / f"{page}.md").read_text(encoding="utf-8")
    text = re.sub(r"^\| method \| R@.*?\n\n", "", text, flags=re.MULTILINE | re.DOTALL)  # Recall@K is none of the seven
    rows = re.findall(r"^\| (MACL|MACL, weighted) \| (.* ± .*) \|$", text, re.MULTILINE)
    cells = [[(float(re.search(r"[\d.]+", cell)[0]), "**" in cell) for cell in row.split(" | ")] for _, row in rows]
    assert [name for name, _ in rows] == ["MACL", "MACL, weighted"] * 2
    ahead = [sum(w > m for m, w in zip(*cells[first : first + 2], strict=True)) for first in (0, 2)]
    assert re.search(rf"/{page}\.md\), \d seeds \| {ahead[0]} \| {ahead[1]} \|$", PAGE, re.MULTILINE)
