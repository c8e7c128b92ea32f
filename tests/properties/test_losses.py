"""What holds for every loss on every valid batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import naive_macl
from properties.strategies import EMBEDDINGS, batches, orders_of
from pytorch_metric_learning import losses as pml_losses

from pml_macl import LabelStatistics, losses
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

CONTRASTIVE = {
    "macl": lambda **options: losses.MACLLoss(**options),
    "macl, labels alone": lambda **options: losses.MACLLoss(
        reducer=FrequencyWeightedReducer(level="label", overlap_power=1.0, anchor_power=0.5), **options
    ),
    "macl, thresholds": lambda **options: losses.MACLLoss(positive_threshold=0.5, negative_threshold=0.3, **options),
    "contrastive": lambda **options: losses.MultiLabelContrastiveLoss(**options),
    "supcon any": lambda **options: losses.SupConAnyLoss(**options),
    "supcon exact": lambda **options: losses.SupConExactLoss(**options),
    "jaccard": lambda **options: losses.JaccardSupConLoss(**options),
    "multisupcon": lambda **options: losses.MultiSupConLoss(**options),
    "mulsupcon": lambda **options: losses.MulSupConLoss(**options),
    "similarity-dissimilarity": lambda **options: losses.SimilarityDissimilarityLoss(**options),
}
WRAPPED = {
    name: lambda make=make: losses.MultiLabelLossWrapper(make(), threshold=0.2)
    for name, make in {
        "circle": pml_losses.CircleLoss,
        "contrastive of PML": pml_losses.ContrastiveLoss,
        "multi-similarity": pml_losses.MultiSimilarityLoss,
        "ntxent": pml_losses.NTXentLoss,
        "supcon of PML": pml_losses.SupConLoss,
        "triplet": pml_losses.TripletMarginLoss,
    }.items()
}
CASES = {
    **{f"{name}, reference": lambda make=make: make(engine="reference") for name, make in CONTRASTIVE.items()},
    **{f"{name}, fused": lambda make=make: make(engine="fused") for name, make in CONTRASTIVE.items()},
}


@pytest.fixture(scope="module", params=[*CASES, *WRAPPED])
def any_loss(request):
    return {**CASES, **WRAPPED}[request.param]()


@pytest.fixture(scope="module", params=CASES)
def contrastive_loss(request):
    return CASES[request.param]()


# The other losses of PML have kinks, or take a part of their formula for a constant in the gradient.
@pytest.fixture(scope="module", params=[*CASES, "ntxent", "supcon of PML"])
def smooth_loss(request):
    return {**CASES, **WRAPPED}[request.param]()


def value_and_gradients(loss_fn, embeddings, labels, ref_emb=None, ref_labels=None):
    leaves = [x.clone().requires_grad_() for x in (embeddings, ref_emb) if x is not None]
    loss = loss_fn(leaves[0], labels, None, *((leaves[1], ref_labels) if len(leaves) == 2 else ()))
    loss.backward()
    return loss.detach(), *gradients_of(leaves)


def gradients_of(leaves):
    """A loss without terms is a zero that has no gradient in the references."""
    assert leaves[0].grad is not None
    return [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@given(st.data())
def test_the_order_of_the_batch_does_not_matter(any_loss, data):
    embeddings, labels, ref_emb, ref_labels = batch = data.draw(batches())
    order = data.draw(orders_of(len(labels)))
    loss, gradient, *_ = value_and_gradients(any_loss, *batch)
    found, permuted, *_ = value_and_gradients(any_loss, embeddings[order], labels[order], ref_emb, ref_labels)
    assert_close(found, loss)
    assert_close(permuted, gradient[order])


@given(st.data())
def test_the_order_of_the_references_does_not_matter(any_loss, data):
    embeddings, labels, ref_emb, ref_labels = batch = data.draw(batches(references=True))
    order = data.draw(orders_of(len(ref_labels)))
    loss, gradient, ref_gradient = value_and_gradients(any_loss, *batch)
    found = value_and_gradients(any_loss, embeddings, labels, ref_emb[order], ref_labels[order])
    for value, expected in zip(found, (loss, gradient, ref_gradient[order]), strict=True):
        assert_close(value, expected)


@given(st.data())
def test_positive_factors_of_the_embeddings_do_not_matter(any_loss, data):
    embeddings, labels, ref_emb, ref_labels = batch = data.draw(batches())
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 100)))
    factors = torch.rand(len(labels), 1, generator=seed, dtype=torch.float64) * 10 + 0.1
    loss, gradient, *_ = value_and_gradients(any_loss, *batch)
    found, scaled, *_ = value_and_gradients(any_loss, factors * embeddings, labels, ref_emb, ref_labels)
    assert_close(found, loss)
    assert_close(scaled * factors, gradient)


@given(st.data())
def test_the_order_of_the_classes_does_not_matter(any_loss, data):
    embeddings, labels, ref_emb, ref_labels = batch = data.draw(batches())
    order = data.draw(orders_of(labels.shape[1]))
    ref_permuted = None if ref_labels is None else ref_labels[:, order]
    expected = value_and_gradients(any_loss, *batch)
    for found, value in zip(
        value_and_gradients(any_loss, embeddings, labels[:, order], ref_emb, ref_permuted), expected, strict=True
    ):
        assert_close(found, value)


def with_empty_columns(labels, number):
    return labels if labels is None else torch.cat([labels, labels.new_zeros(len(labels), number)], dim=1)


@given(st.data())
def test_a_label_that_nobody_carries_does_not_matter(any_loss, data):
    """But for the first one of all: it counts as seen once, and then the rarest label of the batch may be it."""
    embeddings, labels, ref_emb, ref_labels = data.draw(batches())
    first = int(getattr(any_loss.distance, "rarity_scale", 0) > 0)
    expected, found = (
        value_and_gradients(
            any_loss, embeddings, with_empty_columns(labels, more), ref_emb, with_empty_columns(ref_labels, more)
        )
        for more in (first, first + 3)
    )
    for value, other in zip(found, expected, strict=True):
        assert_close(value, other)


@given(batches())
def test_images_that_are_copies_get_the_same_gradient(any_loss, batch):
    embeddings, labels, ref_emb, ref_labels = batch
    twice = torch.cat([embeddings, embeddings]), torch.cat([labels, labels])
    _, gradient, *_ = value_and_gradients(any_loss, *twice, ref_emb, ref_labels)
    assert_close(gradient[: len(labels)], gradient[len(labels) :])


@given(batches(references=True))
def test_each_reference_twice_adds_the_weighted_logarithm_of_two(contrastive_loss, batch):
    """Twice the positives, each of half the weight, and twice the denominator."""
    embeddings, labels, ref_emb, ref_labels = batch
    once = contrastive_loss(*batch[:2], None, ref_emb, ref_labels)
    twice, four_times = (
        contrastive_loss(embeddings, labels, None, ref_emb.repeat(n, 1), ref_labels.repeat(n, 1)) for n in (2, 4)
    )
    assert_close(four_times - twice, twice - once)
    if not contrastive_loss.reducer.divide_by_count:
        has_loss = torch.as_tensor(once > 0 or twice > 0).double()
        assert_close(twice - once, has_loss * math.log(2))


@given(batches(min_rows=0, kinds=EMBEDDINGS), st.sampled_from([torch.bfloat16, torch.float32, torch.float64]))
def test_loss_and_gradients_are_finite_for_every_valid_input(any_loss, batch, dtype):
    batch = [x.to(dtype) if x is not None and x.is_floating_point() else x for x in batch]
    loss, *gradients = value_and_gradients(any_loss, *batch)
    assert loss.isfinite()
    assert loss > -1e-6
    for gradient in gradients:
        assert gradient.isfinite().all()


@settings(max_examples=40)
@given(batches(kinds=("normal", "grid", "alike", "zero")), st.data())
def test_both_engines_give_one_value_and_one_gradient(batch, data):
    name = data.draw(st.sampled_from(list(CONTRASTIVE)))
    embeddings, labels, ref_emb, ref_labels = batch
    similarity = TemperatureScheduledSimilarity(
        data.draw(st.sampled_from([0.01, 0.1, 1.0])),
        overlap_scale=data.draw(st.sampled_from([0, 1.0])),
        min_temperature=data.draw(st.sampled_from([0.01, 0.1])),
    )
    mined = LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=2)(*batch)
    options = {"distance": similarity} if name.startswith(("macl", "contrastive")) else {}
    found, expected = [], []
    for engine, results in (("fused", found), ("reference", expected)):
        loss_fn = CONTRASTIVE[name](engine=engine, **options)
        leaves = [x.clone().requires_grad_() for x in (embeddings, ref_emb) if x is not None]
        references = (leaves[1], ref_labels) if len(leaves) == 2 else (None, None)
        loss = loss_fn(leaves[0], labels, None, *references) + 2 * loss_fn(leaves[0], labels, mined, *references)
        loss.backward()
        results += [loss.detach(), *gradients_of(leaves)]
    for value, other in zip(found, expected, strict=True):
        assert_close(value, other)


@settings(max_examples=40)
@given(batches(), st.data())
def test_macl_equals_the_naive_loop(batch, data):
    embeddings, labels, ref_emb, ref_labels = batch
    powers = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    weights = {"level": data.draw(st.sampled_from(["cooccurrence", "label"]))}
    weights |= {name: data.draw(powers) for name in ("power", "overlap_power", "anchor_power")}
    temperatures = {
        "temperature": data.draw(st.sampled_from([0.05, 0.1, 1.0])),
        "overlap_scale": data.draw(powers),
        "rarity_scale": data.draw(st.sampled_from([0.0, 0.3, 1.0])),
        "min_temperature": data.draw(st.sampled_from([0.01, 0.1])),
    }
    thresholds = data.draw(st.sampled_from([(0.0, 0.0), (0.5, 0.5), (0.4, 0.0), (0.0, 1.0), (1.0, 0.25)]))
    engine = data.draw(st.sampled_from(["fused", "reference"]))
    loss_fn = losses.MACLLoss(
        None,
        None,
        *thresholds,
        engine,
        distance=TemperatureScheduledSimilarity(**temperatures),
        reducer=FrequencyWeightedReducer(**weights),
    )
    expected = naive_macl(
        embeddings, labels, ref_emb, ref_labels, None, None, *thresholds, weights=weights, temperatures=temperatures
    )
    assert_close(loss_fn(embeddings, labels, None, ref_emb, ref_labels), expected)


@settings(max_examples=4)
@given(batches(max_rows=5))
def test_gradcheck(smooth_loss, batch):
    embeddings, labels, ref_emb, ref_labels = batch
    leaves = [x.clone().requires_grad_() for x in (embeddings, ref_emb) if x is not None]

    def loss(query, reference=None):
        # A loss without terms is a zero that has no gradient in the references.
        nothing = 0 if reference is None else (0 * reference).sum()
        return smooth_loss(query, labels, None, reference, ref_labels) + nothing

    assert torch.autograd.gradcheck(loss, leaves)


@given(st.lists(batches(references=False), min_size=1, max_size=4), st.integers(1, 6))
def test_the_memory_is_a_loss_on_the_last_rows(drawn, rows_more):
    """Against a list of everything that was enqueued."""
    num_classes, size = 6, 3
    memory_size = max(len(labels) for _, labels, _, _ in drawn) + rows_more
    loss_fn, plain = losses.MACLLoss(), losses.MACLLoss()
    memory = losses.MultiLabelCrossBatchMemory(loss_fn, size, num_classes, memory_size)
    kept, kept_labels = torch.empty(0, size).double(), torch.empty(0, num_classes).bool()
    for embeddings, labels, _, _ in drawn:
        embeddings = torch.nn.functional.pad(embeddings, (0, size))[:, :size] + 0.5
        labels = with_empty_columns(labels, num_classes - labels.shape[1])
        found = memory(embeddings, labels)
        kept = torch.cat([kept, embeddings])[-memory_size:]
        kept_labels = torch.cat([kept_labels, labels])[-memory_size:]
        pairs = LabelOverlapMiner()(embeddings, labels, kept, kept_labels)
        own = len(kept) - len(labels)
        a1, p, a2, n = pairs
        positive, negative = p != a1 + own, n != a2 + own
        chosen = a1[positive], p[positive], a2[negative], n[negative]
        assert_close(found, plain(embeddings, labels, chosen, kept, kept_labels))


@given(st.lists(batches(references=False), min_size=1, max_size=5))
def test_statistics_learnt_by_a_loss_are_those_of_all_its_batches(drawn):
    loss_fn = losses.MACLLoss(num_classes=6)
    labels = [with_empty_columns(labels, 6 - labels.shape[1]) for _, labels, _, _ in drawn]
    for (embeddings, *_), rows in zip(drawn, labels, strict=True):
        loss_fn(embeddings.requires_grad_(), rows)
    expected = LabelStatistics.from_labels(torch.cat(labels))
    for name, value in expected.state_dict().items():
        assert torch.equal(loss_fn.label_statistics.state_dict()[name], value)
