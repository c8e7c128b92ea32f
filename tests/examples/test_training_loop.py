"""Schedules, mixed precision, augmentation and the classifier of train.py."""

from types import SimpleNamespace

import pytest
import torch
import train
from archives import write_archive
from data import Split, training_transform
from models import load_classifier, load_run, make_transform
from retrieval_metrics import measure_classifier
from sklearn.metrics import average_precision_score
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader
from training_loop import MultiHotCrossEntropy, learning_rate_factor, make_trainer

from pml_macl.datasets import MultiLabelImageDataset
from pml_macl.losses import SupConAnyLoss


@pytest.mark.parametrize("warmup", [1, 3])
def test_the_schedule_equals_that_of_torch(warmup):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    fall = CosineAnnealingLR(optimizer, T_max=12 - warmup)
    schedule = SequentialLR(optimizer, [rise, fall], milestones=[warmup])
    for step in range(13):
        assert learning_rate_factor(step, warmup, 12) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()
    assert learning_rate_factor(12, warmup, 12) == 0


def test_without_a_schedule_the_learning_rate_is_constant():
    assert [learning_rate_factor(step, 0, None) for step in (0, 5)] == [1, 1]
    assert [learning_rate_factor(step, 3, None) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_mixed_precision_computes_in_bfloat16_and_returns_float32():
    trunk, images = torch.nn.Linear(50, 3), torch.randn(4, 50)
    state = {"models": {"trunk": trunk}, "optimizers": {}, "loss_funcs": {"metric_loss": SupConAnyLoss()}}
    settings = SimpleNamespace(batch_size=4, device=torch.device("cpu"), num_workers=0)
    plain, mixed = (
        make_trainer(SimpleNamespace(**vars(settings), amp=amp), Split(None, None), state).compute_embeddings(images)
        for amp in (False, True)
    )
    assert torch.equal(plain, trunk(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixed, trunk(images).float())
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, plain)


@pytest.mark.parametrize("size", [16, 24])
def test_augmentations(size):
    """A flip permutes the pixels. A crop of a picture that is brighter on the right has fewer levels of brightness."""
    picture = torch.linspace(0, 1, 16).expand(3, 16, 16)
    transforms = {
        augment: training_transform(SimpleNamespace(augment=augment, image_size=size), make_transform(size))
        for augment in ("none", "flips", "crops")
    }
    plain = make_transform(size)(picture)
    assert torch.equal(transforms["none"](picture), plain)
    flips = torch.stack([transforms["flips"](picture) for _ in range(50)])
    assert torch.equal(flips.flatten(1).sort().values, plain.flatten().sort().values.expand(50, -1))
    assert len(flips.unique(dim=0)) == 4
    crops = torch.stack([transforms["crops"](picture) for _ in range(50)])
    assert crops.shape == (50, 3, size, size)
    spans = crops.amax(dim=(1, 2, 3)) - crops.amin(dim=(1, 2, 3))
    assert 0.3 < spans.min() < spans.max() <= 1
    assert len(spans.unique()) > 5
    assert torch.equal(training_transform(SimpleNamespace(augment="none"))(picture), picture)


def test_the_cross_entropy_takes_labels_of_any_type(generator):
    logits, labels = torch.randn(6, 4, generator=generator), torch.rand(6, 4, generator=generator) < 0.4
    probability = torch.where(labels, logits.sigmoid(), 1 - logits.sigmoid())
    for kind in (torch.bool, torch.int64, torch.float64):
        torch.testing.assert_close(MultiHotCrossEntropy()(logits, labels.to(kind)), -probability.log().mean())


def test_the_average_precision_of_a_classifier_equals_that_of_scikit_learn(generator):
    logits, labels = torch.randn(40, 5, generator=generator), torch.rand(40, 5, generator=generator) < 0.3
    found = measure_classifier(logits, labels)
    expected = [average_precision_score(labels[:, label], logits[:, label]) for label in range(5)]
    assert found["label_average_precision"] == pytest.approx(expected)
    assert found["mean_average_precision"] == pytest.approx(sum(expected) / 5)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained trunk", "frozen trunk"])
def test_the_classifier_of_a_run(tmp_path, monkeypatch, frozen):
    for name in ("draw_curves", "draw_labels", "draw_grid"):
        monkeypatch.setattr(train, name, lambda *args: None)
    archive = write_archive(tmp_path, num_images=40, image_size=16, seed=5)
    argv = ["--dataset", "csv", "--images", str(archive / "images"), "--labels", str(archive / "labels.csv")]
    argv += ["--split-column", "part", "--image-size", "16", "--batch-size", "8", "--epochs", "1", "--device", "cpu"]
    weighted = [*argv, "--output", str(tmp_path / "run"), "--classifier-weight", "2", *["--freeze-trunk"] * frozen]
    result = train.main(weighted)
    model, transform, classes = load_run(tmp_path / "run")
    classifier = load_classifier(tmp_path / "run")
    assert (classifier.in_features, classifier.out_features) == (128, len(classes))
    test_set = MultiLabelImageDataset(
        archive / "images", archive / "labels.csv", split="test", split_column="part", transform=transform
    )
    with torch.no_grad():
        logits = torch.cat([classifier(model(images)) for images, _ in DataLoader(test_set, 8)])
    assert repr(measure_classifier(logits, test_set.labels)) == repr(result["classifier"])
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pth", weights_only=True)
    assert checkpoint["optimizers"]["classifier_optimizer"]["state"][0]["step"] == 24 // 8
    if not frozen:
        train.main([*argv, "--output", str(tmp_path / "plain")])
        with pytest.raises(ValueError, match="has no classifier; train it with --classifier-weight"):
            load_classifier(tmp_path / "plain")
