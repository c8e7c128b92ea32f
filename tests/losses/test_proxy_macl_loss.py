"""MACL against learnt proxies: a naive loop, PML's losses with proxies, and what users expect of a PML loss."""

import copy

import pytest
import torch
from oracles import counts_of, naive_macl
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import reducers as pml_reducers
from pytorch_metric_learning.regularizers import LpRegularizer

from pml_macl import LabelStatistics
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, MultiLabelCrossBatchMemory, ProxyMACLLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

NUM_CLASSES, SIZE = 5, 4
PLAIN = {
    "distance": lambda: TemperatureScheduledSimilarity(0.2, overlap_scale=0, rarity_scale=0),
    "reducer": lambda: FrequencyWeightedReducer(power=0),
}


def make_batch(num_rows=12, seed=0, dtype=torch.float64):
    """Embeddings that require gradients, and label sets; the first image has no labels."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_rows, SIZE, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    labels = torch.rand(num_rows, NUM_CLASSES, generator=generator) < 0.4
    labels[:1] = False
    return embeddings, labels


def make_loss(seed=0, **options):
    torch.manual_seed(seed)
    return ProxyMACLLoss(NUM_CLASSES, SIZE, **options)


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "weights", [{}, {"power": 0.5, "level": "label", "overlap_power": 1.0, "anchor_power": 0.5}], ids=["default", "all"]
)
def test_equals_a_naive_loop_in_value_and_gradients(engine, seed, weights):
    counts = torch.rand(30, NUM_CLASSES, generator=torch.Generator().manual_seed(99)) < 0.4
    loss_fn = make_loss(
        seed,
        label_statistics=LabelStatistics.from_labels(counts),
        reducer=FrequencyWeightedReducer(**weights),
        engine=engine,
    ).double()
    embeddings, labels = make_batch(seed=seed)
    loss = loss_fn(embeddings, labels)
    expected = naive_macl(
        embeddings,
        labels,
        loss_fn.proxies,
        torch.eye(NUM_CLASSES, dtype=torch.bool),
        counts=counts_of(counts),
        weights=weights,
    )
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    leaves = [embeddings, loss_fn.proxies]
    found, wanted = torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert all(gradient.any() for gradient in found)


def test_one_hot_labels_and_equal_weights_give_pml_normalized_softmax_loss():
    embeddings, _ = make_batch()
    classes = torch.arange(12) % NUM_CLASSES
    loss_fn = make_loss(**{name: make() for name, make in PLAIN.items()}).double()
    theirs = pml_losses.NormalizedSoftmaxLoss(NUM_CLASSES, SIZE, temperature=0.2).double()
    theirs.W.data = loss_fn.proxies.detach().T.clone()
    loss, expected = loss_fn(embeddings, torch.eye(NUM_CLASSES)[classes]), theirs(embeddings, classes)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    found = torch.autograd.grad(loss, [embeddings, loss_fn.proxies])
    of_embeddings, of_weights = torch.autograd.grad(expected, [embeddings, theirs.W])
    torch.testing.assert_close(found, (of_embeddings, of_weights.T), rtol=1e-10, atol=1e-12)


def test_a_miner_changes_nothing_because_its_pairs_are_of_the_batch():
    embeddings, labels = make_batch()
    loss_fn = make_loss()
    mined = LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=1)(embeddings, labels)
    assert torch.equal(loss_fn(embeddings, labels, mined), loss_fn(embeddings, labels))


def test_adds_to_macl_with_pml_multiple_losses():
    embeddings, labels = make_batch()
    pairs, proxies = MACLLoss(NUM_CLASSES), make_loss()
    both = pml_losses.MultipleLosses([pairs, proxies], weights=[1, 0.5])
    expected = copy.deepcopy(pairs)(embeddings, labels) + 0.5 * copy.deepcopy(proxies)(embeddings, labels)
    torch.testing.assert_close(both(embeddings, labels), expected)
    assert list(both.parameters()) == [proxies.proxies]


@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_without_images_or_labels_the_loss_is_a_differentiable_zero(engine):
    loss_fn = make_loss(engine=engine)
    for embeddings, labels in (make_batch(0), make_batch(1)):
        loss = loss_fn(embeddings, labels)
        loss.backward()
        assert loss == 0
        assert not embeddings.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_proxies_take_the_dtype_of_the_embeddings(dtype):
    embeddings, labels = make_batch(dtype=dtype)
    loss_fn = make_loss()
    loss = loss_fn(embeddings, labels)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    assert loss_fn.proxies.grad.dtype is loss_fn.proxies.dtype is torch.float32
    torch.testing.assert_close(loss.float(), loss_fn(embeddings.float(), labels), rtol=1e-5, atol=1e-6)


def test_learns_label_frequencies_as_macl_does():
    _, labels = make_batch()
    loss_fn, macl = make_loss(), MACLLoss(NUM_CLASSES)
    for part in (loss_fn, macl):
        part(make_batch()[0], labels)
    assert torch.equal(loss_fn.label_statistics.counts, macl.label_statistics.counts)


@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_weights_start_and_are_regularized_as_in_pml(engine):
    embeddings, labels = make_batch()
    options = {"engine": engine, "weight_init_func": lambda weights: torch.nn.init.constant_(weights, 2.0)}
    loss_fn = make_loss(weight_regularizer=LpRegularizer(), weight_reg_weight=0.5, **options)
    plain = make_loss(**options)
    assert (loss_fn.proxies == 2).all()
    assert loss_fn.sub_loss_names() == ["loss", "weight_reg_loss"]
    loss = loss_fn(embeddings, labels)
    torch.testing.assert_close(loss, plain(embeddings, labels) + 0.5 * loss_fn.proxies.norm(dim=1).mean())
    assert loss_fn.fallback == (None if engine == "fused" else 'engine="reference"')


def test_state_and_statistics():
    embeddings, labels = make_batch()
    loss_fn, other = make_loss(collect_stats=True), make_loss(seed=1)
    other.load_state_dict(loss_fn.state_dict())
    assert {"proxies", "label_statistics.counts"} <= loss_fn.state_dict().keys()
    assert torch.equal(other(embeddings, labels), loss_fn(embeddings, labels))
    assert loss_fn.num_pos_pairs == labels.sum()
    assert loss_fn.num_neg_pairs == labels.numel() - labels.sum()
    assert loss_fn.anchors_without_positives == (~labels.any(dim=1)).sum()


def test_training_moves_images_to_the_proxies_of_their_labels():
    torch.manual_seed(0)
    loss_fn, labels = ProxyMACLLoss(3, 8), torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]])
    embeddings = torch.randn(4, 8, requires_grad=True)
    optimizer = torch.optim.Adam([embeddings, loss_fn.proxies], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss_fn(embeddings, labels).backward()
        optimizer.step()
    similarity = torch.nn.functional.cosine_similarity(embeddings[:, None], loss_fn.proxies[None], dim=2)
    assert similarity[labels == 1].min() > similarity[labels == 0].max() + 0.3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda loss_fn, e, y: loss_fn(e, y, ref_emb=e, ref_labels=y), "ref_emb must be None"),
        (lambda loss_fn, e, y: loss_fn(e[:, :3], y), "embedding_size=4 columns, got 3"),
        (lambda loss_fn, e, y: loss_fn(e, y[:, :3]), "5"),
        (lambda loss_fn, e, y: MultiLabelCrossBatchMemory(loss_fn, SIZE, NUM_CLASSES)(e, y), "those of ProxyMACLLoss"),
    ],
)
def test_wrong_input_changes_no_state(call, message):
    loss_fn = make_loss()
    embeddings, labels = make_batch()
    with pytest.raises(ValueError, match=message):
        call(loss_fn, embeddings, labels)
    assert loss_fn.label_statistics.num_samples == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1"),
        ({"embedding_size": 2.0}, TypeError, "embedding_size must be an integer"),
        ({"label_statistics": LabelStatistics(3)}, ValueError, "must agree"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        ProxyMACLLoss(**{"num_classes": NUM_CLASSES, "embedding_size": SIZE, **options})


def test_per_anchor_reducer_needs_as_many_rows_as_proxies():
    embeddings, labels = make_batch()
    reducer = pml_reducers.PerAnchorReducer()
    assert make_loss(reducer=reducer)(embeddings, labels) > 0
    with pytest.raises(ValueError, match="PerAnchorReducer cannot take more references \\(5\\) than rows \\(3\\)"):
        make_loss(reducer=reducer)(embeddings[:3], labels[:3])
