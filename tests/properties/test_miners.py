"""What miners promise on every batch: right pairs only, no row with itself, and no more than the limits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import naive_pairs, pairs_of
from properties.strategies import EMBEDDINGS, batches, orders_of, sets_of
from pytorch_metric_learning import miners as pml_miners

from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.miners.label_overlap_miner import NEGATIVE_STRATEGIES, POSITIVE_STRATEGIES

THRESHOLDS = [(0.0, 0.0), (0.5, 0.0), (0.4, 0.4), (0.0, 1.0), (1.0, 0.25)]
WRAPPED = {
    "angular": lambda: pml_miners.AngularMiner(angle=10),
    "batch easy hard": lambda: pml_miners.BatchEasyHardMiner("semihard", "hard"),
    "batch hard": pml_miners.BatchHardMiner,
    "hdc": pml_miners.HDCMiner,
    "multi-similarity": pml_miners.MultiSimilarityMiner,
    "pair margin": pml_miners.PairMarginMiner,
    "triplet margin": pml_miners.TripletMarginMiner,
    "uniform histogram": pml_miners.UniformHistogramMiner,
}


def candidates(batch, positive_threshold, negative_threshold):
    _, labels, _, ref_labels = batch
    rows = sets_of(labels)
    ref_rows = rows if ref_labels is None else sets_of(ref_labels)
    return naive_pairs(rows, ref_rows, positive_threshold, negative_threshold, exclude_self=ref_labels is None)


def assert_right(indices, batch, thresholds):
    """Every pair is a candidate; a pair of a row with itself never is one."""
    for index in indices:
        assert index.dtype is torch.int64
        assert index.ndim == 1
    mined = pairs_of(indices, len(batch[1]))
    for chosen, possible in zip(mined, candidates(batch, *thresholds), strict=True):
        assert all(few <= many for few, many in zip(chosen, possible, strict=True))
    return mined


@settings(max_examples=150)
@given(batches(min_rows=0, kinds=EMBEDDINGS), st.data())
def test_label_overlap_miner(batch, data):
    thresholds = data.draw(st.sampled_from(THRESHOLDS))
    strategies = data.draw(st.tuples(st.sampled_from(POSITIVE_STRATEGIES), st.sampled_from(NEGATIVE_STRATEGIES)))
    # No limit goes with "all".
    limits = [data.draw(st.none() if strategy == "all" else st.none() | st.integers(1, 4)) for strategy in strategies]
    output = data.draw(st.sampled_from(["pairs", "triplets"]))
    indices = LabelOverlapMiner(*thresholds, *strategies, *limits, output)(*batch)
    mined = assert_right(indices, batch, thresholds)

    # In triplets an anchor needs both.
    possible = candidates(batch, *thresholds)
    if output == "triplets":
        kept = [bool(p) and bool(n) for p, n in zip(*possible, strict=True)]
        possible = [[some if keep else set() for some, keep in zip(part, kept, strict=True)] for part in possible]
    for strategy, limit, chosen, some in zip(strategies, limits, mined, possible, strict=True):
        most = None if strategy == "all" else limit or 1
        numbers = [len(x) if most is None else min(len(x), most) for x in some]
        found = [len(x) for x in chosen]
        if "semihard" in strategies:  # it chooses among fewer
            assert all(few <= many for few, many in zip(found, numbers, strict=True))
        else:
            assert found == numbers
    if output == "pairs":
        for first, second in (indices[:2], indices[2:]):
            pairs = list(zip(first.tolist(), second.tolist(), strict=True))
            assert len(set(pairs)) == len(pairs)


@given(batches(), st.data())
def test_the_order_of_the_batch_does_not_matter(batch, data):
    embeddings, labels, ref_emb, ref_labels = batch
    order = data.draw(orders_of(len(labels)))
    miner = LabelOverlapMiner(pos_strategy="easy", neg_strategy="hard", max_negatives_per_anchor=2)
    mined = pairs_of(miner(*batch), len(labels))
    permuted = pairs_of(miner(embeddings[order], labels[order], ref_emb, ref_labels), len(labels))
    names = order.tolist() if ref_emb is None else range(len(ref_emb))
    for found, expected in zip(permuted, mined, strict=True):
        assert [{names[j] for j in some} for some in found] == [expected[i] for i in order.tolist()]


@pytest.mark.parametrize("name", WRAPPED)
@settings(max_examples=25)
@given(batches(min_rows=0, kinds=("normal", "grid", "identical")), st.sampled_from([0.0, 0.5, 1.0]))
def test_wrapped_miners(name, batch, threshold):
    indices = MultiLabelMinerWrapper(WRAPPED[name](), threshold)(*batch)
    assert_right(indices, batch, (threshold, 1.0))
