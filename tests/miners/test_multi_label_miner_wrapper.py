"""Wrapped PML miners find the pairs and triplets that loops over Python sets find."""

import inspect
import itertools
import math

import pytest
import torch
from oracles import naive_pairs
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance

from pml_macl.compatibility import PML_MINERS
from pml_macl.losses import MACLLoss, MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper


class Batch:
    """A float64 batch, some rows without labels, with its positives, negatives and distances from naive code."""

    def __init__(self, seed, with_references, threshold):
        generator = torch.Generator().manual_seed(seed)
        sizes = (13, 17) if with_references else (13,)
        self.given, rows = [], []
        for size in sizes:
            labels = torch.rand(size, 5, generator=generator) < 0.35
            labels[0] = False
            self.given += [torch.randn(size, 3, dtype=torch.float64, generator=generator), labels]
            rows.append([set(row.nonzero().flatten().tolist()) for row in labels])
        self.positives, self.negatives = naive_pairs(rows[0], rows[-1], threshold, 1.0, not with_references)
        unit = [x / x.norm(dim=1, keepdim=True) for x in self.given[::2]]
        self.rows, self.others = unit[0], unit[-1]
        self.distance = (self.rows[:, None] - self.others[None]).norm(dim=2).tolist()
        self.cosine = (self.rows @ self.others.T).tolist()

    def positive_pairs(self):
        return {(i, p) for i, found in enumerate(self.positives) for p in found}

    def negative_pairs(self):
        return {(i, n) for i, found in enumerate(self.negatives) for n in found}

    def triplets(self):
        return {
            (i, p, n)
            for i, (positives, negatives) in enumerate(zip(self.positives, self.negatives, strict=True))
            for p, n in itertools.product(positives, negatives)
        }


def angular(batch):
    """PML measures the angle between the embeddings without normalising them."""
    rows, others = batch.given[0], batch.given[-2]

    def angle(i, p, n):
        center = (rows[i] + others[p]) / 2
        return math.atan((rows[i] - others[p]).norm() / (2 * (others[n] - center).norm()))

    return {triplet for triplet in batch.triplets() if angle(*triplet) > math.radians(20)}


def pair_margin(batch):
    far = {(i, p) for i, p in batch.positive_pairs() if batch.distance[i][p] > 0.2}
    return far, {(i, n) for i, n in batch.negative_pairs() if batch.distance[i][n] < 0.8}


def triplet_margin(kind):
    def oracle(batch):
        found = set()
        for i, p, n in batch.triplets():
            margin = batch.distance[i][n] - batch.distance[i][p]
            if {"all": margin <= 0.2, "hard": margin <= 0, "semihard": 0 < margin <= 0.2, "easy": margin > 0.2}[kind]:
                found.add((i, p, n))
        return found

    return oracle


def multi_similarity(batch):
    hard_positives, hard_negatives = set(), set()
    for i, (positives, negatives) in enumerate(zip(batch.positives, batch.negatives, strict=True)):
        if positives and negatives:
            hardest = min(batch.cosine[i][p] for p in positives), max(batch.cosine[i][n] for n in negatives)
            hard_positives |= {(i, p) for p in positives if batch.cosine[i][p] - 0.1 < hardest[1]}
            hard_negatives |= {(i, n) for n in negatives if batch.cosine[i][n] + 0.1 > hardest[0]}
    return hard_positives, hard_negatives


def hardest_half(batch):
    positives = sorted(batch.positive_pairs(), key=lambda pair: -batch.distance[pair[0]][pair[1]])
    negatives = sorted(batch.negative_pairs(), key=lambda pair: batch.distance[pair[0]][pair[1]])
    return set(positives[: math.ceil(len(positives) / 2)]), set(negatives[: math.ceil(len(negatives) / 2)])


def easy_hard(pos_strategy, neg_strategy):
    def choose(distance, candidates, strategy):
        if not candidates:
            return None
        return (max if strategy == "farthest" else min)(candidates, key=distance.__getitem__)

    def oracle(batch):
        positive_side = {"hard": "farthest", "easy": "nearest", "semihard": "farthest"}.get(pos_strategy)
        negative_side = {"hard": "nearest", "easy": "farthest", "semihard": "nearest"}.get(neg_strategy)
        found = set(), set()
        for i, (positives, negatives) in enumerate(zip(batch.positives, batch.negatives, strict=True)):
            distance = batch.distance[i]
            if pos_strategy == "semihard":
                n = choose(distance, negatives, negative_side)
                positives = {p for p in positives if n is not None and distance[p] < distance[n]}
            if neg_strategy == "semihard":
                p = choose(distance, positives, positive_side)
                negatives = {n for n in negatives if p is not None and distance[n] > distance[p]}
            if pos_strategy != "all":
                positives = {choose(distance, positives, positive_side)} - {None}
            if neg_strategy != "all":
                negatives = {choose(distance, negatives, negative_side)} - {None}
            if "all" in (pos_strategy, neg_strategy) or (positives and negatives):
                found[0].update((i, p) for p in positives)
                found[1].update((i, n) for n in negatives)
        return found

    return oracle


def batch_hard(batch):
    positives, negatives = easy_hard("hard", "hard")(batch)
    return {(i, p, n) for i, p in positives for j, n in negatives if i == j}


class OwnMiner(pml_miners.BaseMiner):
    """A user's miner that compares labels and returns all pairs."""

    def mine(self, embeddings, labels, ref_emb, ref_labels):
        equal = labels.unsqueeze(1) == ref_labels.unsqueeze(0)
        if ref_labels is labels:
            equal = equal & ~torch.eye(len(labels), dtype=torch.bool, device=equal.device)
        different = labels.unsqueeze(1) != ref_labels.unsqueeze(0)
        return (*torch.where(equal), *torch.where(different))


def all_pairs(batch):
    return batch.positive_pairs(), batch.negative_pairs()


def packaged(batch):
    return {(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)}


STRATEGIES = [
    pair
    for pair in itertools.product(("hard", "semihard", "easy", "all"), repeat=2)
    if pair not in {("semihard", "semihard"), ("all", "semihard"), ("semihard", "all")}
]
# For each miner that works: constructor and oracle; None if the miner selects correct pairs at random.
WORKING = {
    "AngularMiner": [(pml_miners.AngularMiner, angular)],
    "BaseMiner": [(OwnMiner, all_pairs)],
    "BatchEasyHardMiner": [
        (lambda p=p, n=n: pml_miners.BatchEasyHardMiner(p, n), easy_hard(p, n)) for p, n in STRATEGIES
    ],
    "BatchHardMiner": [(pml_miners.BatchHardMiner, batch_hard)],
    "EmbeddingsAlreadyPackagedAsTriplets": [(pml_miners.EmbeddingsAlreadyPackagedAsTriplets, packaged)],
    "HDCMiner": [(pml_miners.HDCMiner, hardest_half)],
    "MultiSimilarityMiner": [(pml_miners.MultiSimilarityMiner, multi_similarity)],
    "PairMarginMiner": [(pml_miners.PairMarginMiner, pair_margin)],
    "TripletMarginMiner": [
        (lambda kind=kind: pml_miners.TripletMarginMiner(0.2, kind), triplet_margin(kind))
        for kind in ("all", "hard", "semihard", "easy")
    ],
    "UniformHistogramMiner": [(pml_miners.UniformHistogramMiner, None)],
}
CASES = [
    pytest.param(make, oracle, id=f"{name}-{index}")
    for name, cases in WORKING.items()
    for index, (make, oracle) in enumerate(cases)
]


def test_the_list_holds_every_class_of_pml_and_every_class_is_tested():
    exported = {name for name, value in vars(pml_miners).items() if inspect.isclass(value)}
    assert exported == set(PML_MINERS)
    assert set(WORKING) == {name for name, part in PML_MINERS.items() if part.works}
    assert {"DistanceWeightedMiner"} == {name for name, part in PML_MINERS.items() if not part.works}


def as_pairs(indices):
    return set(zip(*(x.tolist() for x in indices), strict=True))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize(("make", "oracle"), CASES)
def test_equals_a_loop(make, oracle, with_references, threshold, device):
    for seed in range(2):
        batch = Batch(seed, with_references, threshold)
        if oracle is packaged:
            batch.given = [x[:12] for x in batch.given]
        found = MultiLabelMinerWrapper(make(), threshold)(*(x.to(device) for x in batch.given))
        assert all(x.dtype is torch.int64 and type(x) is torch.Tensor for x in found)
        if len(found) == 3:
            assert as_pairs(found) == oracle(batch)
            assert oracle is packaged or as_pairs(found) <= batch.triplets()
            assert len(found[0]) == len(as_pairs(found))
            continue
        positives, negatives = as_pairs(found[:2]), as_pairs(found[2:])
        assert positives <= batch.positive_pairs()
        assert negatives <= batch.negative_pairs()
        if oracle is None:
            assert positives
            assert negatives
            continue
        assert len(found[0]) == len(positives)
        assert len(found[2]) == len(negatives)
        if oracle is hardest_half:  # (i, j) and (j, i) are equally hard, and the miner may keep either
            chosen = [sorted(batch.distance[i][j] for i, j in side) for side in (positives, negatives)]
            expected = [sorted(batch.distance[i][j] for i, j in side) for side in oracle(batch)]
            assert all(x == pytest.approx(y) for x, y in zip(chosen, expected, strict=True))
        else:
            assert (positives, negatives) == oracle(batch)


@pytest.mark.parametrize(("make", "oracle"), CASES)
def test_label_types_and_moved_labels(make, oracle, device):
    embeddings, labels = (x[:12] for x in Batch(0, False, 0.0).given)
    expected = None
    for dtype in (torch.bool, torch.int64, torch.float32):
        torch.manual_seed(0)
        found = MultiLabelMinerWrapper(make())(
            embeddings.to(device), labels.to(dtype)
        )  # PML's trainers do not move labels to the device
        expected = expected or found
        assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize(("make", "oracle"), CASES)
def test_batches_without_rows_or_references(make, oracle):
    for rows, references in ((0, None), (0, 3), (3, 0)):
        given = [torch.randn(rows, 4), torch.ones(rows, 2)]
        given += [] if references is None else [torch.randn(references, 4), torch.ones(references, 2)]
        indices = MultiLabelMinerWrapper(make())(*given)
        assert [x.tolist() for x in indices] == [[]] * 4
        assert MACLLoss()(given[0], given[1], indices, *given[2:]) == 0


def without_packaged(cases):
    return [case for case in cases if case.values[1] is not packaged]


@pytest.mark.parametrize(("make", "oracle"), without_packaged(CASES))
@pytest.mark.parametrize("labels", [torch.zeros(6, 3), torch.ones(6, 3), torch.eye(6)])
def test_batches_without_positives_or_negatives(labels, make, oracle):
    indices = MultiLabelMinerWrapper(make())(torch.randn(6, 4), labels)
    sides = (indices[:2], indices[2:]) if len(indices) == 4 else (indices[:2], indices[::2])
    assert all(i != j for side in sides for i, j in as_pairs(side))
    missing = sides[1] if labels.all() else sides[0]
    assert as_pairs(missing) == set()


@pytest.mark.parametrize("make_loss", [pml_losses.TripletMarginLoss, pml_losses.SupConLoss])
@pytest.mark.parametrize(("make", "oracle"), without_packaged(CASES))
def test_before_a_wrapped_loss_and_before_macl(make, oracle, make_loss):
    embeddings, labels = Batch(1, False, 0.0).given
    embeddings.requires_grad_()
    mined = MultiLabelMinerWrapper(make())(embeddings, labels)
    for loss_fn in (MultiLabelLossWrapper(make_loss()), MACLLoss()):
        loss = loss_fn(embeddings, labels, mined)
        loss.backward()
        assert loss.isfinite()


def test_settings_of_the_wrapped_miner_are_used():
    batch = Batch(2, False, 0.0)
    miner = MultiLabelMinerWrapper(pml_miners.BatchHardMiner(distance=CosineSimilarity()))
    assert isinstance(miner.distance, CosineSimilarity)
    assert as_pairs(miner(*batch.given)) == batch_hard(batch)  # cosines rank pairs as distances do


def test_collected_stats():
    batch = Batch(3, False, 0.0)
    inner = pml_miners.PairMarginMiner(collect_stats=True)
    miner = MultiLabelMinerWrapper(inner, collect_stats=True)
    miner(*batch.given)
    distances = [batch.distance[i][p] for i, p in batch.positive_pairs()]
    assert inner.pos_pair_dist == pytest.approx(sum(distances) / len(distances))
    assert miner.num_pos_pairs == inner.num_pos_pairs == len(pair_margin(batch)[0])
    assert miner.num_neg_pairs == inner.num_neg_pairs == len(pair_margin(batch)[1])


def test_inside_multiple_losses():
    embeddings, labels = Batch(4, False, 0.0).given
    miner = MultiLabelMinerWrapper(pml_miners.BatchHardMiner())
    both = pml_losses.MultipleLosses([MACLLoss()], miners=[miner])
    torch.testing.assert_close(both(embeddings, labels), MACLLoss()(embeddings, labels, miner(embeddings, labels)))


class OwnDistanceWeightedMiner(pml_miners.DistanceWeightedMiner):
    pass


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            pml_miners.DistanceWeightedMiner,
            ValueError,
            "DistanceWeightedMiner cannot work .* it picks rows by their uniq",
        ),
        (
            OwnDistanceWeightedMiner,
            ValueError,
            "OwnDistance.* inherits from DistanceWeightedMiner, which picks rows by",
        ),
        (lambda: pml_miners.BatchHardMiner, TypeError, "got type; pass an instance"),
        (pml_losses.NCALoss, TypeError, "miner must be a pytorch_metric_learning miner, got NCALoss"),
        (LabelOverlapMiner, ValueError, "miner must not override forward, .*, but LabelOverlapMiner does"),
    ],
)
def test_miners_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        MultiLabelMinerWrapper(make())


def test_bad_arguments_and_calls():
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got -1"):
        MultiLabelMinerWrapper(pml_miners.HDCMiner(), -1)
    with pytest.raises(TypeError, match="distance belongs to the wrapped miner"):
        MultiLabelMinerWrapper(pml_miners.HDCMiner(), distance=LpDistance())
    miner = MultiLabelMinerWrapper(pml_miners.HDCMiner())
    with pytest.raises(ValueError, match="one row per embedding"):
        miner(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="one_hot"):
        miner(torch.zeros(3, 2), torch.arange(3))
    with pytest.raises(ValueError, match="ref_emb was given without ref_labels"):
        miner(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2))


class UniqueLabels(pml_miners.BaseMiner):
    """A user's miner that needs one class per row."""

    def mine(self, embeddings, labels, ref_emb, ref_labels):
        return tuple(torch.where(labels == label)[0] for label in torch.unique(labels)[:3])


def test_a_miner_of_your_own_that_needs_classes_fails_loudly():
    with pytest.raises(TypeError, match="LabelSets do not support this use of unique"):
        MultiLabelMinerWrapper(UniqueLabels())(torch.randn(6, 4), torch.ones(6, 2))
