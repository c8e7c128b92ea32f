"""Recall, precision and coverage at several K, as functions and in the calculator."""

import pickle

import numpy as np
import pytest
import torch
from evaluation_oracles import NAN, naive_mean, naive_values, random_problem
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator, precision_at_k
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_precision, retrieval_recall

from pml_macl import evaluation
from pml_macl.evaluation import MultiLabelAccuracyCalculator
from pml_macl.evaluation.ranker import Ranker

AT_K = ("precision_at_k", "recall_at_k", "coverage_at_k")


def names(*at_k):
    return {f"{metric}_at_{k}" for metric in ("precision", "recall", "coverage") for k in at_k}


class TestFunctions:
    @pytest.mark.parametrize(
        ("name", "oracle"),
        [("recall_at_k", retrieval_hit_rate), ("precision_at_k", retrieval_precision)],
    )
    @pytest.mark.parametrize("k", [1, 3, 7])
    def test_equals_torchmetrics(self, name, oracle, k, device, generator):
        relevance = torch.rand(20, 7, generator=generator) < 0.3
        expected = [oracle(torch.arange(7, 0, -1).float(), row, top_k=k).item() for row in relevance]
        found = getattr(evaluation, name)(relevance.to(device), k)
        assert found.tolist() == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("k", [1, 3, 7])
    def test_coverage_equals_the_recall_of_torchmetrics(self, k, device, generator):
        relevance = torch.rand(20, 7, generator=generator) < 0.3
        relevance[:, 5] = True
        expected = [retrieval_recall(torch.arange(7, 0, -1).float(), row, top_k=k).item() for row in relevance]
        found = evaluation.coverage_at_k(relevance.to(device), relevance.sum(dim=1).to(device), k)
        assert found.tolist() == pytest.approx(expected, abs=1e-6)

    def test_coverage_is_nan_without_a_relevant_reference(self):
        assert evaluation.coverage_at_k(torch.zeros(1, 3), torch.tensor([0]), 2).isnan().all()

    @pytest.mark.parametrize("name", AT_K)
    @pytest.mark.parametrize("k", [0, 3])
    def test_k_out_of_range_is_named_in_the_error(self, name, k):
        arguments = (torch.ones(1, 2), torch.ones(1), k) if name == "coverage_at_k" else (torch.ones(1, 2), k)
        with pytest.raises(ValueError, match=f"k must be 1 to 2, the number of ranks in relevance, got {k}"):
            getattr(evaluation, name)(*arguments)


class TestValues:
    """The loops of the oracle are the definition. Some problems have fewer references than the largest K."""

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"k": 30},
            {"relevance_threshold": 0.5},
            {"relevance_threshold": 1.0, "k": 30},
            {"query_batch_size": 2},
            {"query_batch_size": 1, "k": 30},
        ],
        ids=str,
    )
    def test_equal_the_loop(self, problem, settings, device):
        calculator = MultiLabelAccuracyCalculator(include=AT_K, at_k=[5, 1, 2, 30], **settings)
        found = calculator.get_accuracy(*(p.to(device) if isinstance(p, torch.Tensor) else p for p in problem))
        threshold = settings.get("relevance_threshold", 0.0)
        values = naive_values(*problem, relevance_threshold=threshold, at_k=(1, 2, 5, 30))
        assert set(found) == names(1, 2, 5, 30)
        assert found == pytest.approx({name: naive_mean(values, name, None) for name in found}, nan_ok=True)

    @pytest.mark.parametrize("metric", ["precision_at_2", "recall_at_2", "coverage_at_2"])
    def test_label_means_equal_the_loop(self, problem, metric):
        values = naive_values(*problem, at_k=(2,))
        of_query = [value.get(metric, NAN) for value in values]
        carried = [[v for v, carries in zip(of_query, column, strict=True) if carries] for column in problem[1].T]
        expected = [np.nanmean(v) if any(x == x for x in v) else NAN for v in carried]
        settings = {"include": (metric,), "at_k": (2,)}
        found = MultiLabelAccuracyCalculator(return_per_class=True, **settings).get_accuracy(*problem)[metric]
        assert found == pytest.approx(expected, nan_ok=True)
        averaged = MultiLabelAccuracyCalculator(avg_of_avgs=True, **settings).get_accuracy(*problem)[metric]
        expected = [value for value in expected if value == value]
        assert averaged == pytest.approx(np.mean(expected) if expected else NAN, nan_ok=True)

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("avg_of_avgs", [False, True])
    def test_equal_pml_on_one_hot_labels(self, seed, avg_of_avgs, device):
        generator = torch.Generator().manual_seed(seed)
        classes, embeddings = torch.randint(0, 7, (60,), generator=generator), torch.randn(60, 8, generator=generator)
        classes[0] = 7  # a query without a relevant reference
        pml = PMLAtK(PMLAtK.NAMES, avg_of_avgs=avg_of_avgs, device=torch.device("cpu"))
        expected = pml.get_accuracy(embeddings, classes)
        ours = MultiLabelAccuracyCalculator(("precision_at_k", "recall_at_k"), avg_of_avgs=avg_of_avgs, at_k=(1, 5))
        found = ours.get_accuracy(embeddings.to(device), torch.nn.functional.one_hot(classes, 8).to(device))
        assert found == pytest.approx(expected | {"recall_at_1": expected["precision_at_1"]}, abs=1e-14)

    def test_missing_references_are_not_relevant(self):
        query, references = torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        labels = torch.ones(2, 1)
        calculator = MultiLabelAccuracyCalculator(include=AT_K, at_k=(4,))
        expected = {"precision_at_4": 2 / 4, "recall_at_4": 1, "coverage_at_4": 1}
        assert calculator.get_accuracy(query, labels[:1], references, labels) == expected

    def test_references_that_an_index_does_not_find_are_not_relevant(self):
        def finds_one(query, k, reference, ref_includes_query):
            return torch.zeros(1, 3), torch.tensor([[1, -1, -1]])

        calculator = MultiLabelAccuracyCalculator(include=AT_K, at_k=(2,), knn_func=finds_one)
        expected = {"precision_at_2": 1 / 2, "recall_at_2": 1, "coverage_at_2": 1 / 3}
        found = calculator.get_accuracy(torch.zeros(1, 2), torch.ones(1, 1), torch.zeros(3, 2), torch.ones(3, 1))
        assert found == pytest.approx(expected)


class PMLAtK(AccuracyCalculator):
    """PML's calculator with its own function for precision at 5, and recall at 5 from the same labels."""

    NAMES = ("precision_at_1", "precision_at_5", "recall_at_5")

    def calculate_precision_at_5(self, knn_labels, query_labels, not_lone_query_mask, **kwargs):
        return self.at_5(knn_labels, query_labels, not_lone_query_mask)

    def calculate_recall_at_5(self, knn_labels, query_labels, not_lone_query_mask, **kwargs):
        # One neighbour with the query's label, or with the label -1 if no neighbour has it.
        hit = (knn_labels[:, :5] == query_labels[:, None]).any(dim=1)
        best = torch.where(hit, query_labels.squeeze(-1) if query_labels.ndim > 1 else query_labels, -1)
        return self.at_5(best[:, None], query_labels, not_lone_query_mask, k=1)

    def at_5(self, knn_labels, query_labels, kept, k=5):
        settings = (self.avg_of_avgs, self.return_per_class, self.label_comparison_fn)
        return precision_at_k(knn_labels[kept], query_labels[kept][:, None], k, *settings)

    def requires_knn(self):
        return list(self.NAMES)


class TestInTheCalculator:
    def test_one_ranking_serves_all_k(self, monkeypatch):
        calls = []
        rank = Ranker.__call__

        def count(self, query, *args):
            calls.append(len(query))
            return rank(self, query, *args)

        monkeypatch.setattr(Ranker, "__call__", count)
        MultiLabelAccuracyCalculator(at_k=(1, 2, 3)).get_accuracy(torch.rand(8, 2), torch.ones(8, 2))
        assert sum(calls) == 8

    def test_at_k_adds_the_metrics_to_the_others(self):
        without = MultiLabelAccuracyCalculator().get_curr_metrics()
        with_at_k = MultiLabelAccuracyCalculator(at_k=(1, 5)).get_curr_metrics()
        assert names(1, 5) & set(without) == {"precision_at_1"}
        assert set(with_at_k) == set(without) | names(1, 5)
        assert len(with_at_k) == len(set(with_at_k))

    def test_include_and_exclude_take_the_common_name_and_the_name_of_one_k(self):
        calculator = MultiLabelAccuracyCalculator(include=("recall_at_k", "coverage_at_5"), at_k=(1, 5))
        problem = torch.rand(8, 2), torch.ones(8, 2)
        assert list(calculator.get_accuracy(*problem)) == ["recall_at_1", "recall_at_5", "coverage_at_5"]
        assert list(calculator.get_accuracy(*problem, exclude=("recall_at_k",))) == ["coverage_at_5"]
        assert list(calculator.get_accuracy(*problem, include=("recall_at_5",))) == ["recall_at_5"]
        assert not names(1, 5) & set(MultiLabelAccuracyCalculator(exclude=AT_K, at_k=(1, 5)).get_curr_metrics())

    def test_a_repeated_k_is_computed_once(self):
        calculator = MultiLabelAccuracyCalculator(include=("recall_at_k",), at_k=(5, 1, np.int64(5)))
        assert calculator.get_curr_metrics() == ["recall_at_1", "recall_at_5"]

    def test_a_subclass_may_define_precision_at_1(self):
        class Mine(MultiLabelAccuracyCalculator):
            def calculate_precision_at_1(self, ranking):
                return torch.full((len(ranking.labels),), 7.0)

        found = Mine(include=("precision_at_k",), at_k=(1, 2)).get_accuracy(torch.rand(4, 2), torch.ones(4, 2))
        assert found == {"precision_at_1": 7, "precision_at_2": 1}

    def test_a_calculator_can_be_pickled(self):
        problem = random_problem(4)
        calculator = MultiLabelAccuracyCalculator(include=AT_K, at_k=(1, 3))
        assert pickle.loads(pickle.dumps(calculator)).get_accuracy(*problem) == calculator.get_accuracy(*problem)


class TestBadInput:
    @pytest.mark.parametrize(
        ("at_k", "error", "message"),
        [
            ((), ValueError, r"at_k must have at least one positive integer, got \(\)"),
            (5, TypeError, r"at_k must be a tuple or list of positive integers such as \(1, 5, 10\), got 5"),
            ("1", TypeError, "at_k must be a tuple or list .* got '1'"),
            ((1, 0), ValueError, "each number in at_k must be at least 1, got 0"),
            ((-1,), ValueError, "each number in at_k must be at least 1, got -1"),
            ((True,), TypeError, "each number in at_k must be an integer, got True"),
            ((1.0,), TypeError, "each number in at_k must be an integer, got 1.0"),
            ((1, "5"), TypeError, "each number in at_k must be an integer, got '5'"),
        ],
        ids=str,
    )
    def test_at_k(self, at_k, error, message):
        with pytest.raises(error, match=message):
            MultiLabelAccuracyCalculator(include=("recall_at_k",), at_k=at_k)

    def test_at_k_larger_than_k(self):
        with pytest.raises(ValueError, match=r"at_k must not exceed k \(5\), .* got 10; raise k"):
            MultiLabelAccuracyCalculator(include=("recall_at_k",), k=5, at_k=(1, 10))

    def test_at_k_larger_than_max_bin_count(self):
        embeddings, labels = torch.rand(20, 3), torch.eye(10).repeat(2, 1)  # one relevant reference per query
        calculator = MultiLabelAccuracyCalculator(include=AT_K, k="max_bin_count", at_k=(1, 10))
        with pytest.raises(
            ValueError, match=r"_at_10 needs at least the first 10 references, but k='max_bin_count' ra"
        ):
            calculator.get_accuracy(embeddings, labels)
        assert set(calculator.get_accuracy(embeddings, labels, include=("recall_at_1",))) == {"recall_at_1"}

    @pytest.mark.parametrize("name", [*AT_K, "recall_at_5"])
    def test_the_metrics_without_at_k(self, name):
        with pytest.raises(ValueError, match=rf"include has \['{name}'\], .* it has: .*; give .* at_k=\(1, 5, 10\)"):
            MultiLabelAccuracyCalculator(include=(name,))

    def test_a_k_that_at_k_lacks(self):
        with pytest.raises(ValueError, match=r"include has \['recall_at_7'\], .* at_k=\(1, 5, 10\)"):
            MultiLabelAccuracyCalculator(include=("recall_at_7",), at_k=(1, 5))

    @pytest.mark.parametrize(
        ("name", "at_k"),
        [("precision_at_1", None), ("recall_at_5", (1, 5)), ("coverage_at_k", (1, 5)), ("anmrr", None)],
    )
    def test_metrics_that_the_constructor_left_out_get_no_advice_about_k(self, name, at_k):
        calculator = MultiLabelAccuracyCalculator(include=("ndcg",), at_k=at_k)
        with pytest.raises(ValueError, match=r"which this calculator does not compute; it has: ndcg$"):
            calculator.get_accuracy(torch.rand(4, 2), torch.ones(4, 2), include=(name,))

    def test_an_unknown_name_that_looks_similar_gets_no_advice_about_at_k(self):
        with pytest.raises(ValueError, match=r"include has \['ndcg_at_k'\]") as caught:
            MultiLabelAccuracyCalculator(include=("ndcg_at_k",))
        assert "at_k=" not in str(caught.value)
