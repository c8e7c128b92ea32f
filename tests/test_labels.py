import numpy as np
import pytest
import torch
from pytorch_metric_learning.trainers import MetricLossOnly
from torch.utils.data import TensorDataset

from pml_macl import MACLLoss, check_labels, jaccard_similarity, shared_label_counts


def random_labels(num_rows, num_classes, generator):
    return torch.rand(num_rows, num_classes, generator=generator) < 0.3


@pytest.mark.parametrize("num_classes", [1, 5, 300])
def test_counts_and_jaccard_equal_set_operations(num_classes, generator, device):
    labels, ref_labels = random_labels(7, num_classes, generator), random_labels(9, num_classes, generator)
    labels[0], ref_labels[0] = False, False
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    ref_rows = [set(row.nonzero().flatten().tolist()) for row in ref_labels]
    shared = shared_label_counts(labels.to(device), ref_labels.to(device))
    jaccard = jaccard_similarity(labels.to(device), ref_labels.to(device), dtype=torch.float64)
    assert shared.dtype is torch.int64
    assert shared.tolist() == [[len(a & b) for b in ref_rows] for a in rows]
    assert jaccard.tolist() == [[len(a & b) / len(a | b) if a | b else 0.0 for b in ref_rows] for a in rows]


def test_one_set_is_compared_with_itself(generator):
    labels = random_labels(6, 4, generator)
    assert torch.equal(shared_label_counts(labels), shared_label_counts(labels, labels))
    assert torch.equal(jaccard_similarity(labels), jaccard_similarity(labels, labels))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.float16, torch.float32, torch.float64])
def test_zeros_and_ones_of_any_type_are_labels(dtype):
    labels = torch.tensor([[True, False], [False, False]])
    assert torch.equal(check_labels(labels.to(dtype)), labels)


def test_booleans_are_returned_as_they_are():
    labels = torch.zeros(2, 3, dtype=torch.bool)
    assert check_labels(labels, 2, 3) is labels


class Table:
    """Stands in for a pandas DataFrame."""

    def to_numpy(self):
        return np.eye(3)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([[0, 1]], TypeError, "got list; convert it with torch.as_tensor$"),
        (np.eye(3), TypeError, "got ndarray; convert it with torch.as_tensor$"),
        ([["ship", "water"], ["ship"]], TypeError, r"got list; turn lists of .*MultiLabelBinarizer\(\).fit_transform"),
        ([[0, 2], [1]], TypeError, r"got list; turn lists of .*MultiLabelBinarizer\(\).fit_transform"),
        (np.array(["ship"]), TypeError, r"got ndarray; turn lists of .*MultiLabelBinarizer\(\).fit_transform"),
        (Table(), TypeError, r"got Table; convert it with torch.as_tensor\(labels.to_numpy\(\)\)"),
        (None, TypeError, "got NoneType; pass one row per image"),
        (torch.tensor([0, 1]), ValueError, r"2-D multi-hot, shape \(rows, classes\), got shape \(2,\); .*one_hot"),
        (torch.zeros(1, 2, 3), ValueError, r"got shape \(1, 2, 3\)$"),
        (torch.zeros(2, 3), ValueError, "one row per embedding \\(4\\), got 2 rows"),
        (torch.zeros(4, 2), ValueError, "one column per class \\(3\\), got 2 columns"),
        (torch.full((4, 3), 2), ValueError, "only 0 and 1, got 2; threshold scores or counts first"),
        (torch.full((4, 3), -1), ValueError, "only 0 and 1, got -1; if -1 means absent in your table, pass labels > 0"),
        (torch.full((4, 3), -1.0), ValueError, "only 0 and 1, got -1.0; if -1 means absent"),
        (torch.full((4, 3), 0.5), ValueError, "only 0 and 1, got 0.5; threshold scores or counts first"),
        (torch.full((4, 3), torch.nan), ValueError, r"got nan; NaN marks a missing value: .*labels.nan_to_num\(0\)"),
    ],
)
def test_other_input_is_refused(labels, error, message):
    with pytest.raises(error, match=f"truth must .*{message}"):
        check_labels(labels, num_rows=4, num_classes=3, name="truth")


def test_reference_labels_are_checked_too():
    with pytest.raises(ValueError, match="ref_labels must have one column per class"):
        shared_label_counts(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="ref_labels must hold only 0 and 1"):
        jaccard_similarity(torch.zeros(2, 3), torch.full((2, 3), 7))


def test_the_advice_of_the_messages_works():
    binarizer = pytest.importorskip("sklearn.preprocessing", reason="the advice names scikit-learn").MultiLabelBinarizer
    for rows in ([["ship", "water"], ["ship"]], [[0, 2], [0]]):
        assert check_labels(torch.as_tensor(binarizer().fit_transform(rows))).tolist() == [[True, True], [True, False]]
    assert check_labels(torch.tensor([[-1, 1]]) > 0).tolist() == [[False, True]]
    assert check_labels(torch.tensor([[torch.nan, 1]]).nan_to_num(0)).tolist() == [[False, True]]
    assert check_labels(torch.as_tensor(Table().to_numpy())).equal(torch.eye(3, dtype=torch.bool))


@pytest.fixture
def dataset(generator):
    return TensorDataset(torch.randn(8, 6, generator=generator), torch.ones(8, 3, dtype=torch.long))


HIERARCHY = r'must be 2-D multi-hot, .*got shape \(8,\); .*trainers pass label_hierarchy_level="all", and test'


def test_a_trainer_of_pml_without_the_label_hierarchy_level_gets_the_advice(dataset):
    trunk = torch.nn.Linear(6, 4)
    trainer = MetricLossOnly(
        {"trunk": trunk},
        {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        8,
        {"metric_loss": MACLLoss()},
        dataset,
        dataloader_num_workers=0,
        data_device="cpu",
    )
    with pytest.raises(ValueError, match=f"labels {HIERARCHY}"):
        trainer.train(num_epochs=1)
