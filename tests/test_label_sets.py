"""Compares LabelSets with Python sets, and tests that unsupported operations raise."""

import copy

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pml_macl import LabelSets
from pml_macl.label_sets import COMPARISONS, REARRANGEMENTS


def naive_equal(rows, ref_rows, threshold, same):
    """Compare Python sets; ``same(i, j)`` is true if the pair is a row with itself."""
    return [
        [same(i, j) or (len(a & b) >= 1 and len(a & b) / len(a | b) >= threshold) for j, b in enumerate(ref_rows)]
        for i, a in enumerate(rows)
    ]


def as_sets(labels):
    return [set(row.nonzero().flatten().tolist()) for row in labels]


def random_labels(num_rows, num_classes, generator, density=0.3):
    return torch.rand(num_rows, num_classes, generator=generator) < density


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1 / 3, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("num_classes", [1, 5, 64, 300])
def test_equal_means_share_labels(num_classes, threshold, generator, device):
    labels = random_labels(20, num_classes, generator)
    labels[3] = labels[11] = False
    labels[7] = labels[8]
    sets = LabelSets(labels.to(device), threshold)
    equal = sets.unsqueeze(1) == sets.unsqueeze(0)
    assert type(equal) is torch.Tensor
    assert equal.dtype is torch.bool
    assert equal.device.type == device.type
    assert equal.tolist() == naive_equal(as_sets(labels), as_sets(labels), threshold, lambda i, j: i == j)
    assert torch.equal(sets.unsqueeze(1) != sets.unsqueeze(0), ~equal)
    assert torch.equal(torch.eq(sets.unsqueeze(1), sets), equal)
    assert torch.equal(torch.eq(input=sets.unsqueeze(1), other=sets), equal)
    assert torch.equal(sets.unsqueeze(1).ne(sets), ~equal)
    assert torch.equal(torch.ne(sets[:, None], sets[None]), ~equal)


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_references_share_the_table(threshold, generator):
    labels, ref_labels = random_labels(9, 6, generator), random_labels(14, 6, generator)
    labels[0] = ref_labels[0] = ref_labels[5] = False
    sets, ref_sets = LabelSets.with_references(labels, ref_labels.long(), threshold)
    expected = naive_equal(as_sets(labels), as_sets(ref_labels), threshold, lambda i, j: False)
    assert (sets.unsqueeze(1) == ref_sets.unsqueeze(0)).tolist() == expected
    assert not (sets[0] == ref_sets).any()  # row 0 has no labels, and the two share no row
    assert torch.equal(sets.multi_hot(), labels)
    assert torch.equal(ref_sets.multi_hot(), ref_labels)


def test_any_shape_broadcasts_as_numbers_do(generator):
    labels = random_labels(10, 4, generator)
    sets = LabelSets(labels)
    full = sets.unsqueeze(1) == sets
    anchors, others = torch.randint(0, 10, (50,), generator=generator), torch.randint(0, 10, (50,), generator=generator)
    assert torch.equal(sets[anchors] == sets[others], full[anchors, others])
    assert torch.equal(sets[anchors].unsqueeze(1) != sets.unsqueeze(0), ~full[anchors])
    assert torch.equal(sets[3] == sets, full[3])
    assert torch.equal(sets[2] == sets[5], full[2, 5])
    assert torch.equal(sets.unsqueeze(1) == sets[3], full[:, 3:4])
    assert torch.equal(sets.flip(0).unsqueeze(1) == sets[anchors], full.flip(0)[:, anchors])
    assert torch.equal(sets.unsqueeze(0) == sets.unsqueeze(1), full.T)
    assert torch.equal(sets.view(2, 5, 1) == sets.view(2, 1, 5), torch.stack([full[:5, :5], full[5:, 5:]]))
    assert (sets[:0] == sets[:0]).shape == (0,)
    assert (sets[:0].unsqueeze(1) == sets).shape == (0, 10)


def test_rearrangements_keep_the_label_sets(generator):
    labels = random_labels(10, 4, generator)
    sets = LabelSets(labels, 0.5)
    index = torch.tensor([4, 0, 4])
    for found, expected in [
        (sets[index], labels[index]),
        (sets[2:7:2], labels[2:7:2]),
        (sets[labels[:, 0]], labels[labels[:, 0]]),
        (sets.index_select(0, index), labels[index]),
        (sets.flip(0), labels.flip(0)),
        (torch.cat([sets[5:], sets[:5]], dim=0), torch.cat([labels[5:], labels[:5]])),
        (torch.cat((sets, sets)), torch.cat([labels, labels])),
        (torch.stack(list(sets)), labels),
        (sets.split(4)[1], labels[4:8]),
        (sets.clone().detach().contiguous(), labels),
        (sets.to("cpu").to(torch.int64).cpu(), labels),
        (sets.unsqueeze(1).squeeze(1).view(10).reshape(-1), labels),
        (sets.data, labels),
        (sets[3], labels[3]),
    ]:
        assert isinstance(found, LabelSets)
        assert found.threshold == 0.5
        assert torch.equal(found.multi_hot(), expected)
        assert (found == found).all()
    assert (sets.expand(3, 10) == sets).shape == (3, 10)


def test_it_has_the_attributes_of_an_int64_tensor(device, generator):
    sets = LabelSets(random_labels(10, 4, generator).to(device))
    assert isinstance(sets, torch.Tensor)
    assert torch.is_tensor(sets)
    assert (len(sets), sets.shape, sets.ndim, sets.size(0), sets.numel()) == (10, (10,), 1, 10, 10)
    assert sets.dtype is torch.int64
    assert sets.device.type == device.type
    assert not sets.requires_grad
    assert not sets.is_floating_point()
    assert {sets: 1}[sets] == 1
    assert repr(sets) == str(sets) == f"{sets}" == "LabelSets(shape=(10,), num_classes=4, threshold=0.0)"


def test_moved_label_sets_still_compare(device, generator):
    labels = random_labels(10, 4, generator)
    sets, ref_sets = (x.to(device) for x in LabelSets.with_references(labels[:4], labels[4:]))
    equal = sets.unsqueeze(1) == ref_sets
    assert equal.device.type == device.type
    assert equal.tolist() == naive_equal(as_sets(labels[:4]), as_sets(labels[4:]), 0.0, lambda i, j: False)
    assert sets.multi_hot().device.type == device.type


NO_MEANING = {
    "unique": torch.unique,
    "unique method": lambda s: s.unique(),
    "unique_consecutive": torch.unique_consecutive,
    "sort": torch.sort,
    "argsort": lambda s: s.argsort(),
    "less": lambda s: s < s,
    "greater than a number": lambda s: s > 1,
    "maximum": torch.max,
    "min method": lambda s: s.min(),
    "bincount": torch.bincount,
    "one_hot": torch.nn.functional.one_hot,
    "cross_entropy": lambda s: torch.nn.functional.cross_entropy(torch.zeros(4, 4), s),
    "scatter": lambda s: torch.zeros(4, 4).scatter_(1, s.view(-1, 1), 1),
    "gather": lambda s: torch.zeros(4, 4).gather(1, s.view(-1, 1)),
    "indexing weights": lambda s: torch.rand(9)[s],
    "indexing columns of weights": lambda s: torch.rand(9, 9)[:, s],
    "indexing weights by a row": lambda s: torch.rand(9)[s[0]],
    "setting at the labels": lambda s: torch.zeros(4, 9).__setitem__((torch.arange(4), s), 1),
    "indexing label sets by label sets": lambda s: s[s],
    "equal to a number": lambda s: s == 3,
    "number equal to": lambda s: 3 == s,  # noqa: SIM300  # the order is the test
    "unequal to a number": lambda s: s != 3,
    "equal to class numbers": lambda s: s == torch.arange(4),
    "class numbers equal to": lambda s: torch.arange(4) == s,
    "torch.eq with a number": lambda s: torch.eq(s, 1),
    "equal to None": lambda s: s == None,  # noqa: E711  # the comparison is the test
    "torch.equal": lambda s: torch.equal(s, s),
    "isin": lambda s: torch.isin(s, s),
    "join with numbers": lambda s: torch.cat([s, torch.arange(4)]),
    "join after numbers": lambda s: torch.cat([torch.arange(4), s]),
    "label sets created separately": lambda s: s == LabelSets(s.multi_hot()),
    "join label sets created separately": lambda s: torch.cat([s, LabelSets(s.multi_hot())]),
    "sum": lambda s: s.sum(),
    "addition": lambda s: s + 1,
    "float": lambda s: s.float(),
    "to a float": lambda s: s.to(torch.float32),
    "byte": lambda s: s.byte(),
    "bool": bool,
    "item": lambda s: s[0].item(),
    "int": lambda s: int(s[0]),
    "tolist": lambda s: s.tolist(),
    "numpy": lambda s: s.numpy(),
    "np.asarray": np.asarray,
    "np.unique": lambda s: np.unique(s.cpu().numpy()),
    "zeros_like": torch.zeros_like,
    "setting": lambda s: s.__setitem__(0, 1),
    "fill": lambda s: s.fill_(1),
    "nonzero": torch.nonzero,
    "deepcopy": copy.deepcopy,
    "where": lambda s: torch.where(s),
}


@pytest.mark.parametrize("name", NO_MEANING)
def test_operations_that_need_classes_raise(name, generator):
    sets = LabelSets(random_labels(4, 3, generator))
    with pytest.raises(TypeError, match=r"LabelSets"):
        NO_MEANING[name](sets)


# One typical call of each allowed operation.
ALLOWED = {
    "__getitem__": lambda x: x[[4, 0, 1]],
    "index_select": lambda x: x.index_select(0, torch.tensor([4, 0])),
    "masked_select": lambda x: x.masked_select(torch.arange(6) > 2),
    "cat": lambda x: torch.cat([x, x]),
    "stack": lambda x: torch.stack([x, x]),
    "unbind": lambda x: x.unbind(),
    "split": lambda x: x.split(2),
    "chunk": lambda x: x.chunk(2),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.squeeze(),
    "view": lambda x: x.view(2, 3),
    "reshape": lambda x: x.reshape(3, 2),
    "flatten": lambda x: x.flatten(),
    "expand": lambda x: x.expand(2, 6),
    "repeat": lambda x: x.repeat(2),
    "t": lambda x: x.t(),
    "transpose": lambda x: x.transpose(0, 0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(2),
    "contiguous": lambda x: x.contiguous(),
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(),
    "to": lambda x: x.to("cpu"),
    "cpu": lambda x: x.cpu(),
    "cuda": lambda x: x.cuda(),
    "__get__": lambda x: x.shape,
    "__len__": len,
    "size": lambda x: x.size(),
    "dim": lambda x: x.dim(),
    "numel": lambda x: x.numel(),
    "stride": lambda x: x.stride(),
    "is_contiguous": lambda x: x.is_contiguous(),
    "is_floating_point": lambda x: x.is_floating_point(),
    "get_device": lambda x: x.get_device(),
}


@pytest.mark.parametrize("name", REARRANGEMENTS)
def test_allowed_operations_give_the_same_result_as_on_row_numbers(name, generator):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    labels = random_labels(6, 3, generator)
    found, expected = ALLOWED[name](LabelSets(labels)), ALLOWED[name](torch.arange(6))
    if not isinstance(expected, (tuple, torch.Tensor)) or isinstance(expected, torch.Size):
        assert found == expected
        return
    parts = [(found, expected)] if isinstance(expected, torch.Tensor) else zip(found, expected, strict=True)
    for part, rows in parts:
        if isinstance(rows, torch.Tensor):
            assert isinstance(part, LabelSets)
            assert torch.equal(part.multi_hot().cpu(), labels[rows.cpu()])
        else:
            assert part == rows


@pytest.mark.parametrize("name", [*COMPARISONS, *REARRANGEMENTS])
def test_this_torch_knows_every_allowed_name(name):
    getter = type(torch.Tensor.shape)  # __get__ belongs to the descriptor of an attribute
    assert any(hasattr(place, name) for place in (torch.Tensor, torch, getter))


def test_label_sets_share_the_memory_of_their_rows_and_are_made_under_dispatch_modes():
    rows, table = torch.arange(3), torch.eye(3).bool()
    with LargestTensor():
        sets = LabelSets._of_rows(rows, table, 0.0)
    assert type(sets) is LabelSets
    assert not sets.requires_grad
    with torch._C.DisableTorchFunctionSubclass():
        assert sets.data_ptr() == rows.data_ptr()


def test_label_sets_without_the_private_function_of_torch(monkeypatch, generator):
    labels = random_labels(6, 3, generator)
    monkeypatch.setattr(torch.Tensor, "_make_subclass", None, raising=False)
    sets = LabelSets(labels)
    assert type(sets) is LabelSets
    assert torch.equal(sets.flip(0).multi_hot(), labels.flip(0))
    assert (sets.unsqueeze(1) == sets).tolist() == naive_equal(
        as_sets(labels), as_sets(labels), 0.0, lambda i, j: i == j
    )


def test_sets_of_one_tensor_made_separately_do_not_compare():
    labels = torch.eye(3, dtype=torch.bool)
    sets = LabelSets(labels)
    with pytest.raises(TypeError, match="created together"):
        _ = sets == LabelSets(labels)
    labels[:] = True
    assert torch.equal(sets.multi_hot(), torch.eye(3, dtype=torch.bool))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\], got 2"):
        LabelSets(torch.ones(2, 2), 2)
    with pytest.raises(ValueError, match="one_hot"):
        LabelSets(torch.arange(3))
    with pytest.raises(ValueError, match="only 0 and 1, got 2"):
        LabelSets(torch.full((2, 2), 2))
    with pytest.raises(ValueError, match=r"ref_labels must have one column per class \(2\), got 3"):
        LabelSets.with_references(torch.ones(2, 2), torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_rows_or_no_classes(shape):
    sets = LabelSets(torch.zeros(shape))
    assert torch.equal(sets.unsqueeze(1) == sets, torch.eye(shape[0], dtype=torch.bool))


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor that an operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_comparison_needs_memory_for_the_pairs_of_rows_only(threshold, generator):
    sets, ref_sets = LabelSets.with_references(
        random_labels(300, 500, generator, 0.01), random_labels(400, 500, generator, 0.01), threshold
    )
    with LargestTensor() as matrix:
        assert (sets.unsqueeze(1) == ref_sets.unsqueeze(0)).shape == (300, 400)
    assert matrix.bytes <= 8 * 300 * 400  # 8 bytes per pair of rows, whatever the number of classes
    pairs = torch.randint(0, 300, (2, 20000), generator=generator)
    with LargestTensor() as listed:
        assert (sets[pairs[0]] == sets[pairs[1]]).shape == (20000,)
    assert listed.bytes <= 8 * 300 * 300
