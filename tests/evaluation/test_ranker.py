import itertools

import numpy as np
import pytest
import torch
from evaluation_oracles import naive_order

from pml_macl.evaluation import MultiLabelAccuracyCalculator, query_chunks
from pml_macl.evaluation.full_precision import full_precision
from pml_macl.evaluation.ranker import Ranker
from pml_macl.evaluation.retrieval_sets import RetrievalSets
from pml_macl.evaluation.smallest import smallest

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 7, None])
def test_equals_the_loop_with_many_equal_distances(problem, dtype, k, device):
    query, _, reference, _, ref_includes_query = problem
    most = len(reference) - ref_includes_query
    k = most if k is None else min(k, most)
    own_index = torch.arange(len(query), device=device) if ref_includes_query else None
    order = Ranker(reference.to(device, dtype))(query.to(device, dtype), k, own_index)
    assert order.tolist() == [row[:k] for row in naive_order(query, reference, ref_includes_query)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [3, 31, 128])
@pytest.mark.parametrize("k", [50, 300])
def test_equal_references_are_ranked_next_to_each_other_by_index(dtype, size, k, device, generator):
    distinct = torch.randn(60, size, dtype=dtype, generator=generator)
    copies = torch.randint(0, 60, (301,), generator=generator)
    query = torch.randn(17, size, dtype=dtype, generator=generator).to(device)
    order = Ranker(distinct[copies].to(device))(query, k)
    for row in copies[order.cpu()].tolist():
        blocks = [row[0]] + [b for a, b in itertools.pairwise(row) if a != b]
        assert len(blocks) == len(set(blocks)), "copies of a reference are not next to each other"
    same = copies[order.cpu()].diff(dim=1) == 0
    assert (order.cpu().diff(dim=1)[same] > 0).all()


def test_negative_zero_equals_zero(device):
    reference = torch.tensor([[-0.0, 1.0], [0.0, 1.0], [-0.0, 1.0]], device=device)
    assert Ranker(reference)(torch.ones(1, 2, device=device), 3).tolist() == [[0, 1, 2]]


def test_references_that_differ_only_in_the_sign_of_a_zero_share_a_column(device, generator):
    reference = torch.randn(149, 31, generator=generator).to(device)
    reference[:, 0] = 0
    other_sign = reference.clone()
    other_sign[:, 0] = -0.0
    ranker = Ranker(torch.cat([reference, other_sign]))
    assert len(ranker.distinct) == 149
    order = ranker(reference[:17] + 0.1, 298)
    assert order[:, 1::2].equal(order[:, ::2] + 149)


def test_top_k_is_the_start_of_the_full_ranking(device, generator):
    reference = torch.randint(-3, 4, (500, 2), generator=generator).float().to(device)
    query = torch.randint(-3, 4, (40, 2), generator=generator).float().to(device)
    ranker = Ranker(reference)
    full = ranker(query, 500)
    for k in (1, 2, 10, 498, 499):
        assert ranker(query, k).equal(full[:, :k])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sorts_numbers_of_all_magnitudes(dtype, device, generator):
    exponents = 120 * torch.rand(50, 400, dtype=torch.float64, generator=generator) - 60
    keys = (torch.randn(50, 400, dtype=torch.float64, generator=generator) * 2.0**exponents).to(dtype)
    neighbours = torch.nextafter(keys[:, :100], torch.tensor(-torch.inf, dtype=dtype))  # differ in the last bit
    keys = torch.cat([keys, neighbours, keys[:, 100:150], torch.full((50, 1), torch.inf, dtype=dtype)], dim=1)
    keys[:, 7] = 0
    expected = keys.argsort(dim=1, stable=True)
    for k in (1, 60, keys.shape[1]):
        assert Ranker._sort(keys.clone().to(device), k).cpu().equal(expected[:, :k])


def test_embeddings_far_from_0_keep_their_digits(device, generator):
    offsets = torch.randn(200, 8, dtype=torch.float64, generator=generator)
    reference = (1000 + offsets).float()
    query = reference[:20] + 0.5
    expected = torch.cdist(query.double(), reference.double()).argsort(dim=1)
    found = Ranker(reference.to(device))(query.to(device), 200).cpu()
    assert (found == expected).float().mean() > 0.99


def test_the_origin_is_a_central_reference_if_the_data_are_far_from_0(device, generator):
    reference = torch.randn(200, 8, generator=generator).to(device)
    assert Ranker._origin(reference).equal(torch.zeros(8, device=device))
    far = torch.cat([torch.zeros(1, 8, device=device), reference + 3])  # the first one is no good origin
    origin = Ranker._origin(far)
    assert (far == origin).all(dim=1).any()
    assert (origin - far.mean(dim=0)).norm() == (far - far.mean(dim=0)).norm(dim=1).min()


@pytest.mark.parametrize("place", [0, -1])
def test_the_order_of_the_references_does_not_decide_the_ranking(place, device, generator):
    reference = 1000 + torch.randn(100, 8, generator=generator)
    reference[place] = 0
    expected = torch.cdist(reference.double(), reference.double()).argsort(dim=1)[:, :5]
    found = Ranker(reference.to(device))(reference.to(device), 5).cpu()
    assert (found == expected).float().mean() > 0.99


def test_autocast_does_not_change_the_ranking(device, generator):
    reference, query = torch.randn(300, 16, generator=generator), torch.randn(20, 16, generator=generator)
    expected = Ranker(reference.to(device))(query.to(device), 300)
    with torch.autocast(device.type, dtype=torch.bfloat16), full_precision(device.type):
        assert Ranker(reference.to(device))(query.to(device), 300).equal(expected)


@pytest.mark.parametrize("num_threads", [1, 2, 7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_does_not_depend_on_the_number_of_threads(num_threads, dtype, generator, monkeypatch):
    reference, query = (
        torch.randn(40, 4, generator=generator).to(dtype),
        torch.randn(5, 4, generator=generator).to(dtype),
    )
    expected = torch.cdist(query, reference).argsort(dim=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    assert Ranker(reference)(query, 40).equal(expected)


@pytest.mark.parametrize("columns", [7, 64, 65, 200])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_smallest_keys_of_a_block(columns, size, device, generator):
    keys = torch.randint(0, 40, (60, columns), generator=generator).double().to(device)
    values, found = smallest(keys, size)
    assert values.equal(keys.gather(1, found))
    assert values.sort(dim=1).values.equal(keys.sort(dim=1).values[:, :size])
    assert all(len(set(row)) == size for row in found.tolist())


@pytest.mark.parametrize("kind", ["many ties", "copies", "no ties"])
def test_blocks_of_references_do_not_change_the_ranking(kind, device, generator, monkeypatch):
    reference = torch.randn(700, 5, dtype=torch.float64, generator=generator)
    if kind == "many ties":
        reference = reference.round()
    if kind == "copies":
        reference = reference[torch.randint(0, 150, (700,), generator=generator)] + 100
    reference = reference.to(device)
    query, own = reference[100:600:7], torch.arange(100, 600, 7, device=device)
    expected = [Ranker(reference)(query, 699, index) for index in (None, own)]
    monkeypatch.setattr(query_chunks, "REFERENCES_AT_ONCE", 90)
    monkeypatch.setattr(query_chunks, "REFERENCES_PER_RANK", 2)
    for k in (1, 3, 40, 120):
        for order, index in zip(expected, (None, own), strict=True):
            assert Ranker(reference)(query, k, index).equal(order[:, :k])


def test_embeddings_in_mapped_memory_are_not_copied(tmp_path):
    path = tmp_path / "embeddings.npy"
    np.save(path, np.random.default_rng(0).standard_normal((50, 4), dtype=np.float32))
    mapped = np.load(path, mmap_mode="r")
    labels = torch.rand(50, 3) < 0.5
    sets = RetrievalSets.from_arrays(mapped, labels, None, None, False, None)
    assert Ranker(sets.reference).reference.data_ptr() == mapped.ctypes.data
    calculator = MultiLabelAccuracyCalculator(include=("ndcg",))
    expected = calculator.get_accuracy(torch.from_numpy(mapped.copy()), labels)
    assert calculator.get_accuracy(mapped, labels) == expected
