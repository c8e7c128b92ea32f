"""The checks of PML's test suite for miners, run on each miner of this package."""

import pytest
import torch
from parts import DTYPES, MINERS, NUM_CLASSES, make_batch
from pytorch_metric_learning import losses as pml_losses

from pml_macl.losses import MACLLoss, MultiLabelLossWrapper
from pml_macl.miners import LabelOverlapMiner

every_miner = pytest.mark.parametrize("name", MINERS)


def mine(name, *batch):
    torch.manual_seed(0)  # for the random choices
    return MINERS[name]()(*batch)


def as_pairs(indices):
    """Return positive and negative pairs, also from triplets."""
    a1, p, a2, n = indices if len(indices) == 4 else (indices[0], indices[1], indices[0], indices[2])
    return list(zip(a1.tolist(), p.tolist(), strict=True)), list(zip(a2.tolist(), n.tolist(), strict=True))


@every_miner
@pytest.mark.parametrize("dtype", DTYPES)
def test_indices_of_rows(name, dtype, device):
    embeddings, labels = make_batch(16, dtype=dtype, device=device)
    indices = mine(name, embeddings, labels)
    assert len(indices) in (3, 4)
    for index in indices:
        assert index.dtype is torch.int64
        assert index.device.type == device.type
        assert index.ndim == 1
        assert not index.requires_grad
        assert len(index) > 0
        assert index.min() >= 0
        assert index.max() < 16


@every_miner
def test_positives_share_labels_and_negatives_do_not(name):
    embeddings, labels = make_batch(16)
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    positives, negatives = as_pairs(mine(name, embeddings, labels))
    assert all(a != p and rows[a] & rows[p] for a, p in positives)
    assert all(a != n and not rows[a] & rows[n] for a, n in negatives)


@every_miner
def test_references_are_where_positives_and_negatives_come_from(name):
    embeddings, labels = make_batch(12)
    references, ref_labels = make_batch(9, seed=1)
    rows = [set(row.nonzero().flatten().tolist()) for row in labels]
    others = [set(row.nonzero().flatten().tolist()) for row in ref_labels]
    positives, negatives = as_pairs(mine(name, embeddings, labels, references, ref_labels))
    assert positives
    assert negatives
    assert all(rows[a] & others[p] for a, p in positives)
    assert all(not rows[a] & others[n] for a, n in negatives)


@pytest.mark.parametrize("name", ["LabelOverlapMiner all all pairs", "LabelOverlapMiner easy hard pairs"])
def test_the_batch_as_its_own_reference_pairs_rows_with_themselves(name):
    embeddings, labels = make_batch()
    a1, p, _, _ = mine(name, embeddings, labels, embeddings, labels)
    assert set(zip(a1.tolist(), p.tolist(), strict=True)) >= {(row, row) for row in range(len(labels))}


@every_miner
@pytest.mark.parametrize("num_rows", [0, 1])
def test_no_pairs_give_empty_indices(name, num_rows):
    indices = mine(name, *make_batch(num_rows))
    assert len(indices) in (3, 4)
    assert all(index.dtype is torch.int64 and len(index) == 0 for index in indices)


@every_miner
def test_no_references_give_empty_indices(name):
    assert all(len(index) == 0 for index in mine(name, *make_batch(), *make_batch(0)))


@every_miner
def test_labels_of_any_type(name):
    embeddings, labels = make_batch()
    expected = mine(name, embeddings, labels)
    for same in (labels.long(), labels.float()):
        assert all(map(torch.equal, mine(name, embeddings, same), expected))


@every_miner
def test_the_number_of_pairs_is_recorded(name):
    miner = MINERS[name]()
    indices = miner(*make_batch(16))
    if len(indices) == 3:
        assert miner.num_triplets == len(indices[0])
    else:
        assert (miner.num_pos_pairs, miner.num_neg_pairs) == (len(indices[0]), len(indices[2]))


@every_miner
@pytest.mark.parametrize(
    "loss_fn",
    [
        MACLLoss(NUM_CLASSES),
        *(MultiLabelLossWrapper(x()) for x in (pml_losses.TripletMarginLoss, pml_losses.CircleLoss)),
    ],
    ids=lambda loss_fn: type(getattr(loss_fn, "loss", loss_fn)).__name__,
)
def test_losses_take_what_the_miner_found(name, loss_fn):
    embeddings, labels = make_batch()
    loss = loss_fn(embeddings, labels, mine(name, embeddings, labels))
    loss.backward()
    assert loss > 0
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.any()


def test_under_autocast_the_hardest_are_the_same(device, generator):
    """The similarities are so close that half precision would order them differently."""
    embeddings = (1 + 0.05 * torch.randn(32, 8, generator=generator)).to(device)
    labels = (torch.rand(32, 4, generator=generator) < 0.3).to(device)
    miner = LabelOverlapMiner(
        pos_strategy="hard", neg_strategy="hard", max_positives_per_anchor=1, max_negatives_per_anchor=1
    )
    expected = miner(embeddings, labels)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert all(map(torch.equal, miner(embeddings, labels), expected))
