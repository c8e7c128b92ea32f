"""The checks of arguments, and the public classes that use them."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import BaseDistance, CosineSimilarity

from pml_macl import LabelOverlapMiner, LabelStatistics, MultiLabelCrossBatchMemory, TemperatureScheduledSimilarity
from pml_macl.checks import check_instance, check_integer, check_positive, check_range
from pml_macl.datasets import SyntheticScenes, stratified_split
from pml_macl.distances import CosineTemperature
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.inference import MultiLabelInferenceModel, augment_embeddings
from pml_macl.losses import MACLLoss
from pml_macl.samplers import LabelBalancedSampler


def test_check_instance_accepts_none_and_instances():
    check_instance("distance", None, BaseDistance, "a distance")
    check_instance("distance", CosineSimilarity(), BaseDistance, "a distance")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("cosine", "distance must be a distance, got str; pass an instance of BaseDistance"),
        (CosineSimilarity, "distance must be a distance, got the class CosineSimilarity itself; pass an instance"),
        (torch.nn.Linear, "distance must be a distance, got type; pass an instance of BaseDistance"),
    ],
)
def test_check_instance_says_what_it_found(value, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        check_instance("distance", value, BaseDistance, "a distance")


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), float("inf"), np.float32(0)])
def test_check_positive_says_above_0(value):
    with pytest.raises(ValueError, match=r"^temperature must be above 0 and finite, got"):
        check_positive("temperature", value)


@pytest.mark.parametrize("value", [True, np.bool_(True), "1", None, torch.tensor(1.0)])
def test_other_types_are_not_numbers(value):
    for check in (check_positive, lambda name, value: check_range(name, value, 0, 1)):
        with pytest.raises(TypeError, match=r"^temperature must be a number, got"):
            check("temperature", value)


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, float, np.float32, np.float64])
def test_numbers_of_python_and_numpy_are_accepted(kind):
    check_positive("temperature", kind(1))
    check_range("threshold", kind(1), 0, 1)
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 2"):
        check_range("threshold", kind(2), 0, 1)


def test_check_integer():
    for value in (1, np.int64(1), np.int8(1), np.uint16(1)):
        check_integer("k", value)
    for value in (0, np.int64(0)):
        with pytest.raises(ValueError, match=r"^k must be at least 1, got 0"):
            check_integer("k", value)
    for value in (True, np.bool_(True), 1.0, np.float64(1), "1", torch.tensor(1)):
        with pytest.raises(TypeError, match=r"^k must be an integer, got"):
            check_integer("k", value)


def test_public_classes_work_with_integers_of_numpy(generator):
    two, three, eight = map(np.int64, (2, 3, 8))
    embeddings = torch.randn(4, 2, generator=generator)
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]])
    statistics = LabelStatistics(three)
    statistics.update(labels)
    assert type(statistics.num_classes) is int
    memory = MultiLabelCrossBatchMemory(MACLLoss(num_classes=three), two, three, memory_size=eight)
    assert memory(embeddings, labels).isfinite()
    miner = LabelOverlapMiner(max_negatives_per_anchor=two, neg_strategy="hard")
    assert len(miner(embeddings, labels)) == 4
    similarity = TemperatureScheduledSimilarity(schedule=CosineTemperature(0.2, 0.1, three))
    assert similarity(embeddings).isfinite().all()
    assert len(SyntheticScenes(np.int64(2), image_size=np.int64(16), seed=np.int64(1))) == 2
    assert len(stratified_split(labels, fractions=(0.5, 0.5), seed=three)) == 4
    sampler = LabelBalancedSampler(labels, batch_size=two)
    sampler.set_epoch(three)
    assert all(len(batch) == 2 for batch in sampler.batches())
    model = MultiLabelInferenceModel(torch.nn.Identity())
    model.index(torch.utils.data.TensorDataset(embeddings, labels), batch_size=three)
    assert len(model.search(embeddings, k=two)[0]) == 2
    assert augment_embeddings(embeddings, k=two).shape == (4, 2)
    calculator = MultiLabelAccuracyCalculator(("ndcg",), query_batch_size=three)
    assert 0 < calculator.get_accuracy(embeddings, labels)["ndcg"] <= 1
