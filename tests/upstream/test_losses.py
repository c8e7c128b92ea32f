"""The checks of PML's test suite for losses, run on each loss of this package."""

import copy

import pytest
import torch
from parts import DTYPES, LOSSES, NUM_CLASSES, OF_THE_BATCH, OWN_LOSSES, TOLERANCES, WRAPPED_LOSSES, make_batch
from pytorch_metric_learning import distances, reducers, regularizers
from pytorch_metric_learning.losses import MultipleLosses

from pml_macl.losses import MultiLabelCrossBatchMemory
from pml_macl.miners import LabelOverlapMiner

every_loss = pytest.mark.parametrize("name", LOSSES)
own_loss = pytest.mark.parametrize("name", OWN_LOSSES)


def gradient(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@every_loss
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(name, dtype, device):
    embeddings, labels = make_batch(dtype=dtype, device=device)
    exact, _ = make_batch(device=device)
    loss, expected = LOSSES[name]().to(device)(embeddings, labels), LOSSES[name]().to(device)(exact, labels)
    tolerance = TOLERANCES[dtype]
    if name == "wrapped NTXentLoss" and dtype is torch.float16:
        tolerance = 0.2  # PML adds 1e-4 inside the logarithm
    assert loss.shape == ()
    assert expected > 0
    torch.testing.assert_close(loss.double(), expected.double(), rtol=tolerance, atol=tolerance)
    found, wanted = gradient(loss, embeddings)[0], gradient(expected, exact)[0]
    assert found.dtype is dtype
    assert (found.double() - wanted).norm() <= 3 * tolerance * wanted.norm()


@every_loss
def test_integer_and_float_labels_are_the_boolean_ones(name):
    embeddings, labels = make_batch()
    expected = LOSSES[name]()(embeddings, labels)
    for same in (labels.long(), labels.float(), labels.to(torch.uint8)):
        assert LOSSES[name]()(embeddings, same) == expected


@every_loss
@pytest.mark.parametrize("num_rows", [0, 1])
def test_no_pairs_give_a_differentiable_zero(name, num_rows):
    embeddings, labels = make_batch(num_rows)
    loss = LOSSES[name]()(embeddings, labels)
    assert loss == 0
    loss.backward()
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@every_loss
def test_empty_references_give_a_differentiable_zero(name):
    embeddings, labels = make_batch()
    references, ref_labels = make_batch(0)
    loss = LOSSES[name]()(embeddings, labels, ref_emb=references, ref_labels=ref_labels)
    assert loss == 0
    loss.backward()
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


@own_loss
def test_without_a_shared_label_the_loss_is_0(name):
    embeddings, _ = make_batch(NUM_CLASSES)
    loss = LOSSES[name]()(embeddings, torch.eye(NUM_CLASSES))
    assert loss == 0
    loss.backward()


@every_loss
def test_references_are_where_positives_and_negatives_come_from(name):
    embeddings, labels = make_batch(12)
    references, ref_labels = make_batch(9, seed=1)
    loss = LOSSES[name]()(embeddings, labels, ref_emb=references, ref_labels=ref_labels)
    found = gradient(loss, embeddings, references)
    assert all(grad.isfinite().all() and grad.any() for grad in found)
    if name not in OF_THE_BATCH:
        # The same pairs as rows of one large batch.
        pairs = LabelOverlapMiner(positive_threshold=threshold(name), negative_threshold=1)(
            embeddings, labels, references, ref_labels
        )
        moved = (pairs[0], pairs[1] + 12, pairs[2], pairs[3] + 12)
        joint = LOSSES[name]()(torch.cat([embeddings, references]), torch.cat([labels, ref_labels]), moved)
        torch.testing.assert_close(joint, loss)
        for one, other in zip(gradient(joint, embeddings, references), found, strict=True):
            torch.testing.assert_close(one, other)


def threshold(name):
    return {"MultiSupConLoss": 0.5, "SupConExactLoss": 1}.get(name, 0)


@every_loss
def test_all_pairs_of_a_miner_change_nothing(name):
    embeddings, labels = make_batch()
    pairs = LabelOverlapMiner(positive_threshold=threshold(name), negative_threshold=1)(embeddings, labels)
    expected = LOSSES[name]()(embeddings, labels)
    loss = LOSSES[name]()(embeddings, labels, pairs)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(expected, embeddings))


@every_loss
@pytest.mark.parametrize("output", ["pairs", "triplets"])
def test_fewer_pairs_are_another_loss(name, output):
    embeddings, labels = make_batch()
    miner = LabelOverlapMiner(
        pos_strategy="hard", neg_strategy="hard", output=output, positive_threshold=threshold(name)
    )
    indices = miner(embeddings, labels)
    loss = LOSSES[name]()(embeddings, labels, indices)
    assert (gradient(loss, embeddings)[0].norm(dim=1) > 0).any()
    assert loss != LOSSES[name]()(embeddings, labels)


@every_loss
def test_autocast(name, device):
    embeddings, labels = make_batch(dtype=torch.float32, device=device)
    layer = torch.nn.Linear(8, 8, bias=False, device=device)
    torch.nn.init.orthogonal_(layer.weight)
    expected = LOSSES[name]().to(device)(layer(embeddings), labels)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        outputs = layer(embeddings)
        loss = LOSSES[name]().to(device)(outputs, labels)
    assert outputs.dtype is torch.bfloat16
    tolerance = TOLERANCES[torch.bfloat16]
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    # The loss itself computes in float32.
    torch.testing.assert_close(loss, LOSSES[name]().to(device)(outputs.detach().float(), labels), rtol=1e-6, atol=1e-6)
    loss.backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.any()


@every_loss
def test_the_order_of_the_rows_does_not_matter(name):
    embeddings, labels = make_batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
    loss = LOSSES[name]()(embeddings[order], labels[order])
    expected = LOSSES[name]()(embeddings, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(expected, embeddings))


@own_loss
@pytest.mark.parametrize(
    "reducer",
    [
        reducers.AvgNonZeroReducer,
        reducers.MeanReducer,
        reducers.PerAnchorReducer,
        reducers.SumReducer,
        lambda: reducers.ThresholdReducer(low=0.5),
        lambda: reducers.MultipleReducers({"loss": reducers.SumReducer()}),
    ],
)
def test_reducers_of_pml(name, reducer):
    embeddings, labels = make_batch()
    terms = LOSSES[name](reducer=reducers.DoNothingReducer())(embeddings, labels)["loss"]
    loss = LOSSES[name](reducer=reducer())(embeddings, labels)
    values = terms["losses"]
    expected = {
        "AvgNonZeroReducer": lambda: values[values > 0].mean(),
        "MeanReducer": lambda: values.mean(),
        "SumReducer": lambda: values.sum(),
        "MultipleReducers": lambda: values.sum(),
        "ThresholdReducer": lambda: values[values > 0.5].mean(),
        "PerAnchorReducer": lambda: (
            torch.stack([values[terms["indices"][0] == anchor].mean() for anchor in terms["indices"][0].unique()]).sum()
            / len(labels)
        ),  # an anchor without positives counts as 0
    }[type(reducer()).__name__]()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert embeddings.grad.any()


@own_loss
@pytest.mark.parametrize(
    "distance",
    [
        distances.CosineSimilarity,
        lambda: distances.DotProductSimilarity(normalize_embeddings=False),
        distances.LpDistance,
        lambda: distances.LpDistance(normalize_embeddings=False, p=1),
        distances.SNRDistance,
    ],
)
def test_distances_of_pml(name, distance):
    embeddings, labels = make_batch()
    loss = LOSSES[name](distance=distance())(embeddings, labels)
    assert loss > 0
    loss.backward()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.any()


@own_loss
def test_embedding_regularizer(name):
    embeddings, labels = make_batch()
    plain = LOSSES[name]()(embeddings, labels)
    loss_fn = LOSSES[name](embedding_regularizer=regularizers.LpRegularizer(), embedding_reg_weight=0.5)
    torch.testing.assert_close(loss_fn(embeddings, labels), plain + 0.5 * embeddings.norm(dim=1).mean())


@own_loss
def test_collected_stats(name):
    embeddings, labels = make_batch()
    loss_fn = LOSSES[name](collect_stats=True)
    torch.testing.assert_close(loss_fn(embeddings, labels), LOSSES[name]()(embeddings, labels))
    shared = (labels.double() @ labels.double().T).fill_diagonal_(0)
    assert loss_fn.num_pos_pairs <= (shared > 0).sum()
    assert loss_fn.num_pos_pairs > 0
    assert 0 < loss_fn.mean_positive_overlap <= 1


@every_loss
def test_in_multiple_losses(name):
    embeddings, labels = make_batch()
    both = MultipleLosses([LOSSES[name](), LOSSES[name]()], weights=[1, 2])
    torch.testing.assert_close(both(embeddings, labels), 3 * LOSSES[name]()(embeddings, labels))


@every_loss
def test_in_a_memory(name):
    loss_fn = MultiLabelCrossBatchMemory(LOSSES[name](), embedding_size=8, num_classes=NUM_CLASSES, memory_size=20)
    embeddings, labels = make_batch()
    first = loss_fn(embeddings, labels)
    if name != "MulSupConLoss":  # it counts labels in the queue, which includes the anchor's own copy
        torch.testing.assert_close(first, LOSSES[name]()(embeddings, labels))  # the queue holds the batch alone
    second, second_labels = make_batch(10, seed=1)
    loss = loss_fn(second, second_labels)
    loss.backward()
    assert second.grad.isfinite().all()
    assert second.grad.any()
    assert loss_fn.has_been_filled


@every_loss
def test_copies_and_saved_states_go_on_alike(name):
    embeddings, labels = make_batch()
    loss_fn = LOSSES[name]()
    loss_fn(embeddings, labels)
    twin, restored = copy.deepcopy(loss_fn), LOSSES[name]()
    restored.load_state_dict(loss_fn.state_dict())
    batch = make_batch(seed=1)
    expected = loss_fn(*batch)
    assert twin(*batch) == expected
    assert restored(*batch) == expected


@every_loss
def test_wrong_labels_are_refused(name):
    embeddings, labels = make_batch()
    for wrong in (labels[:-1], labels[:, 0].long(), labels.long() + 1):
        with pytest.raises(ValueError, match="labels"):
            LOSSES[name]()(embeddings, wrong)


def test_wrapped_losses_have_the_value_of_pml_on_one_hot_labels():
    embeddings, _ = make_batch()
    classes = torch.arange(len(embeddings)) % NUM_CLASSES
    for name, wrapped in WRAPPED_LOSSES.items():
        loss = wrapped()
        torch.testing.assert_close(
            loss(embeddings, torch.nn.functional.one_hot(classes)), loss.loss(embeddings, classes), msg=name
        )
