"""Our parts inside PML's trainer, hooks and their checkpoints."""

import pytest
import torch
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils import logging_presets

from pml_macl.distances import CosineTemperature, TemperatureScheduledSimilarity
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.losses import MACLLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.testers import MultiLabelEmbeddingSpaceTester


def make_training(folder, device):
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(48, 5, generator=generator) < 0.3
    images = labels.float() @ torch.randn(5, 6, generator=generator) + torch.randn(48, 6, generator=generator)
    dataset = torch.utils.data.TensorDataset(images, labels)
    records, _, _ = logging_presets.get_record_keeper(str(folder / "records"))
    hooks = logging_presets.get_hook_container(records, primary_metric="ndcg", log_freq=1)
    tester = MultiLabelEmbeddingSpaceTester(
        end_of_testing_hook=hooks.end_of_testing_hook,
        accuracy_calculator=MultiLabelAccuracyCalculator(include=("ndcg",)),
        dataloader_num_workers=0,
        data_device=device,
    )
    model = torch.nn.Linear(6, 4).to(device)
    schedule = CosineTemperature(0.2, 0.05, num_steps=20)
    loss = MACLLoss(num_classes=5, distance=TemperatureScheduledSimilarity(schedule=schedule), collect_stats=True)
    trainer = MetricLossOnly(
        {"trunk": model},
        {"trunk_optimizer": torch.optim.Adam(model.parameters())},
        16,
        {"metric_loss": loss.to(device)},
        dataset,
        mining_funcs={"tuple_miner": LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=4)},
        data_device=device,
        label_hierarchy_level="all",
        dataloader_num_workers=0,
        end_of_iteration_hook=hooks.end_of_iteration_hook,
        end_of_epoch_hook=hooks.end_of_epoch_hook(tester, {"val": dataset}, str(folder / "models")),
    )
    return trainer, hooks, loss


def test_pml_checkpoints_bring_back_statistics_and_schedule(tmp_path, device):
    trainer, _, loss = make_training(tmp_path, device)
    trainer.train(num_epochs=2)
    assert loss.distance.schedule.step == 6
    assert loss.label_statistics.num_samples == 96
    resumed, hooks, other_loss = make_training(tmp_path, device)
    assert hooks.load_latest_saved_models(resumed, str(tmp_path / "models"), device) == 3
    for name, value in loss.state_dict().items():
        assert torch.equal(other_loss.state_dict()[name], value), name
    assert other_loss.distance.temperature.item() == pytest.approx(loss.distance.temperature.item())
    resumed.train(start_epoch=3, num_epochs=3)
    assert other_loss.distance.schedule.step == 9
