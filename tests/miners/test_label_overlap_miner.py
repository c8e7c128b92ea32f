import itertools

import pytest
import torch
from oracles import naive_pairs
from pytorch_metric_learning import distances as pml_distances
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.miners import BatchEasyHardMiner
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu

from pml_macl.miners import LabelOverlapMiner

POSITIVE, NEGATIVE = ["all", "easy", "hard", "random"], ["all", "hard", "semihard", "random"]


def sets(labels):
    return [set(row.nonzero().flatten().tolist()) for row in labels]


def as_sets(anchors, others, num_rows):
    pairs = list(zip(anchors.tolist(), others.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    return [{o for a, o in pairs if a == i} for i in range(num_rows)]


@pytest.fixture(params=[False, True], ids=["batch", "references"])
def case(request, generator, device):
    labels, ref_labels = (torch.rand(n, 5, generator=generator) < 0.35 for n in (14, 20))
    labels[0], labels[1] = False, torch.tensor([True, False, False, False, False])
    embeddings, ref_emb = (torch.randn(n, 4, generator=generator) for n in (14, 20))
    inputs = (embeddings, labels, ref_emb, ref_labels) if request.param else (embeddings, labels, None, None)
    return tuple(x if x is None else x.to(device) for x in inputs)


def candidates_and_similarities(case, positive_threshold=0.0, negative_threshold=0.0):
    embeddings, labels, ref_emb, ref_labels = case
    rows = sets(labels)
    ref_rows = rows if ref_labels is None else sets(ref_labels)
    pairs = naive_pairs(rows, ref_rows, positive_threshold, negative_threshold, ref_emb is None)
    others = embeddings if ref_emb is None else ref_emb
    return *pairs, torch.nn.functional.cosine_similarity(embeddings[:, None], others[None], dim=2)


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.5, 0.0), (0.5, 0.3), (0.0, 1.0), (1.0, 1.0)])
def test_all_pairs_equal_a_loop(case, thresholds):
    positives, negatives, _ = candidates_and_similarities(case, *thresholds)
    a1, p, a2, n = LabelOverlapMiner(*thresholds)(*case)
    assert as_sets(a1, p, 14) == positives
    assert as_sets(a2, n, 14) == negatives
    assert a1.device == case[0].device


def naive_choice(candidates, similarity, strategy, limit, chosen_positives=None):
    """Return what a strategy must select for one anchor; None if the choice is random."""
    if strategy == "all":
        return candidates
    limit = 1 if limit is None else limit
    if strategy == "random":
        return None
    if strategy == "semihard":
        if not chosen_positives:
            return set()
        candidates = {j for j in candidates if similarity[j] < min(similarity[k] for k in chosen_positives)}
    return set(sorted(candidates, key=lambda j: similarity[j].item(), reverse=True)[:limit])


@pytest.mark.parametrize("limits", [(None, None), (1, 3), (2, 100)])
@pytest.mark.parametrize(("pos_strategy", "neg_strategy"), list(itertools.product(POSITIVE, NEGATIVE)))
def test_strategies_equal_a_loop(case, pos_strategy, neg_strategy, limits):
    positives, negatives, similarities = candidates_and_similarities(case)
    strategies = (pos_strategy, neg_strategy)
    limits = [None if strategy == "all" else limit for strategy, limit in zip(strategies, limits, strict=True)]
    miner = LabelOverlapMiner(0.0, 0.0, pos_strategy, neg_strategy, *limits)
    a1, p, a2, n = miner(*case)
    found_positives, found_negatives = as_sets(a1, p, 14), as_sets(a2, n, 14)
    for i, similarity in enumerate(similarities):
        preference = -similarity if pos_strategy == "hard" else similarity
        expected = naive_choice(positives[i], preference, pos_strategy, limits[0])
        if expected is None:
            assert found_positives[i] <= positives[i]
            assert len(found_positives[i]) == min(len(positives[i]), limits[0] or 1)
        else:
            assert found_positives[i] == expected
        expected = naive_choice(negatives[i], similarity, neg_strategy, limits[1], found_positives[i])
        if expected is None:
            assert found_negatives[i] <= negatives[i]
            assert len(found_negatives[i]) == min(len(negatives[i]), limits[1] or 1)
        else:
            assert found_negatives[i] == expected


def test_triplets_are_each_positive_with_each_negative(case):
    options = {
        "pos_strategy": "easy",
        "neg_strategy": "hard",
        "max_positives_per_anchor": 2,
        "max_negatives_per_anchor": 3,
    }
    a1, p, a2, n = LabelOverlapMiner(**options)(*case)
    expected = {
        (a, x, y)
        for a, x in zip(a1.tolist(), p.tolist(), strict=True)
        for b, y in zip(a2.tolist(), n.tolist(), strict=True)
        if a == b
    }
    triplets = LabelOverlapMiner(**options, output="triplets")(*case)
    found = list(zip(*(x.tolist() for x in triplets), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected


@pytest.mark.parametrize(
    ("pos_strategy", "neg_strategy"), [("easy", "hard"), ("hard", "hard"), ("hard", "semihard"), ("easy", "semihard")]
)
@pytest.mark.parametrize(
    "distance",
    [
        pml_distances.CosineSimilarity(),
        pml_distances.LpDistance(),
        pml_distances.LpDistance(normalize_embeddings=False),
    ],
)
def test_equals_pml_batch_easy_hard_miner_on_one_hot_labels(pos_strategy, neg_strategy, distance, generator):
    classes = torch.randint(0, 4, (30,), generator=generator)
    embeddings = 10 * torch.randn(30, 4, generator=generator)
    a, p, _, n = BatchEasyHardMiner(pos_strategy, neg_strategy, distance=distance)(embeddings, classes)
    ours = LabelOverlapMiner(pos_strategy=pos_strategy, neg_strategy=neg_strategy, output="triplets", distance=distance)
    found = ours(embeddings, torch.nn.functional.one_hot(classes, 4))
    assert all(torch.equal(x, y) for x, y in zip(found, (a, p, n), strict=True))


def test_all_pairs_equal_pml_on_one_hot_labels(generator):
    classes = torch.randint(0, 4, (30,), generator=generator)
    found = LabelOverlapMiner()(torch.randn(30, 2), torch.nn.functional.one_hot(classes, 4))
    assert all(torch.equal(x, y) for x, y in zip(found, lmu.get_all_pairs_indices(classes), strict=True))
    found = LabelOverlapMiner(output="triplets")(torch.randn(30, 2), torch.nn.functional.one_hot(classes, 4))
    assert all(torch.equal(x, y) for x, y in zip(found, lmu.get_all_triplets_indices(classes), strict=True))


def test_a_negative_as_similar_as_the_positive_is_not_semihard():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])
    _, _, a2, n = LabelOverlapMiner(neg_strategy="semihard")(embeddings, labels)
    assert n[a2 == 0].tolist() == [3]


def test_random_choices_follow_the_seed_and_reach_every_candidate():
    labels = torch.ones(6, 1, dtype=torch.bool)
    miner = LabelOverlapMiner(pos_strategy="random", max_positives_per_anchor=2)
    torch.manual_seed(3)
    first = miner(torch.randn(6, 2), labels)
    torch.manual_seed(3)
    again = miner(torch.randn(6, 2), labels)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    counts = torch.zeros(6, 6)
    for _ in range(300):
        a, p, _, _ = miner(torch.zeros(6, 2), labels)
        counts[a, p] += 1
    expected = 300 * 2 / 5 * (1 - torch.eye(6))
    assert ((counts - expected).abs() < 50).all()  # 6 standard deviations


@pytest.mark.parametrize("output", ["pairs", "triplets"])
@pytest.mark.parametrize("neg_strategy", ["random", "semihard"])
@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_to_mine(rows, neg_strategy, output):
    miner = LabelOverlapMiner(neg_strategy=neg_strategy, max_negatives_per_anchor=2, output=output, collect_stats=True)
    indices = miner(torch.zeros(rows, 3), torch.ones(rows, 2))
    assert [index.tolist() for index in indices] == [[]] * (4 if output == "pairs" else 3)
    assert miner.mean_positive_overlap == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_of_embeddings(dtype, generator):
    labels = torch.rand(14, 5, generator=generator) < 0.35
    embeddings = torch.randn(14, 4, generator=generator).to(dtype)
    miner = LabelOverlapMiner(pos_strategy="hard", neg_strategy="hard", max_negatives_per_anchor=3)
    half, full = miner(embeddings, labels), miner(embeddings.double(), labels.long())
    assert [len(x) for x in half] == [len(x) for x in full]


@pytest.mark.parametrize("make", [pml_losses.ContrastiveLoss, pml_losses.TripletMarginLoss, pml_losses.NTXentLoss])
@pytest.mark.parametrize("output", ["pairs", "triplets"])
def test_before_pml_losses(make, output, generator):
    labels = torch.rand(14, 5, generator=generator) < 0.35
    embeddings = torch.randn(14, 4, generator=generator, requires_grad=True)
    miner = LabelOverlapMiner(neg_strategy="hard", max_negatives_per_anchor=2, output=output)
    loss = make()(embeddings, indices_tuple=miner(embeddings, labels))
    loss.backward()
    assert loss > 0
    assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize("strategy", ["all", "easy"])
def test_collected_stats(case, strategy):
    positives, _, _ = candidates_and_similarities(case)
    miner = LabelOverlapMiner(pos_strategy=strategy, collect_stats=True)
    a1, p, a2, _ = miner(*case)
    rows = sets(case[1])
    ref_rows = rows if case[3] is None else sets(case[3])
    overlaps = [
        len(rows[a] & ref_rows[b]) / len(rows[a] | ref_rows[b]) for a, b in zip(a1.tolist(), p.tolist(), strict=True)
    ]
    assert (miner.num_pos_pairs, miner.num_neg_pairs) == (len(a1), len(a2))
    assert miner.anchors_without_positives == sum(not x for x in positives)
    assert miner.mean_positive_overlap == pytest.approx(sum(overlaps) / len(overlaps))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"positive_threshold": 2}, ValueError, r"positive_threshold must be in \[0, 1\], got 2"),
        ({"negative_threshold": None}, TypeError, "negative_threshold must be a number, got NoneType"),
        ({"pos_strategy": "semihard"}, ValueError, "pos_strategy must be one of 'all', 'easy', 'hard', 'random', got"),
        ({"neg_strategy": "easy"}, ValueError, "neg_strategy must be one of 'all', 'hard', 'semihard', 'random', got"),
        ({"output": "quads"}, ValueError, "output must be one of 'pairs', 'triplets', got 'quads'"),
        ({"max_positives_per_anchor": 0}, ValueError, "max_positives_per_anchor must be at least 1, got 0"),
        ({"max_negatives_per_anchor": 1.5}, TypeError, "max_negatives_per_anchor must be an integer, got 1.5"),
        (
            {"max_positives_per_anchor": 8},
            ValueError,
            "max_positives_per_anchor must be None with pos_strategy='all', .* got 8; set pos_strategy='random' ",
        ),
        (
            {"pos_strategy": "hard", "max_negatives_per_anchor": 3},
            ValueError,
            "max_negatives_per_anchor must be None with neg_strategy='all', .* got 3; set neg_strategy='random' ",
        ),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        LabelOverlapMiner(**kwargs)


def test_bad_calls():
    with pytest.raises(ValueError, match="one row per embedding"):
        LabelOverlapMiner()(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="ref_emb was given without ref_labels"):
        LabelOverlapMiner()(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2))
