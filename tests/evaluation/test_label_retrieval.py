import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.metrics import hamming_loss as sklearn_hamming_loss

from pml_macl.evaluation import hamming_loss, label_f1, label_precision, label_recall


@pytest.fixture
def label_sets(generator):
    query, ranked = torch.rand(7, 6, generator=generator) < 0.5, torch.rand(7, 4, 6, generator=generator) < 0.5
    query[:, 0] = True
    ranked[0, 0] = False
    return query, ranked


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("label_precision", precision_score),
        ("label_recall", recall_score),
        ("label_f1", f1_score),
        ("hamming_loss", sklearn_hamming_loss),
    ],
)
def test_equals_sklearn_with_the_query_as_ground_truth(label_sets, name, oracle, device):
    query, ranked = label_sets
    settings = {} if name == "hamming_loss" else {"average": "samples", "zero_division": 0}
    expected = [
        oracle(row.expand(4, -1).numpy(), found.numpy(), **settings) for row, found in zip(*label_sets, strict=True)
    ]
    shared = (query[:, None] & ranked).sum(dim=2).to(device)
    query_sizes, reference_sizes = query.sum(dim=1).to(device), ranked.sum(dim=2).to(device)
    found = {
        "label_precision": lambda: label_precision(shared, reference_sizes),
        "label_recall": lambda: label_recall(shared, query_sizes),
        "label_f1": lambda: label_f1(shared, query_sizes, reference_sizes),
        "hamming_loss": lambda: hamming_loss(shared, query_sizes, reference_sizes, 6),
    }[name]()
    assert found.tolist() == pytest.approx(expected)


def test_zero_classes_raise():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        hamming_loss(torch.ones(1, 1), torch.ones(1), torch.ones(1, 1), 0)


def test_sizes_of_any_integer_type():
    shared, sizes = torch.tensor([[200, 100]]), torch.tensor([[200, 200]])
    small = shared.byte(), torch.tensor([200]).byte(), sizes.byte()
    assert label_f1(*small).item() == pytest.approx((1 + 0.5) / 2)
    assert hamming_loss(*small, num_classes=400).item() == pytest.approx((0 + 200) / 2 / 400)
