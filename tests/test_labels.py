import pytest
import torch

from pml_macl import check_labels, jaccard_similarity, shared_label_counts


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


def test_counts_are_exact_under_autocast():
    labels = torch.ones(2, 2049, dtype=torch.bool)  # 2049 is no bfloat16 or float16 number
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert shared_label_counts(labels).tolist() == [[2049, 2049], [2049, 2049]]
        assert jaccard_similarity(labels, ~labels).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.float16, torch.float32, torch.float64])
def test_zeros_and_ones_of_any_type_are_labels(dtype):
    labels = torch.tensor([[True, False], [False, False]])
    assert torch.equal(check_labels(labels.to(dtype)), labels)


def test_booleans_are_returned_as_they_are():
    labels = torch.zeros(2, 3, dtype=torch.bool)
    assert check_labels(labels, 2, 3) is labels


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([[0, 1]], TypeError, "got list; convert it with torch.as_tensor"),
        (
            torch.tensor([0, 1]),
            ValueError,
            "got \\(2,\\); one-hot encode class indices with torch.nn.functional.one_hot",
        ),
        (torch.zeros(1, 2, 3), ValueError, "got \\(1, 2, 3\\)"),
        (torch.zeros(2, 3), ValueError, "one row per embedding \\(4\\), got 2 rows"),
        (torch.zeros(4, 2), ValueError, "one column per class \\(3\\), got 2 columns"),
        (torch.full((4, 3), 2), ValueError, "only 0 and 1, got 2"),
        (torch.full((4, 3), -1), ValueError, "only 0 and 1, got -1"),
        (torch.full((4, 3), 0.5), ValueError, "only 0 and 1, got 0.5"),
        (torch.full((4, 3), torch.nan), ValueError, "only 0 and 1, got nan"),
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
