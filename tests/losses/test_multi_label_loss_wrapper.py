"""Wrapped PML losses have the value and gradient that pairs and triplets from Python sets give."""

import copy
import inspect
import math

import pytest
import torch
from oracles import counts_of, naive_anchor_weight, naive_pair_weight, naive_pairs
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning import miners as pml_miners
from pytorch_metric_learning import reducers as pml_reducers
from pytorch_metric_learning import trainers as pml_trainers
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.regularizers import LpRegularizer
from pytorch_metric_learning.utils import common_functions as c_f
from pytorch_metric_learning.utils import logging_presets
from pytorch_metric_learning.utils import loss_and_miner_utils as lmu
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from torch.utils._python_dispatch import TorchDispatchMode

from pml_macl import LabelSets, LabelStatistics
from pml_macl.compatibility import PML_LOSSES, PML_TRAINERS
from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss, MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner, MultiLabelMinerWrapper
from pml_macl.reducers import FrequencyWeightedReducer


def make_batch(seed, with_references=False, num_rows=14, num_classes=5):
    """Create a float64 batch, some rows without labels, with or without references."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (num_rows, num_rows + 3) if with_references else (num_rows,)
    batch = []
    for size in sizes:
        labels = torch.rand(size, num_classes, generator=generator) < 0.35
        labels[0] = False
        batch += [torch.randn(size, 4, dtype=torch.float64, generator=generator).requires_grad_(), labels]
    return batch if with_references else [*batch, None, None]


def as_sets(labels):
    return [set(row.nonzero().flatten().tolist()) for row in labels]


def naive_positives_negatives(labels, ref_labels, threshold):
    """Return the sets of positives and negatives per anchor; every other row is one or the other."""
    rows = as_sets(labels)
    ref_rows = rows if ref_labels is None else as_sets(ref_labels)
    return naive_pairs(rows, ref_rows, threshold, 1.0, exclude_self=ref_labels is None)


def naive_indices(labels, ref_labels, threshold, kind):
    positives, negatives = naive_positives_negatives(labels, ref_labels, threshold)
    if kind == "triplets":
        found = [(i, p, n) for i in range(len(labels)) for p in sorted(positives[i]) for n in sorted(negatives[i])]
        return tuple(torch.tensor(found).T)
    pairs = [[(i, j) for i, others in enumerate(side) for j in sorted(others)] for side in (positives, negatives)]
    return (*torch.tensor(pairs[0]).T, *torch.tensor(pairs[1]).T)


def by_naive(kind):
    """Compute the loss from naive pairs or triplets, without labels."""

    def oracle(make, embeddings, labels, ref_emb, ref_labels, threshold, mined=None):
        indices = naive_indices(labels, ref_labels, threshold, kind) if mined is None else mined
        return make()(embeddings, None, indices, ref_emb)

    return oracle


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def naive_angular(make, embeddings, labels, ref_emb, ref_labels, threshold, mined=None):
    positives, negatives = naive_positives_negatives(labels, ref_labels, threshold)
    others = embeddings if ref_emb is None else ref_emb
    squared_tan = math.tan(math.radians(40)) ** 2
    terms = []
    pairs = [(i, p) for i, row in enumerate(positives) for p in row]
    for i, p in pairs if mined is None else zip(mined[0].tolist(), mined[1].tolist(), strict=True):
        a, b = unit(embeddings)[i], unit(others)[p]
        away = others[sorted(negatives[i])] @ (a + b)
        exponents = 4 * squared_tan * away - 2 * (1 + squared_tan) * (a @ b)
        terms.append((1 + exponents.exp().sum()).log())
    return torch.stack(terms).mean()


def mined_weights(mined, num_rows):
    """Count how often each row is in the pairs, relative to the most frequent row; 1 for all without pairs."""
    if mined is None:
        return [1.0] * num_rows
    counts = [sum(index.tolist().count(i) for index in mined) for i in range(num_rows)]
    return [count / max(counts) for count in counts]


def naive_fast_ap(make, embeddings, labels, ref_emb, ref_labels, threshold, mined=None):
    positives, negatives = naive_positives_negatives(labels, ref_labels, threshold)
    rows = unit(embeddings)
    terms = []
    for i, row in enumerate(positives):
        if not row:
            continue
        near, far = ((rows[i] - rows[sorted(others)]).square().sum(dim=1) for others in (row, negatives[i]))
        cumulated_positive = cumulated = average_precision = 0
        for edge in range(11):
            positive, negative = (torch.relu(1 - (x - 0.4 * edge).abs() / 0.4).sum() for x in (near, far))
            cumulated_positive, cumulated = cumulated_positive + positive, cumulated + positive + negative
            if cumulated > 0:
                average_precision = average_precision + positive * cumulated_positive / cumulated
        terms.append((1 - average_precision / len(row)) * mined_weights(mined, len(rows))[i])
    return torch.stack(terms).mean()


def naive_nca(make, embeddings, labels, ref_emb, ref_labels, threshold, mined=None):
    positives, negatives = naive_positives_negatives(labels, ref_labels, threshold)
    rows, others = unit(embeddings), unit(embeddings if ref_emb is None else ref_emb)
    terms = []
    for i, row in enumerate(positives):
        if row:
            weights = {j: (-2 * (rows[i] - others[j]).square().sum()).exp() for j in row | negatives[i]}
            term = -(sum(weights[p] for p in row) / sum(weights.values())).log()
            terms.append(term * mined_weights(mined, len(rows))[i])
    return torch.stack(terms).mean()


def naive_ranked_list(make, embeddings, labels, ref_emb, ref_labels, threshold, mined=None):
    positives, negatives = naive_positives_negatives(labels, ref_labels, threshold)
    rows, count = unit(embeddings), len(embeddings)
    alpha, margin, t_positive, t_negative, imbalance = 1.2, 0.4, 2.0, 3.0, 0.3
    terms = []
    for i in range(count):
        distance = {j: (rows[i] - rows[j]).norm() for j in range(count) if j != i}
        far = [j for j in positives[i] if distance[j] > alpha - margin]
        near = [j for j in negatives[i] if distance[j] < alpha]
        w_far = {j: (t_positive * (distance[j] - (alpha - margin))).exp() for j in far}
        w_near = {j: (t_negative * (alpha - distance[j])).exp() for j in near}
        pull = sum((w_far[j] * (distance[j] - (alpha - margin)) for j in far), rows.sum() * 0)
        push = sum((w_near[j] * (alpha - distance[j]) for j in near), rows.sum() * 0)
        pull = pull / (sum(w_far.values()) + 1e-5 * count)
        push = push / (sum(w_near.values()) + 1e-5 * count)
        terms.append((1 - imbalance) * pull + imbalance * push)
    return torch.stack(terms).mean()


class OwnTripletLoss(pml_losses.TripletMarginLoss):
    """A user's subclass of a PML loss."""

    def compute_loss(self, *args):
        loss_dict = super().compute_loss(*args)
        loss_dict["loss"]["losses"] = loss_dict["loss"]["losses"] * 2
        return loss_dict


class OwnLoss(pml_losses.BaseMetricLossFunction):
    """A user's loss on PML's base class."""

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        if indices_tuple is None:
            indices_tuple = lmu.get_all_pairs_indices(labels, ref_labels)
        losses = self.distance(embeddings, ref_emb)[indices_tuple[0], indices_tuple[1]]
        return {"loss": {"losses": losses, "indices": indices_tuple[:2], "reduction_type": "pos_pair"}}


class OwnGenericPairLoss(pml_losses.GenericPairLoss):
    def __init__(self):
        super().__init__(mat_based_loss=False)

    def _compute_loss(self, pos_pairs, neg_pairs, indices_tuple):
        if len(pos_pairs) == 0:
            return self.zero_losses()
        return {"loss": {"losses": pos_pairs, "indices": indices_tuple[:2], "reduction_type": "pos_pair"}}


def smooth_margin_loss():
    return pml_losses.MarginLoss(learn_beta=True, nu=0.1)


def uncommon_supcon():
    return pml_losses.SupConLoss(0.3, distance=LpDistance(), reducer=pml_reducers.MeanReducer())


PAIRS, TRIPLETS = by_naive("pairs"), by_naive("triplets")
# For each loss that works: constructor, oracle, and whether PML accepts references.
WORKING = {
    "AngularLoss": [(pml_losses.AngularLoss, naive_angular, True)],
    "BaseMetricLossFunction": [(OwnLoss, PAIRS, True)],
    "CircleLoss": [(pml_losses.CircleLoss, PAIRS, True)],
    "ContrastiveLoss": [
        (pml_losses.ContrastiveLoss, PAIRS, True),
        (lambda: pml_losses.ContrastiveLoss(0.9, 0.2, distance=CosineSimilarity()), PAIRS, True),
    ],
    "EmbeddingRegularizerMixin": [
        (lambda: pml_losses.ContrastiveLoss(embedding_regularizer=LpRegularizer()), PAIRS, True),
    ],
    "FastAPLoss": [(pml_losses.FastAPLoss, naive_fast_ap, False)],
    "GeneralizedLiftedStructureLoss": [(pml_losses.GeneralizedLiftedStructureLoss, PAIRS, True)],
    "GenericPairLoss": [(OwnGenericPairLoss, PAIRS, True)],
    "HistogramLoss": [(pml_losses.HistogramLoss, TRIPLETS, False)],
    "IntraPairVarianceLoss": [(pml_losses.IntraPairVarianceLoss, PAIRS, True)],
    "LiftedStructureLoss": [(pml_losses.LiftedStructureLoss, PAIRS, True)],
    "MarginLoss": [(pml_losses.MarginLoss, TRIPLETS, True), (smooth_margin_loss, TRIPLETS, True)],
    "MultiSimilarityLoss": [(pml_losses.MultiSimilarityLoss, PAIRS, True)],
    "NCALoss": [(lambda: pml_losses.NCALoss(softmax_scale=2), naive_nca, True)],
    "NTXentLoss": [(pml_losses.NTXentLoss, PAIRS, True)],
    "RankedListLoss": [(lambda: pml_losses.RankedListLoss(0.4, 3.0, 0.3, alpha=1.2, Tp=2.0), naive_ranked_list, False)],
    "SignalToNoiseRatioContrastiveLoss": [(pml_losses.SignalToNoiseRatioContrastiveLoss, PAIRS, True)],
    "SupConLoss": [(pml_losses.SupConLoss, PAIRS, True), (uncommon_supcon, PAIRS, True)],
    "ThresholdConsistentMarginLoss": [(pml_losses.ThresholdConsistentMarginLoss, PAIRS, False)],
    "TripletMarginLoss": [
        (pml_losses.TripletMarginLoss, TRIPLETS, True),
        (lambda: pml_losses.TripletMarginLoss(0.3, smooth_loss=True), TRIPLETS, True),
        (OwnTripletLoss, TRIPLETS, True),
    ],
    "TupletMarginLoss": [(pml_losses.TupletMarginLoss, PAIRS, True)],
}
CASES = [
    pytest.param(make, oracle, takes_references, id=f"{name}-{index}")
    for name, cases in WORKING.items()
    for index, (make, oracle, takes_references) in enumerate(cases)
]


class OwnProxyLoss(pml_losses.ProxyNCALoss):
    pass


class OwnWeightLoss(pml_losses.WeightRegularizerMixin, pml_losses.BaseMetricLossFunction):
    pass


class OwnWrapper(pml_losses.BaseLossWrapper):
    check_loss_support = staticmethod(lambda name: None)


SIZES = {"num_classes": 3, "embedding_size": 4}
REFUSED = {
    "ArcFaceLoss": lambda: pml_losses.ArcFaceLoss(**SIZES),
    "BaseLossWrapper": lambda: OwnWrapper(pml_losses.NCALoss()),
    "CosFaceLoss": lambda: pml_losses.CosFaceLoss(**SIZES),
    "CrossBatchMemory": lambda: pml_losses.CrossBatchMemory(pml_losses.ContrastiveLoss(), 4),
    "DynamicSoftMarginLoss": pml_losses.DynamicSoftMarginLoss,
    "InstanceLoss": pml_losses.InstanceLoss,
    "LargeMarginSoftmaxLoss": lambda: pml_losses.LargeMarginSoftmaxLoss(**SIZES),
    "ManifoldLoss": lambda: pml_losses.ManifoldLoss(4),
    "MultipleLosses": lambda: pml_losses.MultipleLosses([pml_losses.ContrastiveLoss()]),
    "NPairsLoss": pml_losses.NPairsLoss,
    "NormalizedSoftmaxLoss": lambda: pml_losses.NormalizedSoftmaxLoss(**SIZES),
    "P2SGradLoss": lambda: pml_losses.P2SGradLoss(4, 3),
    "PNPLoss": pml_losses.PNPLoss,
    "ProxyAnchorLoss": lambda: pml_losses.ProxyAnchorLoss(**SIZES),
    "ProxyNCALoss": lambda: pml_losses.ProxyNCALoss(**SIZES),
    "SelfSupervisedLoss": lambda: pml_losses.SelfSupervisedLoss(pml_losses.ContrastiveLoss()),
    "SmoothAPLoss": pml_losses.SmoothAPLoss,
    "SoftTripleLoss": lambda: pml_losses.SoftTripleLoss(**SIZES),
    "SphereFaceLoss": lambda: pml_losses.SphereFaceLoss(**SIZES),
    "SubCenterArcFaceLoss": lambda: pml_losses.SubCenterArcFaceLoss(**SIZES),
    "VICRegLoss": pml_losses.VICRegLoss,
    "WeightRegularizerMixin": OwnWeightLoss,
}


def test_the_list_holds_every_class_of_pml_and_every_class_is_tested():
    exported = {name for name, value in vars(pml_losses).items() if inspect.isclass(value)}
    assert exported == set(PML_LOSSES)
    assert set(WORKING) == {name for name, part in PML_LOSSES.items() if part.works}
    assert set(REFUSED) == {name for name, part in PML_LOSSES.items() if not part.works}
    assert all(part.works or part.remark for part in PML_LOSSES.values())


def gradients_of(loss, *leaves):
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if x is None else x for x, leaf in zip(found, leaves, strict=True)]


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize(("make", "oracle", "takes_references"), CASES)
def test_equals_the_naive_pairs_in_value_and_gradient(
    make, oracle, takes_references, with_references, threshold, device
):
    embeddings, labels, ref_emb, ref_labels = make_batch(0, with_references)
    loss_fn = MultiLabelLossWrapper(make(), threshold)
    given = [None if x is None else x.to(device) for x in (embeddings, labels, None, ref_emb, ref_labels)]
    if with_references and not takes_references:
        with pytest.raises(ValueError, match="ref_emb"):
            loss_fn(*given)
        return
    loss = loss_fn(*given)
    expected = oracle(make, embeddings, labels, ref_emb, ref_labels, threshold)
    assert expected.detach().abs() > 1e-6
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-9, atol=1e-12)
    leaves = [embeddings] if ref_emb is None else [embeddings, ref_emb]
    for found, wanted in zip(gradients_of(loss, *leaves), gradients_of(expected, *leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("kind", ["pairs", "triplets"])
@pytest.mark.parametrize(("make", "oracle", "takes_references"), CASES)
def test_pairs_of_a_miner_are_taken_as_they_are(make, oracle, takes_references, kind):
    embeddings, labels, _, _ = make_batch(5)
    labels[0, 0] = True
    mined = LabelOverlapMiner(0.0, 0.0, "random", "random", 2, 3, kind)(embeddings, labels)
    loss_fn = MultiLabelLossWrapper(make())
    if isinstance(loss_fn.loss, pml_losses.RankedListLoss):
        with pytest.raises(ValueError, match="indices_tuple"):
            loss_fn(embeddings, labels, mined)
        return
    loss = loss_fn(embeddings, labels, mined)
    expected = oracle(make, embeddings, labels, None, None, 0.0, mined)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    gradients = (*gradients_of(loss, embeddings), *gradients_of(expected, embeddings))
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", REFUSED)
def test_losses_that_need_one_class_per_row_are_refused_by_name_and_reason(name):
    with pytest.raises(ValueError, match=f"{name}.*") as error:
        MultiLabelLossWrapper(REFUSED[name]())
    assert PML_LOSSES[name].remark in str(error.value)


def test_pnp_loss_would_count_positives_as_negatives():
    """The reason for rejecting it: row 0 has no negatives, but PNPLoss counts its positives 1 and 2 against it."""
    sets = LabelSets(torch.tensor([[1, 1], [1, 0], [0, 1]]))
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    assert pml_losses.PNPLoss()(embeddings, sets) == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: OwnProxyLoss(**SIZES),
            ValueError,
            "OwnProxyLoss cannot work .* inherits from ProxyNCALoss, which learns",
        ),
        (lambda: pml_losses.TripletMarginLoss(swap=True), ValueError, r"TripletMarginLoss\(swap=True\) does not work"),
        (lambda: pml_losses.MarginLoss(num_classes=3), ValueError, r"MarginLoss\(num_classes=3\) does not work"),
        (MACLLoss, ValueError, "loss must not override forward, .*, but MACLLoss does"),
        (lambda: MultiLabelLossWrapper(pml_losses.NCALoss()), ValueError, "but MultiLabelLossWrapper does"),
        (lambda: pml_losses.NCALoss, TypeError, "got type; pass an instance"),
        (lambda: torch.nn.MSELoss(), TypeError, "got MSELoss"),
        (pml_miners.HDCMiner, TypeError, "got HDCMiner"),
        (lambda: None, TypeError, "got NoneType"),
    ],
)
def test_other_losses_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        MultiLabelLossWrapper(make())


def test_a_class_that_pml_adds_later_is_refused():
    later = type("LaterLoss", (pml_losses.ContrastiveLoss,), {"__module__": "pytorch_metric_learning.losses.later"})
    with pytest.raises(ValueError, match="LaterLoss was not tested"):
        MultiLabelLossWrapper(later())


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"threshold": 1.5}, ValueError, r"threshold must be in \[0, 1\], got 1.5"),
        ({"threshold": None}, TypeError, "threshold must be a number, got NoneType"),
        ({"reducer": torch.nn.Identity()}, TypeError, "reducer must be"),
        (
            {"reducer": pml_reducers.ClassWeightedReducer(torch.ones(3))},
            ValueError,
            "but ClassWeightedReducer needs one class per row",
        ),
        ({"distance": LpDistance()}, TypeError, "distance belongs to the wrapped loss"),
        ({"embedding_regularizer": LpRegularizer()}, TypeError, "embedding_regularizer belongs to the wrapped loss"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        MultiLabelLossWrapper(pml_losses.ContrastiveLoss(), **kwargs)


def test_the_reducer_of_the_wrapped_loss_is_checked_too():
    inner = pml_losses.ContrastiveLoss(reducer=pml_reducers.ClassWeightedReducer(torch.ones(3)))
    with pytest.raises(ValueError, match="reducer must work on label sets, but ClassWeightedReducer"):
        MultiLabelLossWrapper(inner)


def bad_calls():
    emb, labels = torch.randn(4, 3), torch.ones(4, 2, dtype=torch.bool)
    index = torch.tensor([0, 1])
    return {
        "class indices": (ValueError, "one_hot", (emb, torch.arange(4))),
        "missing labels": (TypeError, "labels must be", (emb, None)),
        "too few labels": (ValueError, "one row per embedding", (emb, labels[:3])),
        "counts": (ValueError, "only 0 and 1, got 2", (emb, labels.long() * 2)),
        "references without labels": (ValueError, "ref_emb was given without", (emb, labels, None, emb)),
        "references' classes": (ValueError, "one column per class", (emb, labels, None, emb, labels[:, :1])),
        "five indices": (ValueError, "got 5 tensors", (emb, labels, (index,) * 5)),
        "index too large": (ValueError, "from 0 to 3", (emb, labels, (index, index * 4, index, index))),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_bad_calls(name):
    error, message, args = bad_calls()[name]
    with pytest.raises(error, match=message):
        MultiLabelLossWrapper(pml_losses.ContrastiveLoss())(*args)


def test_per_anchor_reducer_is_refused_with_more_references_than_rows():
    embeddings, labels, ref_emb, ref_labels = make_batch(0, with_references=True)
    loss_fn = MultiLabelLossWrapper(pml_losses.NTXentLoss(), reducer=pml_reducers.PerAnchorReducer())
    with pytest.raises(ValueError, match="PerAnchorReducer cannot take more references"):
        loss_fn(embeddings, labels, None, ref_emb, ref_labels)
    assert loss_fn(embeddings, labels) > 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32, torch.float64])
def test_labels_of_any_type_of_the_contract(dtype):
    embeddings, labels, ref_emb, ref_labels = make_batch(1, with_references=True)
    loss_fn = MultiLabelLossWrapper(pml_losses.MultiSimilarityLoss())
    expected = loss_fn(embeddings, labels, None, ref_emb, ref_labels)
    assert torch.equal(loss_fn(embeddings, labels.to(dtype), None, ref_emb, ref_labels.to(dtype)), expected)


@pytest.mark.parametrize(("make", "oracle", "takes_references"), CASES)
@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_batches_without_pairs_give_a_finite_differentiable_loss(rows, make, oracle, takes_references):
    labels = torch.eye(3, dtype=torch.bool)[:rows]
    embeddings = torch.randn(rows, 4, requires_grad=True)
    loss = MultiLabelLossWrapper(make())(embeddings, labels)
    loss.backward()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()
    if rows == 0:
        assert loss == 0
    if takes_references:
        wrapped = make()
        loss = MultiLabelLossWrapper(wrapped)(embeddings, labels, None, embeddings[:0], labels[:0])
        assert loss == (wrapped.embedding_regularization_loss(embeddings)["losses"] if rows else 0)
        assert loss.requires_grad


@pytest.mark.parametrize(("make", "oracle", "takes_references"), CASES)
def test_rows_without_labels_alone_are_all_negatives(make, oracle, takes_references):
    embeddings = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    loss = MultiLabelLossWrapper(make())(embeddings, torch.zeros(5, 3))
    loss.backward()
    assert loss.isfinite()
    if oracle is PAIRS and make is not uncommon_supcon:
        pairs = torch.tensor([(i, j) for i in range(5) for j in range(5) if i != j]).T
        none = torch.empty(0, dtype=torch.long)
        expected = make()(embeddings, None, (none, none, *pairs))
        torch.testing.assert_close(loss, torch.zeros_like(loss) if expected.isnan() else expected)


class TestTripletsPerAnchor:
    @pytest.mark.parametrize("with_references", [False, True])
    @pytest.mark.parametrize("make", [pml_losses.TripletMarginLoss, pml_losses.MarginLoss])
    def test_as_many_correct_triplets_of_each_anchor(self, make, with_references):
        embeddings, labels, ref_emb, ref_labels = make_batch(2, with_references)
        loss_fn = MultiLabelLossWrapper(make(triplets_per_anchor=300), 0.3, reducer=pml_reducers.DoNothingReducer())
        losses = loss_fn(embeddings, labels, None, ref_emb, ref_labels)
        a, p, n = next(iter(losses.values()))["indices"]
        positives, negatives = naive_positives_negatives(labels, ref_labels, 0.3)
        anchors = [i for i in range(len(labels)) if positives[i] and negatives[i]]
        assert a.tolist() == [i for i in anchors for _ in range(300)]
        for candidates, drawn in ((positives, p), (negatives, n)):
            assert set(zip(a.tolist(), drawn.tolist(), strict=True)) == {(i, j) for i in anchors for j in candidates[i]}

    def test_no_anchor_has_a_triplet(self):
        loss_fn = MultiLabelLossWrapper(pml_losses.TripletMarginLoss(triplets_per_anchor=3))
        assert loss_fn(torch.randn(3, 2), torch.ones(3, 2)) == 0


def fwr(**kwargs):
    return FrequencyWeightedReducer(**kwargs)


class TestFrequencyWeightedReducer:
    """The reducer receives the multi-hot labels of both sides and keeps its statistics object."""

    @pytest.mark.parametrize("where", ["in the wrapped loss", "in the wrapper"])
    @pytest.mark.parametrize("with_references", [False, True])
    @pytest.mark.parametrize("name", ["contrastive", "triplet", "supcon"])
    def test_equals_naive_weights(self, name, with_references, where):
        make = {
            "contrastive": lambda **kwargs: pml_losses.ContrastiveLoss(neg_margin=1.3, **kwargs),
            "triplet": lambda **kwargs: pml_losses.TripletMarginLoss(0.5, **kwargs),
            "supcon": pml_losses.SupConLoss,
        }[name]
        embeddings, labels, ref_emb, ref_labels = make_batch(3, with_references)
        counted = torch.rand(40, 5, generator=torch.Generator().manual_seed(9)) < 0.3
        options = {"label_statistics": LabelStatistics.from_labels(counted), "anchor_power": 0.5, "overlap_power": 1.0}
        if where == "in the wrapper":
            loss_fn = MultiLabelLossWrapper(make(), reducer=fwr(**options))
        else:
            loss_fn = MultiLabelLossWrapper(make(reducer=fwr(**options)))
        loss = loss_fn(embeddings, labels, None, ref_emb, ref_labels)

        kind = "triplets" if name == "triplet" else "pairs"
        indices = naive_indices(labels, ref_labels, 0.0, kind)
        terms = make(reducer=pml_reducers.DoNothingReducer())(embeddings, None, indices, ref_emb)
        counts, rows = counts_of(counted), as_sets(labels)
        ref_rows = rows if ref_labels is None else as_sets(ref_labels)
        expected = 0
        for entry in terms.values():
            by_anchor = {}
            indices = [entry["indices"]] if entry["reduction_type"] == "element" else entry["indices"]
            for term, *index in zip(entry["losses"].flatten(), *(x.tolist() for x in indices), strict=True):
                weight = 1.0
                if entry["reduction_type"] in ("pos_pair", "triplet"):
                    weight = naive_pair_weight(rows[index[0]], ref_rows[index[1]], counts, overlap_power=1.0)
                by_anchor.setdefault(index[0], []).append((weight, term))
            anchors = {i: naive_anchor_weight(rows[i], counts, 0.5) for i in by_anchor}
            means = {i: sum(w * t for w, t in x) / sum(w for w, _ in x) for i, x in by_anchor.items()}
            expected = expected + sum(anchors[i] * means[i] for i in means) / sum(anchors.values())
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        leaves = [embeddings] if ref_emb is None else [embeddings, ref_emb]
        for found, wanted in zip(gradients_of(loss, *leaves), gradients_of(expected, *leaves), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)

    def test_given_statistics_are_not_copied(self):
        statistics = LabelStatistics(5)
        inner = pml_losses.ContrastiveLoss(embedding_regularizer=LpRegularizer())
        loss_fn = MultiLabelLossWrapper(inner, reducer=fwr(label_statistics=statistics))
        reducers = [m for m in loss_fn.reducer.modules() if isinstance(m, FrequencyWeightedReducer)]
        assert len(reducers) == 3
        assert all(reducer.label_statistics is statistics for reducer in reducers)
        loss_fn.set_reducer(fwr(label_statistics=LabelStatistics(5)))
        assert all(m is not statistics for m in loss_fn.reducer.modules())
        loss_fn.set_reducer(None)
        assert isinstance(loss_fn.reducer.reducers["pos_loss"], pml_reducers.AvgNonZeroReducer)

    def test_statistics_of_the_batch_without_any_given(self):
        embeddings, labels, _, _ = make_batch(4)
        by_batch = MultiLabelLossWrapper(pml_losses.NTXentLoss(), reducer=fwr())(embeddings, labels)
        statistics = LabelStatistics.from_labels(labels)
        given = MultiLabelLossWrapper(pml_losses.NTXentLoss(), reducer=fwr(label_statistics=statistics))
        torch.testing.assert_close(by_batch, given(embeddings, labels))

    @pytest.mark.parametrize(("make", "oracle", "takes_references"), CASES)
    def test_on_every_loss(self, make, oracle, takes_references):
        embeddings, labels, ref_emb, ref_labels = make_batch(4, with_references=takes_references)
        loss = MultiLabelLossWrapper(make(), reducer=fwr())(embeddings, labels, None, ref_emb, ref_labels)
        loss.sum().backward()
        assert loss.isfinite()
        assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("reducer", ["mean", "sum", "threshold", "multiple", "per_anchor"])
def test_pml_reducers_given_to_the_wrapper_or_to_the_loss(reducer):
    make = {
        "mean": pml_reducers.MeanReducer,
        "sum": pml_reducers.SumReducer,
        "threshold": lambda: pml_reducers.ThresholdReducer(low=0.5),
        "multiple": lambda: pml_reducers.MultipleReducers({"pos_loss": pml_reducers.SumReducer()}),
        "per_anchor": pml_reducers.PerAnchorReducer,
    }[reducer]
    embeddings, labels, _, _ = make_batch(6)
    expected = pml_losses.ContrastiveLoss(reducer=make())(embeddings, None, naive_indices(labels, None, 0, "pairs"))
    outer = MultiLabelLossWrapper(pml_losses.ContrastiveLoss(), reducer=make())
    inner = MultiLabelLossWrapper(pml_losses.ContrastiveLoss(reducer=make()))
    torch.testing.assert_close(outer(embeddings, labels), expected)
    torch.testing.assert_close(inner(embeddings, labels), expected)


def test_the_wrapped_loss_is_left_as_it_was():
    embeddings, labels, _, _ = make_batch(7)
    inner = pml_losses.ContrastiveLoss()
    before = inner(embeddings, labels[:, 0].long())
    loss_fn = MultiLabelLossWrapper(inner, reducer=fwr())
    loss_fn(embeddings, labels)
    assert loss_fn.loss is inner
    assert torch.equal(inner(embeddings, labels[:, 0].long()), before)


def test_state_of_the_wrapped_parts_is_saved_moved_and_learnt(device):
    def make():
        inner = pml_losses.MarginLoss(learn_beta=True, nu=0.1)
        return MultiLabelLossWrapper(inner, reducer=fwr(label_statistics=LabelStatistics(5))).to(device)

    embeddings, labels, _, _ = (None if x is None else x.to(device) for x in make_batch(8))
    trained = make()
    trained.reducer.reducers["margin_loss"].label_statistics.update(labels)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    trained(embeddings, labels).sum().backward()
    optimizer.step()
    assert trained.loss.beta.item() != pytest.approx(1.2)
    restored = make()
    restored.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert torch.equal(restored(embeddings, labels), trained(embeddings, labels))
    assert restored.reducer.reducers["margin_loss"].label_statistics.num_samples == 14


def test_collected_stats_are_those_of_the_parts():
    embeddings, labels, _, _ = make_batch(9)
    inner = pml_losses.AngularLoss(collect_stats=True, reducer=pml_reducers.ThresholdReducer(low=0, collect_stats=True))
    loss_fn = MultiLabelLossWrapper(inner, collect_stats=True)
    loss_fn(embeddings, labels)
    positives, _ = naive_positives_negatives(labels, None, 0)
    assert inner.average_angle > 0
    assert loss_fn.reducer.num_past_filter == sum(len(x) for x in positives)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [pml_losses.SupConLoss, pml_losses.MultiSimilarityLoss, pml_losses.TripletMarginLoss])
def test_under_autocast(make, dtype, device):
    if device.type == "cpu" and dtype is torch.float16 and torch.__version__ < "2.4":
        pytest.skip("float16 autocast on the CPU came with torch 2.4")
    embeddings, labels, _, _ = make_batch(10)
    weight = torch.eye(4, device=device, requires_grad=True)
    inputs = embeddings.detach().float().to(device)
    with torch.autocast(device.type, dtype=dtype):
        loss = MultiLabelLossWrapper(make())(inputs @ weight, labels.to(device))
    loss.backward()
    assert weight.grad.isfinite().all()
    torch.testing.assert_close(
        loss.float().cpu(), MultiLabelLossWrapper(make())(inputs.cpu(), labels), rtol=5e-2, atol=1e-2
    )


def test_the_temperature_scheduled_distance_inside_supcon():
    embeddings, labels, _, _ = make_batch(11)
    distance = TemperatureScheduledSimilarity(0.2)
    loss = MultiLabelLossWrapper(pml_losses.SupConLoss(temperature=1, distance=distance))(embeddings, labels)
    expected = MultiLabelLossWrapper(pml_losses.SupConLoss(temperature=0.2))(embeddings, labels)
    torch.testing.assert_close(loss, expected)


def test_inside_multiple_losses():
    embeddings, labels, _, _ = make_batch(12)
    wrapped, macl = MultiLabelLossWrapper(pml_losses.NTXentLoss()), MACLLoss()
    both = pml_losses.MultipleLosses([wrapped, macl], miners=[LabelOverlapMiner(), None], weights=[1, 0.5])
    torch.testing.assert_close(both(embeddings, labels), wrapped(embeddings, labels) + 0.5 * macl(embeddings, labels))


def test_inside_the_distributed_loss_wrapper_of_one_process():
    embeddings, labels, _, _ = make_batch(13)
    wrapped = MultiLabelLossWrapper(pml_losses.NTXentLoss())
    with pytest.warns(UserWarning, match="non-distributed"):
        loss = DistributedLossWrapper(wrapped)(embeddings, labels)
    assert torch.equal(loss, wrapped(embeddings, labels))


class TensorBytes(TorchDispatchMode):
    """Record the size of the largest tensor that any operation created."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        return result


@pytest.mark.parametrize("make", [pml_losses.NTXentLoss, pml_losses.TripletMarginLoss])
def test_512_rows_train_within_the_memory_of_their_pairs(make, generator):
    labels = torch.rand(512, 17, generator=generator) < 0.2  # about half of all pairs share a label
    embeddings = torch.randn(512, 32, generator=generator, requires_grad=True)
    mined = LabelOverlapMiner(0.0, 0.0, "random", "hard", 4, 8)(embeddings, labels)
    num_positives, num_negatives = len(mined[0]), len(mined[2])
    with TensorBytes() as memory:
        loss = MultiLabelLossWrapper(make())(embeddings, labels, mined)
        loss.backward()
    assert embeddings.grad.abs().sum() > 0
    assert memory.largest <= 4 * max(num_positives * num_negatives, 512 * 512)  # float32; at most 32 MiB


class Multi(torch.nn.Module):
    """A classifier loss on the int64 multi-hot labels of PML's trainers."""

    def forward(self, logits, labels):
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def images_and_labels(num_rows=32):
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(num_rows, 5, generator=generator) < 0.3
    return labels.float() @ torch.randn(5, 6, generator=generator), labels


def trainer_arguments(device, models=None, loss_names=("metric_loss",), miner_names=("tuple_miner",), **kwargs):
    models = {"trunk": torch.nn.Linear(6, 4), **(models or {})}
    losses = {name: MultiLabelLossWrapper(pml_losses.MultiSimilarityLoss()) for name in loss_names}
    return {
        "models": {name: model.to(device) for name, model in models.items()},
        "optimizers": {f"{name}_optimizer": torch.optim.SGD(m.parameters(), lr=0.01) for name, m in models.items()},
        "batch_size": 16,
        "loss_funcs": {name: loss.to(device) for name, loss in losses.items()},
        "dataset": torch.utils.data.TensorDataset(*images_and_labels()),
        "mining_funcs": {name: MultiLabelMinerWrapper(pml_miners.MultiSimilarityMiner()) for name in miner_names},
        "data_device": device,
        "dataloader_num_workers": 0,
        "label_hierarchy_level": "all",
        **kwargs,
    }


class TestTrainers:
    """With ``label_hierarchy_level="all"``, PML's trainers pass int64 multi-hot labels."""

    def assert_trained(self, trainer, *loss_names):
        before = trainer.models["trunk"].weight.detach().clone()
        trainer.train(num_epochs=1)
        assert not torch.equal(trainer.models["trunk"].weight, before)
        for name in loss_names:
            assert isinstance(trainer.loss_funcs[name], MultiLabelLossWrapper)

    def test_every_trainer_of_pml_is_here(self):
        exported = {name for name, value in vars(pml_trainers).items() if inspect.isclass(value)}
        assert exported == set(PML_TRAINERS)
        tested = {name.removeprefix("test_").replace("_", "") for name in vars(TestTrainers)}
        for name in exported - {"BaseTrainer"}:
            assert any(test.startswith(name.lower()) for test in tested), name

    def test_metric_loss_only(self, device):
        self.assert_trained(pml_trainers.MetricLossOnly(**trainer_arguments(device)), "metric_loss")

    def test_the_trainer_gives_the_loss_of_the_naive_pairs(self, device):
        arguments = trainer_arguments(device, miner_names=())
        trainer = pml_trainers.MetricLossOnly(**arguments)
        images, labels = images_and_labels(16)
        trainer.initialize_dataloader()
        trainer.calculate_loss((images, c_f.process_label(labels, "all", trainer.label_mapper)))
        embeddings = trainer.models["trunk"](images.to(device))
        expected = pml_losses.MultiSimilarityLoss()(embeddings, None, naive_indices(labels, None, 0, "pairs"))
        torch.testing.assert_close(trainer.losses["metric_loss"], expected)

    def test_train_with_classifier(self, device):
        arguments = trainer_arguments(device, {"classifier": torch.nn.Linear(4, 5)})
        arguments["loss_funcs"]["classifier_loss"] = Multi()
        self.assert_trained(pml_trainers.TrainWithClassifier(**arguments), "metric_loss")

    def test_cascaded_embeddings(self, device):
        arguments = trainer_arguments(
            device,
            loss_names=("metric_loss_0", "metric_loss_1"),
            miner_names=("tuple_miner_0", "tuple_miner_1"),
            embedding_sizes=[2, 2],
        )
        arguments["mining_funcs"]["tuple_miner_1"] = MultiLabelMinerWrapper(pml_miners.HDCMiner())
        self.assert_trained(pml_trainers.CascadedEmbeddings(**arguments), "metric_loss_0", "metric_loss_1")

    def test_two_stream_metric_loss(self, device):
        images, labels = images_and_labels()
        dataset = torch.utils.data.TensorDataset(images, images + 0.1, labels)
        trainer = pml_trainers.TwoStreamMetricLoss(**trainer_arguments(device, dataset=dataset))
        self.assert_trained(trainer, "metric_loss")

    def test_two_stream_metric_loss_makes_wrong_pairs_without_a_miner(self):
        """On 2-D labels, PML's triplets have a fourth index, the class, so they look like pairs (a1, p, a2, n)."""
        labels = images_and_labels(4)[1].long()
        assert len(lmu.get_all_triplets_indices(labels, labels.clone())) == 4

    def deep_adversarial(self, device, **kwargs):
        arguments = trainer_arguments(
            device,
            {"classifier": torch.nn.Linear(4, 5), "generator": torch.nn.Linear(12, 4)},
            loss_names=("metric_loss", "synth_loss"),
            **kwargs,
        )
        arguments["loss_funcs"].update(classifier_loss=Multi(), g_adv_loss=pml_losses.TripletMarginLoss())
        names = [*arguments["loss_funcs"], "g_hard_loss", "g_reg_loss"]
        return pml_trainers.DeepAdversarialMetricLearning(**arguments, loss_weights=dict.fromkeys(names, 1))

    def test_deep_adversarial_metric_learning_in_its_metric_epochs(self, device):
        self.assert_trained(self.deep_adversarial(device, metric_alone_epochs=1), "metric_loss")

    def test_deep_adversarial_metric_learning_makes_triplets_of_classes_itself(self, device):
        """In its adversarial epochs the trainer itself treats each label as one class and raises an error."""
        trainer = self.deep_adversarial(device, metric_alone_epochs=0)
        with pytest.raises((TypeError, ValueError)):
            trainer.train(num_epochs=1)

    def test_with_hooks_and_record_keeper(self, device, tmp_path):
        for name in ("record_keeper", "tensorboard"):
            pytest.importorskip(name, reason=f"PML's hooks need {name}, of the extra 'examples'")
        records, _, _ = logging_presets.get_record_keeper(str(tmp_path / "records"))
        hooks = logging_presets.get_hook_container(records, log_freq=1)
        arguments = trainer_arguments(device, end_of_iteration_hook=hooks.end_of_iteration_hook)
        inner = pml_losses.ContrastiveLoss(collect_stats=True, embedding_regularizer=LpRegularizer())
        loss_fn = MultiLabelLossWrapper(inner, 0.2, reducer=fwr(label_statistics=LabelStatistics(5)))
        arguments["loss_funcs"]["metric_loss"] = loss_fn
        miner = MultiLabelMinerWrapper(pml_miners.PairMarginMiner(collect_stats=True), 0.2, collect_stats=True)
        arguments["mining_funcs"]["tuple_miner"] = miner
        pml_trainers.MetricLossOnly(**arguments).train(num_epochs=1)
        records.save_records()
        recorded = (tmp_path / "records" / "metric_loss_MultiLabelLossWrapper.csv").read_text().split()
        assert recorded == ["~iteration~,threshold", "0,0.2", "1,0.2"]
