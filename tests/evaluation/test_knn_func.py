"""PML's nearest-neighbour functions, including faiss, in place of the exact ranking."""

import pytest
import torch
from evaluation_oracles import random_problem
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.utils.inference import CustomKNN, FaissKNN

from pml_macl.evaluation import MultiLabelAccuracyCalculator

faiss = pytest.importorskip("faiss", reason="needs faiss, which is an optional dependency")


@pytest.fixture(params=[False, True], ids=["two sets", "one set"])
def real_problem(request, generator, device):
    """Embeddings without equal distances, so that all exact searches agree."""
    embeddings = torch.nn.functional.normalize(torch.randn(90, 8, generator=generator)).to(device)
    labels = (torch.rand(90, 5, generator=generator) < 0.4).to(device)
    if request.param:
        return embeddings, labels
    return embeddings[:30], labels[:30], embeddings[30:], labels[30:]


@pytest.mark.parametrize("k", [None, 7, "max_bin_count"])
@pytest.mark.parametrize(
    "make",
    [
        FaissKNN,
        lambda: FaissKNN(index_init_fn=faiss.IndexFlatIP),
        lambda: CustomKNN(LpDistance(normalize_embeddings=False)),
        lambda: CustomKNN(CosineSimilarity(), batch_size=16),
    ],
    ids=["faiss L2", "faiss inner product", "Lp", "cosine in batches"],
)
def test_all_exact_searches_agree(real_problem, make, k):
    expected = MultiLabelAccuracyCalculator(k=k).get_accuracy(*real_problem)
    assert MultiLabelAccuracyCalculator(k=k, knn_func=make()).get_accuracy(*real_problem) == pytest.approx(expected)


@pytest.mark.parametrize(
    "make_index",
    [
        lambda size: faiss.IndexHNSWFlat(size, 16),
        lambda size: faiss.index_factory(size, "SQ8"),
    ],
    ids=["HNSW", "scalar quantizer"],
)
def test_an_approximate_search_gives_similar_values(real_problem, make_index):
    embeddings = real_problem[2] if len(real_problem) == 4 else real_problem[0]

    def trained(size):
        index = make_index(size)
        index.train(embeddings.cpu().numpy())
        return index

    exact = MultiLabelAccuracyCalculator(k=10).get_accuracy(*real_problem)
    found = MultiLabelAccuracyCalculator(k=10, knn_func=FaissKNN(index_init_fn=trained)).get_accuracy(*real_problem)
    assert found == pytest.approx(exact, abs=0.02)


def test_references_that_an_index_does_not_find_have_no_gain():
    query, labels = torch.zeros(2, 3), torch.tensor([[1, 1], [1, 1]])
    reference, reference_labels = torch.zeros(4, 3), torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0]])

    def half(query, k, reference, ref_includes_query):
        return torch.zeros(2, 4), torch.tensor([[0, 1, -1, -1], [3, -1, -1, -1]])

    found = MultiLabelAccuracyCalculator(knn_func=half).get_accuracy(query, labels, reference, reference_labels)
    expected = {
        "mean_average_precision": (2 / 4 + 1 / 4) / 2,
        "acg": (4 / 4 + 1 / 4) / 2,
        "label_precision": (2 / 4 + 1 / 4) / 2,
        "label_mean_average_precision": ((2 / 4 + 1 / 4) / 2 + (2 / 3 + 0) / 2) / 2,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_search_that_returns_too_few_is_refused():
    calculator = MultiLabelAccuracyCalculator(
        knn_func=lambda query, *_: (torch.zeros(len(query), 1), torch.zeros(len(query), 1).long())
    )
    metrics = calculator.get_curr_metrics()
    with pytest.raises(ValueError, match=r"knn_func must return the \d+ nearest .* set k to the number"):
        calculator.get_accuracy(*random_problem(1), include=("ndcg",))
    assert calculator.get_curr_metrics() == metrics


class TestFullRanking:
    """ANMRR needs more references than a small k ranks."""

    @pytest.mark.parametrize("k", [3, "max_bin_count"])
    def test_is_left_out_if_k_is_given_and_raises_if_included(self, k):
        embeddings, labels = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)), torch.ones(20, 2)
        labels[:10, 0] = labels[10:, 1] = 0
        found = MultiLabelAccuracyCalculator(k=k).get_accuracy(embeddings, labels)
        assert "anmrr" not in found
        assert "ndcg" in found
        calculator = MultiLabelAccuracyCalculator(include=("anmrr",), k=k)
        with pytest.raises(ValueError, match="anmrr needs at least the first 18 references"):
            calculator.get_accuracy(embeddings, labels)
        with pytest.raises(ValueError, match=r"; anmrr is left out because k is given: name it in the constructor"):
            MultiLabelAccuracyCalculator(k=k).get_accuracy(embeddings, labels, include=("anmrr",))

    def test_is_computed_if_k_is_large_enough(self):
        embeddings, labels = torch.rand(20, 3), torch.eye(10).repeat(2, 1)
        deep = MultiLabelAccuracyCalculator(include=("anmrr",), k=2).get_accuracy(embeddings, labels)
        assert deep == MultiLabelAccuracyCalculator(include=("anmrr",)).get_accuracy(embeddings, labels)
