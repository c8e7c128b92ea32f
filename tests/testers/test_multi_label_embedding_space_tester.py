import pytest
import torch
from pytorch_metric_learning.losses import ContrastiveLoss
from pytorch_metric_learning.testers import (
    GlobalEmbeddingSpaceTester,
    GlobalTwoStreamEmbeddingSpaceTester,
    WithSameParentLabelTester,
)
from pytorch_metric_learning.trainers import MetricLossOnly
from pytorch_metric_learning.utils import logging_presets
from torch.utils.data import TensorDataset

from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.testers import MultiLabelEmbeddingSpaceTester

PRIMARY = "label_mean_average_precision"


@pytest.fixture
def datasets(generator):
    def dataset(size):
        labels = torch.randint(0, 2, (size, 4), generator=generator)
        noise = torch.randn(size, 6, generator=generator)
        return TensorDataset(labels.float() @ torch.eye(4, 6) + 0.5 * noise, labels)

    return {"train": dataset(40), "val": dataset(30)}


def make_tester(**kwargs):
    return MultiLabelEmbeddingSpaceTester(
        dataloader_num_workers=0, data_device=torch.device("cpu"), dtype=torch.float32, **kwargs
    )


def test_records_the_values_of_the_calculator_under_plain_names(datasets):
    embeddings, labels = datasets["val"].tensors
    calculator = MultiLabelAccuracyCalculator()
    expected = calculator.get_accuracy(torch.nn.functional.normalize(embeddings), labels)
    found = make_tester().test(datasets, 3, torch.nn.Identity())["val"]
    assert found.pop("epoch") == 3
    assert found == pytest.approx(expected)


def test_queries_are_compared_with_the_splits_given(datasets):
    (query, query_labels), (reference, reference_labels) = datasets["val"].tensors, datasets["train"].tensors
    calculator = MultiLabelAccuracyCalculator(k=5)
    tester = make_tester(accuracy_calculator=calculator, normalize_embeddings=False)
    assert tester.accuracy_calculator is calculator
    for splits in (["train"], ["train", "val"]):
        found = tester.test(datasets, 0, torch.nn.Identity(), splits_to_eval=[("val", list(splits))])["val"]
        if splits == ["train"]:
            expected = calculator.get_accuracy(query, query_labels, reference, reference_labels)
        else:
            both, both_labels = torch.cat([query, reference]), torch.cat([query_labels, reference_labels])
            expected = calculator.get_accuracy(query, query_labels, both, both_labels, ref_includes_query=True)
        assert found == pytest.approx(expected | {"epoch": 0})


@pytest.mark.parametrize(
    ("labels", "message"), [(torch.full((6, 4), 0.5), "only 0 and 1, got 0.5"), (torch.arange(6) % 2, "2-D multi-hot")]
)
def test_labels_that_are_not_multi_hot_raise(labels, message):
    with pytest.raises(ValueError, match=message):
        make_tester().test({"val": TensorDataset(torch.randn(6, 3), labels)}, 0, torch.nn.Identity())


def test_the_minimum_of_the_labels_is_not_mapped_to_zero():
    with pytest.raises(ValueError, match="set_min_label_to_zero must be False"):
        make_tester(dataset_labels=[1, 1], set_min_label_to_zero=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalised_in_float32(dtype, generator):
    embeddings, labels = torch.randn(30, 6, generator=generator), torch.rand(30, 4, generator=generator) < 0.4
    embeddings[0] = 0  # in float16, normalising it would give NaN
    rounded = embeddings.to(dtype)
    tester = MultiLabelEmbeddingSpaceTester(dataloader_num_workers=0, data_device=torch.device("cpu"), dtype=dtype)
    found = tester.test({"val": TensorDataset(rounded, labels)}, 0, torch.nn.Identity())["val"]
    expected = MultiLabelAccuracyCalculator().get_accuracy(torch.nn.functional.normalize(rounded.float()), labels)
    assert found == pytest.approx(expected | {"epoch": 0})


def test_queries_of_the_same_split_are_the_references_themselves(datasets):
    found = []

    class Recorder(MultiLabelAccuracyCalculator):
        def get_accuracy(self, query, query_labels, reference, *args, **kwargs):
            found.append(query is reference)
            return super().get_accuracy(query, query_labels, reference, *args, **kwargs)

    make_tester(accuracy_calculator=Recorder(include=("ndcg",))).test(datasets, 0, torch.nn.Identity())
    assert found == [True, True]


def test_passes_the_metrics_at_k_on(datasets):
    calculator = MultiLabelAccuracyCalculator(include=("recall_at_k", "coverage_at_k"), at_k=(1, 5))
    found = make_tester(accuracy_calculator=calculator).test(datasets, 0, torch.nn.Identity())["val"]
    embeddings, labels = datasets["val"].tensors
    expected = calculator.get_accuracy(torch.nn.functional.normalize(embeddings), labels)
    assert set(expected) == {"recall_at_1", "recall_at_5", "coverage_at_1", "coverage_at_5"}
    assert found == pytest.approx(expected | {"epoch": 0})


@pytest.mark.parametrize("level", [0, "all", [0, 1]], ids=str)
@pytest.mark.parametrize(
    "tester", [GlobalEmbeddingSpaceTester, GlobalTwoStreamEmbeddingSpaceTester, WithSameParentLabelTester]
)
def test_the_testers_of_pml_raise_with_the_advice_to_use_this_one(tester, level, datasets):
    """They pass one label column at a time to the calculator, for any label_hierarchy_level."""
    embeddings, labels = datasets["val"].tensors
    num_streams = 2 if tester is GlobalTwoStreamEmbeddingSpaceTester else 1
    dataset = TensorDataset(*[embeddings] * num_streams, labels)
    tester = tester(
        accuracy_calculator=MultiLabelAccuracyCalculator(),
        label_hierarchy_level=level,
        dataloader_num_workers=0,
        data_device=torch.device("cpu"),
    )
    with pytest.raises(ValueError, match=r"query_labels must be 2-D .* use MultiLabelEmbeddingSpaceTester instead"):
        tester.test({"val": dataset}, 0, torch.nn.Identity())


@pytest.mark.parametrize("level", [0, [0, 1]])
def test_other_label_hierarchy_levels_raise(level):
    with pytest.raises(ValueError, match="label_hierarchy_level must be 'all'"):
        MultiLabelEmbeddingSpaceTester(label_hierarchy_level=level)


def make_hooks(folder, primary_metric):
    keeper, _, _ = logging_presets.get_record_keeper(
        str(folder / "csv"), global_db_path=str(folder / "records.db"), experiment_name="run"
    )
    return logging_presets.get_hook_container(keeper, primary_metric=primary_metric)


class TestWithHooks:
    @pytest.fixture
    def hooks(self, tmp_path):
        return make_hooks(tmp_path, PRIMARY)

    def test_the_primary_metric_selects_the_best_epoch(self, hooks, datasets, tmp_path):
        tester = make_tester(end_of_testing_hook=hooks.end_of_testing_hook)
        history = []
        for epoch, noise in enumerate((1.0, 0.0, 5.0), start=1):
            trunk = AddNoise(noise)
            history.append(tester.test(datasets, epoch, trunk)["val"][PRIMARY])
        hooks.record_keeper.save_records()
        assert max(history) == history[1]
        assert hooks.get_best_epoch_and_accuracy(tester, "val") == (2, pytest.approx(history[1]))
        assert hooks.get_accuracy_history(tester, "val")[PRIMARY] == pytest.approx(history)
        table = hooks.record_group_name(tester, "val")
        header = (tmp_path / "csv" / f"{table}.csv").read_text().splitlines()[0].split(",")
        assert {"epoch", PRIMARY, "ndcg", "best_epoch", "best_accuracy"} <= set(header)
        assert (tmp_path / "records.db").stat().st_size

    def test_a_metric_at_k_can_be_the_primary_metric(self, datasets, tmp_path):
        hooks = make_hooks(tmp_path, "precision_at_5")
        calculator = MultiLabelAccuracyCalculator(include=("precision_at_k",), at_k=(1, 5))
        tester = make_tester(accuracy_calculator=calculator, end_of_testing_hook=hooks.end_of_testing_hook)
        hooks.end_of_epoch_hook(tester, datasets, str(tmp_path / "models"))  # raises if the metric is unknown
        value = tester.test(datasets, 1, torch.nn.Identity())["val"]["precision_at_5"]
        hooks.record_keeper.save_records()
        assert 0 < value < 1
        assert hooks.get_best_epoch_and_accuracy(tester, "val") == (1, pytest.approx(value))

    def test_a_training_run_saves_its_best_model(self, hooks, datasets, tmp_path):
        torch.manual_seed(0)
        models = {"trunk": torch.nn.Linear(6, 4)}
        tester = make_tester(end_of_testing_hook=hooks.end_of_testing_hook)
        trainer = MetricLossOnly(
            models,
            {"trunk_optimizer": torch.optim.SGD(models["trunk"].parameters(), lr=0.1)},
            batch_size=20,
            loss_funcs={"metric_loss": FirstLabelContrastive()},
            dataset=datasets["train"],
            data_device=torch.device("cpu"),
            dataloader_num_workers=0,
            label_hierarchy_level="all",
            end_of_iteration_hook=hooks.end_of_iteration_hook,
            end_of_epoch_hook=hooks.end_of_epoch_hook(tester, {"val": datasets["val"]}, str(tmp_path / "models")),
        )
        trainer.train(num_epochs=2)
        best, accuracy = hooks.get_best_epoch_and_accuracy(tester, "val")
        assert accuracy == max(hooks.get_accuracy_history(tester, "val")[PRIMARY])
        assert (tmp_path / "models" / f"trunk_best{best}.pth").exists()
        rows = hooks.get_accuracies_of_best_epoch(tester, "val")[0]
        assert rows[0][PRIMARY] == accuracy

    def test_an_unknown_primary_metric_raises(self, hooks, datasets, tmp_path):
        tester = make_tester(accuracy_calculator=MultiLabelAccuracyCalculator(include=("ndcg",)))
        with pytest.raises(ValueError, match="primary_metric"):
            hooks.end_of_epoch_hook(tester, datasets, str(tmp_path))


class AddNoise(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, batch):
        return batch + self.scale * torch.randn(batch.shape, generator=torch.Generator().manual_seed(1))


class FirstLabelContrastive(ContrastiveLoss):
    """PML's loss on the first column, so that the tester is the only part of this package in the test."""

    def forward(self, embeddings, labels, *args, **kwargs):
        return super().forward(embeddings, labels[:, 0], *args, **kwargs)
