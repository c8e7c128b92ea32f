import copy

import pytest
import torch
from oracles import naive_anchor_weight, naive_pair_weight
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer
from pytorch_metric_learning.regularizers import LpRegularizer

from pml_macl import LabelStatistics
from pml_macl.losses import MultiLabelLossWrapper
from pml_macl.reducers import FrequencyWeightedReducer, MulSupConReducer, SimilarityDissimilarityReducer

OPTIONS = [
    {},
    {"level": "label", "power": 0.5},
    {"overlap_power": 1.5, "anchor_power": 1.0},
    {"power": 0.0, "anchor_power": 2.0},
]


@pytest.fixture
def case(generator):
    labels, ref_labels = (torch.rand(n, 5, generator=generator) < 0.5 for n in (6, 9))
    labels[0] = False
    statistics = LabelStatistics.from_labels(
        torch.rand(50, 5, generator=generator) < torch.tensor([0.9, 0.5, 0.3, 0.1, 0])
    )
    anchors, positives = (torch.rand(6, 9, generator=generator) < 0.4).nonzero(as_tuple=True)
    losses = torch.rand(len(anchors), dtype=torch.float64, generator=generator, requires_grad=True)
    return labels, ref_labels, statistics, anchors, positives, losses


def sets(labels):
    return [set(row.nonzero().flatten().tolist()) for row in labels]


def naive_mean(losses, anchors, pair_weights, anchor_weights):
    numerator, denominator = 0.0, 0.0
    for i in set(anchors):
        mine = [k for k, anchor in enumerate(anchors) if anchor == i]
        total = sum(pair_weights[k] for k in mine)
        if total == 0:
            continue
        numerator += anchor_weights[i] * sum(pair_weights[k] * losses[k] for k in mine) / total
        denominator += anchor_weights[i]
    return numerator / denominator


def reduce(reducer, losses, indices, reduction_type, labels, **entry):
    info = {"losses": losses, "indices": indices, "reduction_type": reduction_type, **entry}
    return reducer({"loss": info}, torch.zeros(len(labels), 2, requires_grad=True), labels)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reduction_type", ["pos_pair", "neg_pair", "triplet", "element"])
def test_equals_a_loop_in_value_and_gradient(case, options, reduction_type):
    labels, ref_labels, statistics, anchors, positives, losses = case
    counts = statistics.cooccurrence.tolist()
    rows, ref_rows = sets(labels), sets(ref_labels)
    anchor_power = options.get("anchor_power", 0.0)
    pair_options = {k: v for k, v in options.items() if k != "anchor_power"}
    anchor_weights = [naive_anchor_weight(row, counts, anchor_power) for row in rows]
    if reduction_type in ("pos_pair", "triplet"):
        pair_weights = [
            naive_pair_weight(rows[a], ref_rows[p], counts, **pair_options)
            for a, p in zip(anchors.tolist(), positives.tolist(), strict=True)
        ]
    else:
        pair_weights = [1.0] * len(losses)
    indices = (anchors, positives)
    if reduction_type == "triplet":
        indices = (anchors, positives, positives.flip(0))
    if reduction_type == "element":
        losses, indices = losses[:6], torch.tensor([3, 1, 2, 5, 4, 0])
        weights = [anchor_weights[i] for i in indices.tolist()]
        expected = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    else:
        expected = naive_mean(losses, anchors.tolist(), pair_weights, anchor_weights)
    reducer = FrequencyWeightedReducer(statistics, **options)
    found = reduce(reducer, losses, indices, reduction_type, labels, ref_labels=ref_labels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(x, case[-1], retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-15)


def test_already_reduced_and_zero_losses_pass_through():
    reducer, labels = FrequencyWeightedReducer(), torch.ones(3, 2, dtype=torch.bool)
    assert reduce(reducer, torch.tensor(7.0), None, "already_reduced", labels) == 7
    zero = reduce(reducer, 0, None, "already_reduced", labels)
    zero.backward()
    assert zero == 0


def test_pairs_without_weight_give_a_differentiable_zero():
    losses = torch.ones(1, requires_grad=True)
    indices = (torch.tensor([0]), torch.tensor([1]))
    found = reduce(FrequencyWeightedReducer(), losses, indices, "pos_pair", torch.eye(2, dtype=torch.bool))
    found.backward()
    assert found == 0
    assert losses.grad == 0


def test_where_the_statistics_come_from(case):
    labels, ref_labels, statistics, anchors, positives, losses = case

    def value(reducer):
        return reduce(reducer, losses, (anchors, positives), "pos_pair", labels, ref_labels=ref_labels)

    expected = value(FrequencyWeightedReducer(statistics))
    of_batch = value(FrequencyWeightedReducer(LabelStatistics.from_labels(labels)))
    assert value(FrequencyWeightedReducer()) == of_batch != expected


CLASSES = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    "make",
    [
        pml_losses.ContrastiveLoss,
        pml_losses.TripletMarginLoss,
        pml_losses.SupConLoss,
        pml_losses.MultiSimilarityLoss,
        pml_losses.NTXentLoss,
    ],
)
def test_in_pml_losses_equal_frequencies_give_the_mean_over_anchors(make, generator):
    """With equally frequent classes, the result is PML's MeanReducer, except for the order of the means."""
    embeddings = torch.randn(6, 4, generator=generator, requires_grad=True)
    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = make(reducer=FrequencyWeightedReducer(anchor_power=1.0))(embeddings, classes)
    torch.testing.assert_close(loss, make(reducer=MeanReducer())(embeddings, classes))


def test_in_pml_losses_rare_classes_weigh_more(generator):
    embeddings = torch.randn(8, 4, generator=generator)
    statistics = LabelStatistics.from_labels(torch.nn.functional.one_hot(CLASSES, 3))
    elements = pml_losses.SupConLoss(reducer=FrequencyWeightedReducer(statistics, anchor_power=1.0))
    losses = pml_losses.SupConLoss(reducer=DoNothingReducer())(embeddings, CLASSES)["loss"]["losses"]
    weights = torch.tensor([1.0, 1, 1, 1, 2, 2, 2, 2])
    torch.testing.assert_close(elements(embeddings, CLASSES), (weights * losses).sum() / weights.sum())


def test_in_a_pml_loss_with_a_regularizer(generator):
    embeddings = torch.randn(8, 4, generator=generator)
    loss_fn = pml_losses.ContrastiveLoss(reducer=FrequencyWeightedReducer(), embedding_regularizer=LpRegularizer())
    plain = pml_losses.ContrastiveLoss(reducer=FrequencyWeightedReducer())
    expected = plain(embeddings, CLASSES) + embeddings.norm(dim=1).mean()
    torch.testing.assert_close(loss_fn(embeddings, CLASSES), expected)


REDUCERS = {
    "frequency": lambda statistics: FrequencyWeightedReducer(statistics, anchor_power=0.5),
    "frequency of the batch": lambda statistics: FrequencyWeightedReducer(overlap_power=1),
    "by count": lambda statistics: FrequencyWeightedReducer(statistics, divide_by_count=True),
    "mulsupcon": lambda statistics: MulSupConReducer(),
    "similarity-dissimilarity": lambda statistics: SimilarityDissimilarityReducer(),
}


@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.parametrize("num_references", [3, 8, 20])
@pytest.mark.parametrize(
    "make",
    [
        pml_losses.ContrastiveLoss,
        pml_losses.NTXentLoss,
        pml_losses.SupConLoss,
        lambda **kwargs: pml_losses.TripletMarginLoss(margin=3, **kwargs),
    ],
)
def test_in_an_unwrapped_pml_loss_with_references(make, num_references, name, generator):
    """PML passes no ref_labels, so the reducer infers them; the wrapper passes them."""
    embeddings, ref_emb = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (8, num_references))
    ref_classes = torch.arange(num_references) % 3
    train = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 0, 1, 1, 2]), 3)
    reducer = REDUCERS[name](LabelStatistics.from_labels(train))
    found = make(reducer=reducer)(embeddings, CLASSES, ref_emb=ref_emb, ref_labels=ref_classes)
    one_hot, ref_one_hot = (torch.nn.functional.one_hot(classes, 3) for classes in (CLASSES, ref_classes))
    expected = MultiLabelLossWrapper(make(), reducer=reducer)(embeddings, one_hot, None, ref_emb, ref_one_hot)
    assert expected > 0
    torch.testing.assert_close(found, expected)


def test_label_sets_of_references_must_be_given():
    labels = torch.eye(3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"ref_labels must reach the reducer.*got 3 labels and a pair with ref"):
        reduce(FrequencyWeightedReducer(), torch.ones(1), (torch.tensor([0]), torch.tensor([4])), "pos_pair", labels)


def test_large_class_indices_need_no_large_matrices(generator):
    """Without label statistics, the weights depend on which images share a class, and not on the class indices."""
    embeddings = torch.randn(6, 2, generator=generator)
    classes = torch.tensor([0, 2, 1, 0, 1, 0])
    for reducer in (FrequencyWeightedReducer(anchor_power=1), MulSupConReducer(divide_by_count=True)):
        loss_fn = pml_losses.ContrastiveLoss(reducer=reducer)
        expected = loss_fn(embeddings, classes)
        assert expected > 0
        torch.testing.assert_close(loss_fn(embeddings, torch.tensor([3, 10**9, 700])[classes]), expected)


def test_a_batch_may_lack_classes_of_the_statistics(generator):
    embeddings, classes = torch.randn(6, 4, generator=generator), torch.tensor([0, 0, 1, 1, 0, 1])
    few, many = (
        pml_losses.ContrastiveLoss(reducer=FrequencyWeightedReducer(LabelStatistics.from_labels(torch.eye(count))))
        for count in (2, 5)
    )
    assert few(embeddings, classes) > 0
    torch.testing.assert_close(many(embeddings, classes), few(embeddings, classes))


def test_missing_labels_are_an_error(generator):
    pairs = tuple(torch.tensor(x) for x in ([0, 1], [1, 0], [0, 1], [2, 2]))
    with pytest.raises(
        ValueError, match="FrequencyWeightedReducer needs labels to compute weights, got None; pass labels"
    ):
        pml_losses.ContrastiveLoss(reducer=FrequencyWeightedReducer())(torch.randn(3, 2), indices_tuple=pairs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"power": -1}, ValueError, "power must be >= 0 and finite, got -1"),
        ({"overlap_power": float("inf")}, ValueError, "overlap_power must be"),
        ({"anchor_power": None}, TypeError, "anchor_power must be a number, got NoneType"),
        ({"level": "pair"}, ValueError, "level must be one of 'cooccurrence', 'label', got 'pair'"),
        ({"label_statistics": torch.ones(3)}, TypeError, "label_statistics must be a LabelStatistics"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        FrequencyWeightedReducer(**kwargs)


def test_labels_of_another_number_of_classes_are_refused():
    losses, indices = torch.ones(1), (torch.tensor([0]), torch.tensor([1]))
    with pytest.raises(ValueError, match="one column per class \\(4\\), got 2"):
        reduce(FrequencyWeightedReducer(LabelStatistics(4)), losses, indices, "pos_pair", torch.ones(2, 2))


def test_deep_copies_keep_their_values(case):
    reducer = FrequencyWeightedReducer(case[2])
    assert torch.equal(copy.deepcopy(reducer).label_statistics.counts, case[2].counts)
