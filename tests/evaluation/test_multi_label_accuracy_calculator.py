import numpy as np
import pytest
import torch
from evaluation_oracles import naive_label_means, naive_mean, naive_values, random_problem
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score, ndcg_score

from pml_macl.evaluation import MultiLabelAccuracyCalculator, label_mean_average_precision_by_frequency
from pml_macl.statistics import LabelStatistics

BY_FREQUENCY = "label_mean_average_precision_by_frequency"
PML_METRICS = (
    "precision_at_1",
    "r_precision",
    "mean_average_precision",
    "mean_average_precision_at_r",
    "mean_reciprocal_rank",
)
SETTINGS = [
    {},
    {"k": 1},
    {"k": 4},
    {"k": 1000},
    {"k": "max_bin_count"},
    {"relevance_threshold": 0.5, "gain": "jaccard"},
    {"relevance_threshold": 1.0, "exponential_gain": True, "k": 3},
    {"gain": "jaccard", "exponential_gain": True, "k": 5},
    {"ap_denominator": "hits", "k": 3},
    {"ap_denominator": "min", "k": 3},
]


def to_device(problem, device):
    return tuple(part.to(device) if isinstance(part, torch.Tensor) else part for part in problem)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_metric_equals_the_loop(problem, settings, device):
    accuracies = MultiLabelAccuracyCalculator(**settings).get_accuracy(*to_device(problem, device))
    values, counts = naive_values(*problem, **settings), problem[3].sum(dim=0).tolist()
    expected = {name: naive_mean(values, name, counts) for name in accuracies}
    assert accuracies == pytest.approx(expected, abs=2e-7, nan_ok=True)


@pytest.mark.parametrize("name", ["label_mean_average_precision", "ndcg"])
def test_per_class_values_are_in_class_order(problem, name):
    found = MultiLabelAccuracyCalculator(include=(name,), return_per_class=True).get_accuracy(*problem)[name]
    values, labels = naive_values(*problem), problem[1]
    if name == "label_mean_average_precision":
        means = naive_label_means(values)
        expected = [means.get(label, float("nan")) for label in range(labels.shape[1])]
    else:
        of_query = np.array([value.get(name, np.nan) for value in values])
        kept = labels.numpy() & ~np.isnan(of_query)[:, None]
        expected = [of_query[column].mean() if column.any() else np.nan for column in kept.T]
    assert found == pytest.approx(expected, nan_ok=True)
    averaged = MultiLabelAccuracyCalculator(include=(name,), avg_of_avgs=True).get_accuracy(*problem)[name]
    means = torch.tensor(found)
    assert averaged == pytest.approx(means.nanmean().item(), nan_ok=True)


@pytest.mark.parametrize(
    "settings",
    [{"query_batch_size": 1}, {"query_batch_size": 5}, {"memory_budget": 1}, {"memory_budget": 5000}],
    ids=str,
)
def test_the_chunk_size_does_not_change_the_values(settings, device):
    problem = to_device(random_problem(4), device)
    expected = MultiLabelAccuracyCalculator(return_per_class=True).get_accuracy(*problem)
    found = MultiLabelAccuracyCalculator(return_per_class=True, **settings)
    for name, values in found.get_accuracy(*problem).items():
        assert values == pytest.approx(expected[name], nan_ok=True)


@pytest.mark.parametrize("settings", [{}, {"return_per_class": True}, {"avg_of_avgs": True}], ids=str)
def test_the_memory_budget_changes_the_results_by_rounding_only(settings, generator, device):
    embeddings = torch.randn(200, 8, dtype=torch.float64, generator=generator).to(device)
    labels = (torch.rand(200, 9, generator=generator) < 0.3).to(device)
    expected = MultiLabelAccuracyCalculator(**settings).get_accuracy(embeddings, labels)
    for budget in (1, 10_000, 100_000):
        found = MultiLabelAccuracyCalculator(memory_budget=budget, **settings).get_accuracy(embeddings, labels)
        for name, value in found.items():
            assert value == pytest.approx(expected[name], rel=1e-12, nan_ok=True)


def test_labels_without_columns_have_no_value():
    found = MultiLabelAccuracyCalculator(include=("ndcg",), return_per_class=True)
    assert found.get_accuracy(torch.rand(3, 2), torch.zeros(3, 0)) == {"ndcg": []}


class TestOnOneHotLabels:
    """PML's calculator with class indices is the oracle."""

    @pytest.fixture(params=range(6))
    def one_hot_problem(self, request):
        generator = torch.Generator().manual_seed(request.param)
        classes = torch.randint(0, 7, (60,), generator=generator)
        classes[0] = 7  # a query without a relevant reference
        query = torch.randn(60, 8, generator=generator)
        if request.param % 3 == 0:
            return query, classes, None, None, False
        other_classes = torch.randint(0, 6, (40,), generator=generator)  # class 6 has queries but no references
        other = torch.randn(40, 8, generator=generator)
        if request.param % 3 == 1:
            return query, classes, other, other_classes, False
        return query, classes, torch.cat([query, other]), torch.cat([classes, other_classes]), True

    @staticmethod
    def ours(one_hot_problem, device, **settings):
        query, classes, reference, reference_classes, ref_includes_query = one_hot_problem
        hot = [None if c is None else torch.nn.functional.one_hot(c, 9) for c in (classes, reference_classes)]
        problem = to_device((query, hot[0], reference, hot[1], ref_includes_query), device)
        return MultiLabelAccuracyCalculator(include=PML_METRICS, **settings).get_accuracy(*problem)

    @staticmethod
    def theirs(one_hot_problem, **settings):
        return AccuracyCalculator(include=PML_METRICS, device=torch.device("cpu"), **settings).get_accuracy(
            *one_hot_problem
        )

    @pytest.mark.parametrize("k", [None, 1, 2, 7, 30, "max_bin_count"])
    @pytest.mark.parametrize("avg_of_avgs", [False, True])
    def test_the_five_metrics_equal_those_of_pml(self, one_hot_problem, k, avg_of_avgs, device):
        expected = self.theirs(one_hot_problem, k=k, avg_of_avgs=avg_of_avgs)
        found = self.ours(one_hot_problem, device, k=k, avg_of_avgs=avg_of_avgs)
        # PML computes the reciprocal rank in float32.
        assert found.pop("mean_reciprocal_rank") == pytest.approx(expected.pop("mean_reciprocal_rank"), abs=1e-6)
        assert found == pytest.approx(expected, abs=1e-14)

    def test_values_per_class_equal_those_of_pml_for_classes_with_queries(self, one_hot_problem, device):
        expected = self.theirs(one_hot_problem, return_per_class=True)
        found = self.ours(one_hot_problem, device, return_per_class=True)
        for name, values in found.items():
            assert len(values) == 9
            assert [v for v in values if v == v] == pytest.approx(expected[name], abs=1e-6)


def test_equals_sklearn_on_real_valued_distances(device):
    generator = torch.Generator().manual_seed(0)
    query, reference = torch.randn(30, 8, generator=generator), torch.randn(70, 8, generator=generator)
    query_labels = torch.rand(30, 6, generator=generator) < 0.4
    reference_labels = torch.rand(70, 6, generator=generator) < 0.4
    query_labels[:, 0] = reference_labels[0, 0] = True
    found = MultiLabelAccuracyCalculator(k=None).get_accuracy(
        *to_device((query, query_labels, reference, reference_labels), device)
    )
    scores = -torch.cdist(query, reference).numpy()
    gains = (query_labels.float() @ reference_labels.float().T).numpy()
    assert found["ndcg"] == pytest.approx(ndcg_score(gains, scores))
    of_query = [average_precision_score(row > 0, score) for row, score in zip(gains, scores, strict=True)]
    assert found["mean_average_precision"] == pytest.approx(np.mean(of_query))
    of_label = [
        np.mean(
            [average_precision_score(reference_labels[:, label], score) for score in scores[query_labels[:, label]]]
        )
        for label in range(6)
    ]
    assert found["label_mean_average_precision"] == pytest.approx(np.mean(of_label))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_ranked_in_float32(dtype, device):
    problem = to_device(random_problem(2), device)
    expected = MultiLabelAccuracyCalculator().get_accuracy(*problem)
    query, query_labels, reference, reference_labels, ref_includes_query = problem
    found = MultiLabelAccuracyCalculator().get_accuracy(
        query.to(dtype), query_labels, reference.to(dtype), reference_labels, ref_includes_query
    )
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("convert", [torch.Tensor.long, torch.Tensor.float, torch.Tensor.numpy])
def test_accepts_labels_as_pml_passes_them(convert):
    query, query_labels, reference, reference_labels, ref_includes_query = random_problem(3)
    expected = MultiLabelAccuracyCalculator().get_accuracy(*random_problem(3))
    if convert is torch.Tensor.numpy:
        query, reference = query.numpy(), reference.numpy()
    found = MultiLabelAccuracyCalculator().get_accuracy(
        query, convert(query_labels), reference, convert(reference_labels), ref_includes_query
    )
    assert found == pytest.approx(expected, nan_ok=True)


def test_thousands_of_label_columns(device):
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(60, 4000, generator=generator) < 0.002
    embeddings = torch.randint(-3, 4, (60, 3), generator=generator).float()
    found = MultiLabelAccuracyCalculator().get_accuracy(embeddings.to(device), labels.to(device))
    values = naive_values(embeddings, labels, embeddings, labels, True)
    counts = labels.sum(dim=0).tolist()
    assert found == pytest.approx({name: naive_mean(values, name, counts) for name in found})


def test_a_query_that_is_the_only_reference_has_no_value():
    found = MultiLabelAccuracyCalculator().get_accuracy(torch.ones(1, 2), torch.ones(1, 3))
    assert found
    assert all(value != value for value in found.values())


def test_include_and_exclude_select_metrics_in_the_constructor_and_in_the_call():
    problem = random_problem(0)
    calculator = MultiLabelAccuracyCalculator(include=("ndcg", "r_precision", "mean_reciprocal_rank"))
    assert set(calculator.get_curr_metrics()) == {"ndcg", "r_precision", "mean_reciprocal_rank"}
    assert set(calculator.get_accuracy(*problem, exclude=("ndcg",))) == {"r_precision", "mean_reciprocal_rank"}
    assert set(calculator.get_accuracy(*problem, include=("ndcg",))) == {"ndcg"}
    assert set(calculator.get_accuracy(*problem)) == {"ndcg", "r_precision", "mean_reciprocal_rank"}


def test_label_statistics_decide_which_labels_are_rare(device):
    problem = to_device(random_problem(4), device)
    per_label = MultiLabelAccuracyCalculator(include=("label_mean_average_precision",), return_per_class=True)
    values = torch.tensor(per_label.get_accuracy(*problem)["label_mean_average_precision"], dtype=torch.float64)
    training_labels = torch.arange(10)[:, None] >= torch.tensor([2, 9, 4, 0, 7])
    statistics = LabelStatistics.from_labels(training_labels)
    expected = label_mean_average_precision_by_frequency(values, statistics.counts).tolist()
    calculator = MultiLabelAccuracyCalculator(include=(BY_FREQUENCY,), label_statistics=statistics)
    found = calculator.get_accuracy(*problem)
    assert [found[f"label_mean_average_precision_{part}"] for part in ("tail", "middle", "head")] == pytest.approx(
        expected
    )
    assert len(set(expected)) == 3


def test_one_name_stands_for_the_three_metrics_by_frequency():
    three = {f"label_mean_average_precision_{part}" for part in ("tail", "middle", "head")}
    assert set(MultiLabelAccuracyCalculator(include=(BY_FREQUENCY,)).get_curr_metrics()) == three
    assert not three & set(MultiLabelAccuracyCalculator(exclude=(BY_FREQUENCY,)).get_curr_metrics())


@pytest.mark.parametrize(("denominator", "expected"), [("relevant", 20 / 1000), ("min", 1), ("hits", 1)])
def test_a_perfect_top_k_gets_k_by_r_by_default_and_1_by_min(denominator, expected):
    """PML divides by all relevant references, so that a small k gives a small mAP (see the page of the calculator)."""
    query, reference = torch.zeros(1, 2), torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
    names = ("mean_average_precision", "label_mean_average_precision")
    calculator = MultiLabelAccuracyCalculator(include=names, k=20, ap_denominator=denominator)
    found = calculator.get_accuracy(query, torch.ones(1, 3), reference, torch.ones(1000, 3))
    assert found == pytest.approx(dict.fromkeys(names, expected))


def test_a_subclass_adds_a_metric_as_in_pml():
    class WithSuccess(MultiLabelAccuracyCalculator):
        def calculate_success_at_2(self, ranking):
            return ranking.relevance[:, :2].any(dim=1).double()

    embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    labels = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]])
    assert WithSuccess(include=("success_at_2",)).get_accuracy(embeddings, labels) == {"success_at_2": 0.5}


def test_metrics_of_pml_that_need_clusters_may_be_excluded():
    assert "ndcg" in MultiLabelAccuracyCalculator(exclude=("NMI", "AMI", "anmrr")).get_curr_metrics()


def test_a_metric_of_a_subclass_may_return_booleans_or_integers():
    class WithHit(MultiLabelAccuracyCalculator):
        def calculate_hit(self, ranking):
            return ranking.relevance[:, 0]

        def calculate_hit_as_integer(self, ranking):
            return ranking.relevance[:, 0].long()

    embeddings = torch.tensor([[0.0], [1.0], [3.0], [9.0]])
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]])  # the last query has no relevant reference
    found = WithHit(include=("hit", "hit_as_integer", "precision_at_1")).get_accuracy(embeddings, labels)
    assert set(found.values()) == {1.0}


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"k": 0}, "k must be None, a positive integer or 'max_bin_count', got 0"),
            ({"k": True}, "k must be .* got True"),
            ({"k": "all"}, "k must be .* got 'all'"),
            ({"relevance_threshold": 1.5}, r"relevance_threshold must be .* \[0, 1\], got 1.5"),
            ({"relevance_threshold": float("nan")}, "relevance_threshold must be .* got nan"),
            ({"gain": "cosine"}, "gain must be one of 'shared', 'jaccard', got 'cosine'"),
            ({"ap_denominator": "all"}, "ap_denominator must be one of .* got 'all'"),
            ({"memory_budget": 0}, "memory_budget must be at least 1, got 0"),
            ({"query_batch_size": 0}, "query_batch_size must be at least 1, got 0"),
            ({"include": ("map",)}, r"include has \['map'\], .* it has: .*ndcg"),
            ({"include": ("NMI",)}, r"include has \['NMI'\]"),
            ({"avg_of_avgs": True, "return_per_class": True}, "mutually exclusive"),
        ],
        ids=str,
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            MultiLabelAccuracyCalculator(**settings)

    def test_include_as_a_string(self):
        with pytest.raises(TypeError, match="include must be a tuple or list of metric names, got 'ndcg'"):
            MultiLabelAccuracyCalculator(include="ndcg")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"query": torch.ones(4)}, r"query must hold at least one .* \(rows, embedding_size\), got \(4,\)"),
            ({"query": torch.ones(0, 2)}, r"query must hold at least one embedding.*got \(0, 2\)"),
            ({"query": torch.full((4, 2), torch.nan)}, "query must be finite, got NaN or infinity in 4 of 4 rows"),
            ({"reference": torch.full((3, 2), torch.inf)}, "reference must be finite"),
            (
                {"reference": torch.full((3, 2), 1e20)},
                "reference must hold values up to 7e.18, .* got 1.0e.20; normalise",
            ),
            ({"reference": torch.ones(3, 5)}, "the same embedding size, got 2 and 5; compute both with the same model"),
            ({"query": torch.ones(4, 2, dtype=torch.complex64)}, "query must be real, got torch.complex64"),
            ({"query_labels": torch.ones(3, 2)}, r"query_labels must have one row per embedding \(4\), got 3"),
            ({"reference_labels": torch.ones(4, 2)}, r"reference_labels must have one row per embedding \(3\), got 4"),
            ({"reference_labels": torch.ones(3, 5)}, r"reference_labels must have one column per class \(2\), got 5"),
            ({"query_labels": torch.arange(4)}, r"query_labels must be 2-D .* \(4,\); PML's testers .*one_hot"),
            ({"query_labels": torch.full((4, 2), 2)}, "query_labels must hold only 0 and 1, got 2"),
            ({"reference_labels": None}, "reference_labels are missing"),
            ({"ref_includes_query": True}, "reference must begin with the 4 queries"),
            ({"include": ("map",)}, r"include has \['map'\]"),
        ],
        ids=str,
    )
    def test_calls_raise_and_do_not_change_the_calculator(self, changes, message):
        calculator = MultiLabelAccuracyCalculator()
        call = {
            "query": torch.rand(4, 2),
            "query_labels": torch.ones(4, 2),
            "reference": torch.rand(3, 2),
            "reference_labels": torch.ones(3, 2),
        }
        metrics = calculator.get_curr_metrics()
        with pytest.raises(ValueError, match=message):
            calculator.get_accuracy(**(call | changes))
        assert calculator.get_curr_metrics() == metrics

    def test_statistics_of_other_classes(self):
        calculator = MultiLabelAccuracyCalculator(label_statistics=LabelStatistics(3))
        with pytest.raises(ValueError, match=r"label_statistics must count the 2 classes .* got counts of 3"):
            calculator.get_accuracy(torch.rand(2, 2), torch.ones(2, 2))
        with pytest.raises(TypeError, match="label_statistics must be LabelStatistics, got list"):
            MultiLabelAccuracyCalculator(label_statistics=[3, 2])

    @pytest.mark.parametrize("name", ["query", "query_labels"])
    def test_a_list_raises(self, name):
        call = {"query": torch.rand(2, 2), "query_labels": torch.ones(2, 2)} | {name: [[1, 0], [0, 1]]}
        with pytest.raises(TypeError, match=rf"{name} must be .* got list"):
            MultiLabelAccuracyCalculator().get_accuracy(**call)
