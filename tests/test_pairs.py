import pytest
import torch
from oracles import counts_of, naive_pairs

from pml_macl import LabelStatistics, Pairs, pairs


def sets(labels):
    return [set(row.nonzero().flatten().tolist()) for row in labels]


def mask_of(chosen, num_references):
    mask = torch.zeros(len(chosen), num_references, dtype=torch.bool)
    for row, others in enumerate(chosen):
        mask[row, list(others)] = True
    return mask


@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.5, 0.3), (0.5, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_equal_loops_over_sets(with_references, thresholds, dtype, generator, device):
    labels, ref_labels = (torch.rand(n, 5, generator=generator) < 0.4 for n in (9, 7))
    labels[0] = ref_labels[0] = False
    others = sets(ref_labels) if with_references else sets(labels)
    found = Pairs(
        labels.to(device),
        ref_labels.to(device) if with_references else None,
        positive_threshold=thresholds[0],
        negative_threshold=thresholds[1],
        dtype=dtype,
    )
    assert (len(found), found.num_references) == (9, len(others))
    shared = torch.tensor([[len(a & b) for b in others] for a in sets(labels)], dtype=dtype)
    union = torch.tensor([[max(1, len(a | b)) for b in others] for a in sets(labels)], dtype=dtype)
    masks = naive_pairs(sets(labels), others, *thresholds, exclude_self=not with_references)
    positives, negatives = (mask_of(chosen, len(others)) for chosen in masks)
    weights = torch.rand(9, len(others), dtype=dtype, generator=generator)
    for rows in (slice(0, 4), slice(4, None), slice(None)):
        block = found[rows]
        assert torch.equal(block.shared.cpu(), shared[rows])
        torch.testing.assert_close(block.jaccard.cpu(), (shared / union)[rows])
        assert torch.equal(block.positives.cpu(), positives[rows])
        assert torch.equal(block.negatives.cpu(), negatives[rows])
        assert torch.equal(block.sizes.cpu().flatten(), torch.tensor([len(a) for a in sets(labels)[rows]], dtype=dtype))
        assert block.ref_sizes.tolist() == [len(b) for b in others]
        assert torch.equal(block.of_positives(weights[rows].to(device)).cpu(), weights[rows] * positives[rows])
        assert torch.equal(block.of_positives(1.0).cpu(), positives[rows].to(dtype))
        between = ~(positives | negatives)[rows]
        if block.ignored is None:
            assert torch.equal(between, between & torch.eye(9, len(others), dtype=torch.bool)[rows])
        else:
            assert torch.equal(block.ignored.cpu(), between)
    assert found.carriers.tolist() == [sum(k in b for b in others) - (not with_references) for k in range(5)]


def test_row_blocks_cover_every_anchor_once(monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK_ELEMENTS", 30)
    monkeypatch.setattr(pairs, "BLOCK_ROWS", 2)
    labels = torch.ones(11, 2, dtype=torch.bool)
    for num_references, size in ((5, 6), (40, 2), (1, 11)):
        blocks = list(Pairs(labels, torch.ones(num_references, 2, dtype=torch.bool)).row_blocks())
        assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(11))
        assert blocks[0] == slice(0, size)
    assert list(Pairs(labels, labels[:0]).row_blocks()) == []
    assert list(Pairs(labels[:0], labels).row_blocks()) == []


def test_a_miner_replaces_the_thresholds_but_not_own():
    labels = torch.eye(3, dtype=torch.bool)
    indices = tuple(torch.tensor(x) for x in ([0, 1, 2], [0, 2, 2], [0, 1], [1, 1]))
    block = Pairs(labels, indices_tuple=indices)[:]
    assert block.positives.nonzero().tolist() == [[0, 0], [1, 2], [2, 2]]
    assert block.negatives.nonzero().tolist() == [[0, 1], [1, 1]]
    block = Pairs(labels, labels, own=torch.tensor([0, 1, 2]), indices_tuple=indices)[:]
    assert block.positives.nonzero().tolist() == [[1, 2]]
    assert block.negatives.nonzero().tolist() == [[0, 1]]
    assert block.ignored.sum() == 7


def test_statistics_are_computed_once_on_first_access(monkeypatch, generator):
    labels = torch.rand(8, 4, generator=generator) < 0.5
    given = LabelStatistics(4)
    assert Pairs(labels, statistics=given).statistics is given
    made = Pairs(labels)
    assert made.given_statistics is None
    assert made.statistics is made.statistics
    assert made.statistics.cooccurrence.tolist() == counts_of(labels)


def test_sums_of_values(generator):
    labels = torch.rand(4, 3, generator=generator) < 0.7
    by_label, by_pair = torch.rand(3, generator=generator), torch.rand(3, 3, generator=generator)
    block = Pairs(labels)[1:3]
    for i, first in enumerate(sets(labels)[1:3]):
        for j, second in enumerate(sets(labels)):
            shared = sorted(first & second)
            assert block.sum_over_shared(by_label)[i, j].item() == pytest.approx(
                sum(by_label[k].item() for k in shared)
            )
            expected = sum(by_pair[k, m].item() for k in shared for m in shared if k <= m)
            assert block.sum_over_shared(by_pair)[i, j].item() == pytest.approx(expected)


def test_of_positives_does_not_change_the_weights(generator):
    labels = torch.rand(5, 3, generator=generator) < 0.6
    for block in (Pairs(labels)[:], Pairs(labels, positive_threshold=0.5)[:]):
        for weights in (torch.rand(5, 5, generator=generator), block.sum_over_shared(torch.ones(3)), block.jaccard):
            before = weights.clone()
            assert torch.equal(block.of_positives(weights), weights * block.positives)
            assert torch.equal(weights, before)
