"""A stand-in for torchgeo's BigEarthNet, and the path of its samples through trainer, tester and inference model."""

import torch
from pytorch_metric_learning.trainers import MetricLossOnly
from torch.utils.data import Dataset

from pml_macl.inference import MultiLabelInferenceModel
from pml_macl.losses import MACLLoss
from pml_macl.testers import MultiLabelEmbeddingSpaceTester


class BigEarthNetSamples(Dataset):
    """Samples of ``torchgeo.datasets.BigEarthNet(root, bands="s2")``: 12 bands as floats and 19 labels as integers."""

    def __init__(self, size=24):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 10_000, (size, 12, 120, 120), generator=generator).float()
        self.labels = (torch.rand(size, 19, generator=generator) < 0.2).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


def train_test_search(dataset, data_and_label_getter):
    """Train one epoch on 12 bands; return the metrics, the ids of each image's neighbours and the indexed labels."""
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(torch.nn.AvgPool2d(40), torch.nn.Flatten(), torch.nn.BatchNorm1d(9 * 12))
    models = {"trunk": trunk, "embedder": torch.nn.Linear(9 * 12, 8)}
    device = torch.device("cpu")
    MetricLossOnly(
        models,
        {"embedder_optimizer": torch.optim.Adam(models["embedder"].parameters(), lr=1e-2)},
        batch_size=6,
        loss_funcs={"metric_loss": MACLLoss()},
        dataset=dataset,
        data_device=device,
        label_hierarchy_level="all",
        data_and_label_getter=data_and_label_getter,
        dataloader_num_workers=0,
    ).train(num_epochs=1)
    tester = MultiLabelEmbeddingSpaceTester(
        data_and_label_getter=data_and_label_getter, dataloader_num_workers=0, data_device=device
    )
    accuracies = tester.test({"val": dataset}, 1, trunk, models["embedder"])["val"]
    model = MultiLabelInferenceModel(
        trunk, models["embedder"], data_and_label_getter=data_and_label_getter, data_device=device
    )
    model.index(dataset)
    found = model.search(dataset, k=3)
    return accuracies, [result.ids for result in found], model.labels
