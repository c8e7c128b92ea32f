"""Relations that replace the Jaccard similarity, compared with loops, PML, and the classes without a relation."""

import copy

import pytest
import torch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from relation_oracles import (
    SCALE,
    closeness,
    graded_macl,
    loops_of,
    naive_graded_macl,
    value_and_gradient,
    within_100_m,
)

from pml_macl import LabelSets, jaccard_similarity
from pml_macl.losses import (
    JaccardSupConLoss,
    MACLLoss,
    MulSupConLoss,
    MultiLabelCrossBatchMemory,
    MultiLabelLossWrapper,
    SupConAnyLoss,
)
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer


def shares_a_label(labels, ref_labels):
    return labels.float() @ ref_labels.float().T > 0


def similar_shapes(images, ref_images):
    """Compare (N, 2, 3) labels."""
    return (images[:, None] - ref_images[None]).abs().mean(dim=(2, 3)) < 0.8


@pytest.fixture
def batch(generator):
    """Embeddings, and places within a square of 300 m."""
    return (
        torch.randn(14, 6, generator=generator, dtype=torch.float64),
        torch.rand(14, 2, generator=generator, dtype=torch.float64) * 3 * SCALE,
    )


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.4, 0.1), (0.5, 1.0)])
@pytest.mark.parametrize("with_references", [False, True])
def test_graded_relation_equals_the_loop(engine, thresholds, with_references, batch):
    embeddings, places = batch
    low, high = thresholds
    loss_fn = graded_macl(positive_threshold=low, negative_threshold=high, engine=engine)
    references = (embeddings[:9].flip(1), places.flip(0)[:9]) if with_references else (None, None)
    expected = value_and_gradient(lambda x: naive_graded_macl(x, places, *references, low=low, high=high), embeddings)
    found = value_and_gradient(lambda x: loss_fn(x, places, None, *references), embeddings)
    torch.testing.assert_close(found, expected)
    assert loss_fn.fallback == (None if engine == "fused" else 'engine="reference"')


@pytest.mark.parametrize("engine", ["fused", "reference"])
def test_memory_stores_the_labels_and_equals_the_loop(engine, batch):
    embeddings, places = batch
    memory = MultiLabelCrossBatchMemory(graded_macl(engine=engine), 6, memory_size=14)
    memory(embeddings[:8], places[:8])
    found = value_and_gradient(lambda x: memory(x, places[8:]), embeddings[8:])
    assert torch.equal(memory.label_memory, places)
    own = range(8, 14)
    expected = value_and_gradient(
        lambda x: naive_graded_macl(x, places[8:], torch.cat([embeddings[:8], x.detach()]), places, own), embeddings[8:]
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("with_references", [False, True])
def test_miners_equal_the_loop(with_references, batch):
    embeddings, places = batch
    references = (embeddings[:9], places.flip(0)[:9]) if with_references else (None, None)
    expected = loops_of(places, places if references[1] is None else references[1], not with_references)
    takes_all = pml_miners.PairMarginMiner(pos_margin=-10, neg_margin=10)
    wrapper = MultiLabelMinerWrapper(takes_all, relation=within_100_m)
    for miner in (LabelOverlapMiner(relation=within_100_m), wrapper):
        a1, p, a2, n = miner(embeddings, places, *references)
        assert set(zip(a1.tolist(), p.tolist(), strict=True)) == expected[0]
        assert set(zip(a2.tolist(), n.tolist(), strict=True)) == expected[1]


def test_a_graded_relation_and_two_thresholds_leave_a_band_out(batch):
    embeddings, places = batch
    values = closeness(places, places)
    miner = LabelOverlapMiner(0.5, 0.1, relation=closeness)
    a1, p, a2, n = miner(embeddings, places)
    off_diagonal = ~torch.eye(len(places), dtype=torch.bool)
    assert torch.equal(torch.stack([a1, p]), ((values >= 0.5) & off_diagonal).nonzero().T)
    assert torch.equal(torch.stack([a2, n]), ((values <= 0.1) & off_diagonal).nonzero().T)
    assert len(a1) + len(a2) < off_diagonal.sum()


@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize("name", ["NTXentLoss", "MultiSimilarityLoss", "TripletMarginLoss", "SupConLoss"])
def test_wrapped_loss_equals_pml_with_the_pairs_of_the_loop(name, with_references, batch):
    embeddings, places = batch
    loss = getattr(pml_losses, name)()
    references = (embeddings[:9].flip(1), places.flip(0)[:9]) if with_references else (None, None)
    positives, negatives = loops_of(places, places if references[1] is None else references[1], not with_references)
    indices = tuple(torch.tensor(x) for pairs in (positives, negatives) for x in zip(*sorted(pairs), strict=True))
    wrapper = MultiLabelLossWrapper(loss, relation=within_100_m)
    found = value_and_gradient(lambda x: wrapper(x, places, None, *references), embeddings)
    classes = None if references[0] is None else torch.zeros(9)  # PML uses the indices instead
    expected = value_and_gradient(lambda x: loss(x, None, indices, references[0], classes), embeddings)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["NTXentLoss", "MultiSimilarityLoss", "TripletMarginLoss"])
def test_equal_classes_as_a_relation_equal_pml(name, generator):
    """1-D labels: the relation of PML itself."""
    embeddings, classes = torch.randn(12, 5, generator=generator), torch.arange(12) % 4
    loss, miner = getattr(pml_losses, name)(), pml_miners.MultiSimilarityMiner()

    def same(labels, ref_labels):
        return labels[:, None] == ref_labels

    indices = MultiLabelMinerWrapper(miner, relation=same)(embeddings, classes)
    for found, expected in zip(indices, miner(embeddings, classes), strict=True):
        assert torch.equal(found, expected)
    wrapper = MultiLabelLossWrapper(loss, relation=same)
    for pairs in (None, indices):
        found = value_and_gradient(lambda x, pairs=pairs: wrapper(x, classes, pairs), embeddings)
        torch.testing.assert_close(found, value_and_gradient(lambda x, p=pairs: loss(x, classes, p), embeddings))
    queue, own = pml_losses.CrossBatchMemory(loss, 5, 20), MultiLabelCrossBatchMemory(wrapper, 5, memory_size=20)
    for _ in range(3):
        torch.testing.assert_close(own(embeddings, classes), queue(embeddings, classes))
    assert torch.equal(own.label_memory, queue.label_memory)


@pytest.mark.parametrize("engine", ["fused", "reference"])
@pytest.mark.parametrize("loss_class", [MACLLoss, JaccardSupConLoss, SupConAnyLoss, MulSupConLoss])
def test_the_jaccard_similarity_as_a_relation_changes_no_bit(loss_class, engine, generator):
    embeddings, labels = torch.randn(40, 6, generator=generator), torch.rand(40, 5, generator=generator) < 0.4
    options = {"engine": engine, "num_classes": 5}
    losses = [loss_class(**options), loss_class(**options, relation=jaccard_similarity)]
    memories = [MultiLabelCrossBatchMemory(copy.deepcopy(loss), 6, 5, 60) for loss in losses]
    for plain, related in (losses, memories):
        for labels_as_given in (labels, labels.long()):
            expected = value_and_gradient(lambda x, f=plain: f(x, labels), embeddings)
            found = value_and_gradient(lambda x, f=related, y=labels_as_given: f(x, y), embeddings)
            assert all(map(torch.equal, found, expected))
            if related is memories[1]:
                break  # a memory keeps one dtype of labels


def test_shared_labels_as_a_relation_change_no_bit(generator):
    embeddings, labels = torch.randn(30, 6, generator=generator), torch.rand(30, 5, generator=generator) < 0.3
    sets, related = LabelSets(labels), LabelSets(labels, relation=shares_a_label)
    assert torch.equal(sets[:, None] == sets, related[:, None] == related)
    loss = pml_losses.MultiSimilarityLoss()
    for make in (
        lambda **options: MultiLabelLossWrapper(loss, **options),
        lambda **options: MultiLabelLossWrapper(loss, reducer=FrequencyWeightedReducer(power=1), **options),
        lambda **options: MultiLabelCrossBatchMemory(MultiLabelLossWrapper(loss, **options), 6, 5, 40),
    ):
        plain, related = make(), make(relation=shares_a_label)
        expected = value_and_gradient(lambda x, f=plain: f(x, labels), embeddings)
        found = value_and_gradient(lambda x, f=related: f(x, labels), embeddings)
        assert all(map(torch.equal, found, expected))
    for make in (LabelOverlapMiner, lambda **options: MultiLabelMinerWrapper(pml_miners.BatchHardMiner(), **options)):
        expected, found = make()(embeddings, labels), make(relation=shares_a_label)(embeddings, labels)
        assert all(map(torch.equal, found, expected))


def test_reducers_weight_by_the_relation(batch):
    """A FrequencyWeightedReducer takes the values of the relation for the Jaccard similarity."""
    embeddings, places = batch
    reducer = FrequencyWeightedReducer(power=0, overlap_power=2)
    loss = pml_losses.ContrastiveLoss(pos_margin=0, neg_margin=-10)  # the loss of a positive pair is its distance
    found = MultiLabelLossWrapper(loss, reducer=reducer, relation=closeness)(embeddings, places)
    distances, values = loss.distance(embeddings), closeness(places, places).fill_diagonal_(0)
    means = [(w**2 @ d) / (w**2).sum() for d, w in zip(distances, values, strict=True) if w.sum() > 0]
    torch.testing.assert_close(found, torch.stack(means).mean())


def test_labels_of_any_shape_and_dtype(generator):
    embeddings, images = torch.randn(10, 4, generator=generator), torch.randn(10, 2, 3, generator=generator)
    wrapper = MultiLabelLossWrapper(pml_losses.ContrastiveLoss(), relation=similar_shapes)
    memory = MultiLabelCrossBatchMemory(wrapper, 4, memory_size=10)
    assert torch.isfinite(wrapper(embeddings, images, None, embeddings, images))
    memory(embeddings, images)
    assert torch.equal(memory.label_memory, images)
    assert repr(LabelSets(images, relation=similar_shapes)).startswith("LabelSets(shape=(10,), relation=")
    assert torch.equal(LabelSets(images, relation=similar_shapes).multi_hot(), images)


def test_indices_replace_the_relation_but_not_its_values(batch):
    embeddings, places = batch
    loss_fn = graded_macl()
    indices = LabelOverlapMiner(relation=closeness)(embeddings, places)
    torch.testing.assert_close(loss_fn(embeddings, places, indices), loss_fn(embeddings, places))
    a1, p, a2, n = indices
    found = loss_fn(embeddings, places, (a1[::2], p[::2], a2, n))
    reference = graded_macl(engine="reference")
    torch.testing.assert_close(found, reference(embeddings, places, (a1[::2], p[::2], a2, n)))
    assert not torch.equal(found, loss_fn(embeddings, places))
