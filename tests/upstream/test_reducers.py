"""The checks of PML's test suite for reducers, run on each reducer of this package."""

import pytest
import torch
from parts import DTYPES, NUM_CLASSES, REDUCERS, TOLERANCES, make_batch
from pytorch_metric_learning import losses as pml_losses
from pytorch_metric_learning.reducers import MeanReducer, MultipleReducers

from pml_macl.miners import LabelOverlapMiner

every_reducer = pytest.mark.parametrize("name", REDUCERS)
KINDS = ["element", "pos_pair", "neg_pair", "triplet", "already_reduced"]


def make_terms(kind, labels, dtype=torch.float64):
    """Make a dictionary as losses pass it to their reducer, with losses above 0."""
    miner = LabelOverlapMiner(output="triplets" if kind == "triplet" else "pairs")
    indices = {
        "element": lambda: torch.arange(len(labels)),
        "pos_pair": lambda: miner(torch.eye(len(labels)), labels)[:2],
        "neg_pair": lambda: miner(torch.eye(len(labels)), labels)[2:],
        "triplet": lambda: miner(torch.eye(len(labels)), labels),
        "already_reduced": lambda: None,
    }[kind]()
    shape = () if indices is None else len(indices if kind == "element" else indices[0])
    generator = torch.Generator().manual_seed(0)
    losses = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return {"losses": losses.to(dtype).requires_grad_(), "indices": indices, "reduction_type": kind}


@every_reducer
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(name, kind, dtype):
    embeddings, labels = make_batch(dtype=dtype)
    terms = make_terms(kind, labels, dtype)
    value = REDUCERS[name]()({"loss": terms}, embeddings, labels)
    assert value.shape == ()
    assert 0 < value <= terms["losses"].max()
    exact = REDUCERS[name]()({"loss": make_terms(kind, labels)}, *make_batch())
    torch.testing.assert_close(value.double(), exact, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
    value.backward()
    assert terms["losses"].grad.isfinite().all()
    assert terms["losses"].grad.sum() > 0


@every_reducer
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_equal_losses_are_their_own_mean(name, kind):
    embeddings, labels = make_batch()
    terms = make_terms(kind, labels)
    terms["losses"] = torch.full_like(terms["losses"], 3.0)
    value = REDUCERS[name]()({"loss": terms}, embeddings, labels)
    if name == "SimilarityDissimilarityReducer" and kind in ("pos_pair", "triplet"):
        assert 0 < value < 3  # divides by the number of positives, and its weights are at most 1
    else:
        torch.testing.assert_close(value, torch.tensor(3.0, dtype=torch.float64))


@every_reducer
@pytest.mark.parametrize("num_rows", [0, 4])
def test_no_loss_gives_a_differentiable_zero(name, num_rows):
    embeddings, labels = make_batch(num_rows)
    nothing = {"losses": 0, "indices": None, "reduction_type": "already_reduced"}
    value = REDUCERS[name]()({"loss": nothing}, embeddings, labels)
    assert value == 0
    value.backward()
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@every_reducer
@pytest.mark.parametrize("kind", ["element", "pos_pair", "neg_pair", "triplet"])
def test_empty_losses_give_zero(name, kind):
    embeddings, labels = make_batch()
    none = torch.empty(0, dtype=torch.long)
    indices = {"element": none, "triplet": (none, none, none)}.get(kind, (none, none))
    losses = torch.empty(0, dtype=torch.float64, requires_grad=True)
    terms = {"losses": losses, "indices": indices, "reduction_type": kind}
    value = REDUCERS[name]()({"loss": terms}, embeddings, labels)
    assert value == 0
    value.backward()


@every_reducer
def test_in_multiple_reducers(name):
    embeddings, labels = make_batch()
    terms = {"first": make_terms("pos_pair", labels), "second": make_terms("neg_pair", labels)}
    reducer = MultipleReducers({"first": REDUCERS[name]()}, default_reducer=MeanReducer())
    expected = REDUCERS[name]()({"first": terms["first"]}, embeddings, labels) + terms["second"]["losses"].mean()
    torch.testing.assert_close(reducer(terms, embeddings, labels), expected)


@every_reducer
@pytest.mark.parametrize(
    "loss",
    [
        pml_losses.ContrastiveLoss,
        pml_losses.MultiSimilarityLoss,
        pml_losses.NTXentLoss,
        pml_losses.SupConLoss,
        pml_losses.TripletMarginLoss,
    ],
)
def test_in_losses_of_pml_with_class_labels(name, loss):
    embeddings, _ = make_batch()
    value = loss(reducer=REDUCERS[name]())(embeddings, torch.arange(len(embeddings)) % NUM_CLASSES)
    assert value > 0
    value.backward()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.any()


@every_reducer
def test_sizes_that_do_not_fit_are_refused(name):
    embeddings, labels = make_batch()
    terms = make_terms("pos_pair", labels)
    terms["indices"] = (terms["indices"][0][1:], terms["indices"][1])
    with pytest.raises(AssertionError):
        REDUCERS[name]()({"loss": terms}, embeddings, labels)
