"""What holds for every weighted mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import counts_of, naive_anchor_weight, naive_pair_weight
from properties.strategies import label_sets, orders_of, sets_of

from pml_macl import LabelStatistics
from pml_macl.functional import weighted_anchor_mean
from pml_macl.reducers import FrequencyWeightedReducer, MulSupConReducer, SimilarityDissimilarityReducer

REDUCERS = {
    "frequency": lambda: FrequencyWeightedReducer(overlap_power=1.0, anchor_power=1.0),
    "frequency of labels": lambda: FrequencyWeightedReducer(level="label", power=0.5),
    "mulsupcon": MulSupConReducer,
    "similarity-dissimilarity": SimilarityDissimilarityReducer,
}


@st.composite
def pair_losses(draw):
    """Labels and losses of some pairs of a batch."""
    labels = draw(label_sets(2, 8))
    pairs = torch.ones(len(labels), len(labels)).fill_diagonal_(0).nonzero()
    kept = draw(orders_of(len(pairs)))[: draw(st.integers(1, len(pairs)))]
    values = st.floats(0, 100, allow_subnormal=False)
    losses = torch.tensor(draw(st.lists(values, min_size=len(kept), max_size=len(kept))), dtype=torch.float64)
    return labels, losses, tuple(pairs[kept].T)


def reduce(reducer, labels, losses, indices, reduction_type="pos_pair", **entry):
    info = {"losses": losses, "indices": indices, "reduction_type": reduction_type, **entry}
    return reducer({"loss": info}, torch.zeros(len(labels), 2, dtype=torch.float64), labels)


@pytest.mark.parametrize("name", REDUCERS)
@settings(max_examples=30)
@given(drawn=pair_losses(), data=st.data())
def test_a_weighted_mean(name, drawn, data):
    labels, losses, (anchors, positives) = drawn
    reducer = REDUCERS[name]()
    value = reduce(reducer, *drawn)
    tolerance = {"rtol": 1e-9, "atol": 1e-9}
    order = data.draw(orders_of(len(losses)))
    same = reduce(reducer, labels, losses[order], (anchors[order], positives[order]))
    torch.testing.assert_close(same, value, **tolerance)
    torch.testing.assert_close(reduce(reducer, labels, 3 * losses, (anchors, positives)), 3 * value, **tolerance)
    rows = data.draw(orders_of(len(labels)))
    where = rows.argsort()
    moved = reduce(reducer, labels[rows], losses, (where[anchors], where[positives]))
    torch.testing.assert_close(moved, value, **tolerance)
    classes = data.draw(orders_of(labels.shape[1]))
    torch.testing.assert_close(reduce(reducer, labels[:, classes], losses, (anchors, positives)), value, **tolerance)
    if not reducer.divide_by_count:
        has_weight = (labels[anchors] & labels[positives]).any(dim=1)
        within = losses[has_weight] if has_weight.any() else torch.zeros(1).double()
        assert within.min() - 1e-9 <= value <= within.max() + 1e-9


@settings(max_examples=60)
@given(pair_losses(), st.data())
def test_the_frequency_weighted_mean_equals_a_loop(drawn, data):
    labels, losses, (anchors, positives) = drawn
    powers = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    options = {"level": data.draw(st.sampled_from(["cooccurrence", "label"]))}
    options |= {name: data.draw(powers) for name in ("power", "overlap_power")}
    anchor_power, by_count = data.draw(powers), data.draw(st.booleans())
    others = data.draw(label_sets(0, 30, labels.shape[1]))
    counts, rows = counts_of(others), sets_of(labels)
    numerator = denominator = 0.0
    for anchor in range(len(labels)):
        own = [(loss, p) for loss, a, p in zip(losses.tolist(), anchors, positives, strict=True) if a == anchor]
        weights = [naive_pair_weight(rows[anchor], rows[p], counts, **options) for _, p in own]
        total = len(own) if by_count else sum(weights)
        if not total:
            continue
        inner = sum(weight * loss for weight, (loss, _) in zip(weights, own, strict=True)) / total
        anchor_weight = naive_anchor_weight(rows[anchor], counts, anchor_power)
        numerator += anchor_weight * inner
        denominator += anchor_weight
    statistics = LabelStatistics.from_labels(others)
    reducer = FrequencyWeightedReducer(statistics, anchor_power=anchor_power, divide_by_count=by_count, **options)
    found = reduce(reducer, *drawn)
    assert found.item() == pytest.approx(numerator / denominator if denominator else 0.0, rel=1e-9, abs=1e-9)


@settings(max_examples=40)
@given(st.integers(1, 6), st.data())
def test_weights_of_any_size_do_not_overflow(num_anchors, data):
    """Frequencies are divided by one another, so they may be far apart."""
    sizes = st.floats(1e-18, 1e18)
    numbers = data.draw(st.lists(st.tuples(st.integers(0, num_anchors - 1), sizes), min_size=1, max_size=12))
    anchors, weights = torch.tensor([a for a, _ in numbers]), torch.tensor([w for _, w in numbers])
    losses = torch.linspace(1, 2, len(numbers))
    found = weighted_anchor_mean(losses, anchors, weights, torch.ones(num_anchors))
    assert 1 - 1e-4 <= found <= 2 + 1e-4
