"""What holds for every metric on every ranking."""

import math

import pytest
import torch
from evaluation_oracles import naive_mean, naive_values
from hypothesis import given, settings
from hypothesis import strategies as st
from properties.strategies import embeddings_of, label_sets, orders_of

from pml_macl.evaluation import MultiLabelAccuracyCalculator

BOUNDED = tuple(
    name
    for name in MultiLabelAccuracyCalculator().original_function_dict
    if name not in ("acg", "weighted_average_precision")  # gains: as large as the number of shared labels
)
PERFECT = (
    *("precision_at_1", "r_precision", "mean_average_precision", "mean_average_precision_at_r"),
    *("mean_reciprocal_rank", "ndcg"),
)


@st.composite
def problems(draw, kinds=("normal", "grid")):
    """Queries and references with their labels; the references begin with the queries, or do not."""
    query_labels = draw(label_sets(1, 8))
    reference_labels = draw(label_sets(1, 10, query_labels.shape[1]))
    query = draw(embeddings_of(len(query_labels), 2, kinds))
    reference = draw(embeddings_of(len(reference_labels), 2, kinds, first_seed=2**20))
    includes = draw(st.booleans())
    if includes:
        reference, reference_labels = (
            torch.cat([query, reference]),
            torch.cat([query_labels, reference_labels]),
        )
    return query, query_labels, reference, reference_labels, includes


SETTINGS = st.fixed_dictionaries(
    {
        "relevance_threshold": st.sampled_from([0.0, 0.5, 1.0]),
        "gain": st.sampled_from(["shared", "jaccard"]),
        "exponential_gain": st.booleans(),
        "ap_denominator": st.sampled_from(["relevant", "hits", "min"]),
        "k": st.sampled_from([None, 1, 3, "max_bin_count"]),
    }
)


def same(found, expected):
    return (math.isnan(found) and math.isnan(expected)) or found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=80)
@given(problems(), SETTINGS)
def test_every_metric_equals_its_loop_and_lies_in_its_range(problem, options):
    found = MultiLabelAccuracyCalculator(**options, query_batch_size=3).get_accuracy(*problem)
    values = naive_values(*problem, **options)
    counts = problem[3].sum(dim=0).tolist()
    for name, value in found.items():
        assert same(value, naive_mean(values, name, counts)), name
        if name in BOUNDED or options["gain"] == "jaccard":
            assert math.isnan(value) or -1e-12 <= value <= 1 + 1e-12, name
        else:
            assert math.isnan(value) or 0 <= value <= problem[1].shape[1], name


@settings(max_examples=40)
@given(label_sets(min_rows=1, max_rows=10), SETTINGS, st.data())
def test_a_perfect_ranking_is_worth_one(reference_labels, options, data):
    """One query, and the references as far from it as their gain says."""
    query_labels = data.draw(label_sets(1, 1, reference_labels.shape[1], min_labels=1))
    shared = (query_labels & reference_labels).sum(dim=1).double()
    jaccard = shared / (query_labels | reference_labels).sum(dim=1).clamp(min=1)
    relevant = (shared >= 1) & (jaccard >= options["relevance_threshold"])
    gain = shared if options["gain"] == "shared" else jaccard
    order = (gain if options["relevance_threshold"] == 0 else jaccard).argsort(descending=True, stable=True)
    distance = torch.empty(len(order)).double()
    distance[order] = torch.arange(1, 1 + len(order)).double()
    reference = torch.stack([distance, torch.zeros_like(distance)], dim=1)
    include = PERFECT if options["relevance_threshold"] == 0 else [name for name in PERFECT if name != "ndcg"]
    options = {**options, "k": None}
    calculator = MultiLabelAccuracyCalculator(include, **options)
    found = calculator.get_accuracy(torch.zeros(1, 2).double(), query_labels, reference, reference_labels)
    expected = 1.0 if relevant.any() else math.nan
    assert all(same(value, expected) for value in found.values()), found


@settings(max_examples=40)
@given(problems(kinds=("normal",)), st.data())
def test_order_and_names_do_not_matter(problem, data):
    """Without ties; queries that are references stay in front."""
    query, query_labels, reference, reference_labels, includes = problem
    calculator = MultiLabelAccuracyCalculator()
    expected = calculator.get_accuracy(*problem)
    classes = data.draw(orders_of(query_labels.shape[1]))
    order = data.draw(orders_of(len(query)))
    own = len(query) if includes else 0
    others = own + data.draw(orders_of(len(reference) - own))
    others = torch.cat([order, others]) if includes else others
    found = calculator.get_accuracy(
        query[order], query_labels[order][:, classes], reference[others], reference_labels[others][:, classes], includes
    )
    ties_of_frequency = ("tail", "middle", "head")  # labels that are equally frequent are parted by their column
    for name, value in found.items():
        if not name.endswith(ties_of_frequency):
            assert same(value, expected[name]), name
    moved = calculator.get_accuracy(4 * query + 1, query_labels, 4 * reference + 1, reference_labels, includes)
    assert all(same(value, expected[name]) for name, value in moved.items())


@settings(max_examples=40)
@given(problems(), st.integers(1, 8), st.integers(1, 2**16))
def test_chunks_do_not_matter(problem, rows, budget):
    expected = MultiLabelAccuracyCalculator().get_accuracy(*problem)
    for options in ({"query_batch_size": rows}, {"memory_budget": budget}):
        found = MultiLabelAccuracyCalculator(**options).get_accuracy(*problem)
        assert all(same(value, expected[name]) for name, value in found.items())


@settings(max_examples=40)
@given(problems())
def test_labels_without_carriers_change_only_the_hamming_loss(problem):
    query, query_labels, reference, reference_labels, includes = problem
    expected = MultiLabelAccuracyCalculator().get_accuracy(*problem)
    wider = [
        torch.cat([labels, labels.new_zeros(len(labels), 2)], dim=1) for labels in (query_labels, reference_labels)
    ]
    found = MultiLabelAccuracyCalculator().get_accuracy(query, wider[0], reference, wider[1], includes)
    num_classes = query_labels.shape[1]
    found["hamming_loss"] *= (num_classes + 2) / num_classes
    assert all(same(value, expected[name]) for name, value in found.items())
