"""Properties of all metric functions: one float64 value per query on the input's device, errors name the argument."""

import pytest
import torch

from pml_macl.evaluation import (
    acg,
    anmrr,
    average_precision,
    average_precision_at_r,
    coverage_at_k,
    hamming_loss,
    label_f1,
    label_precision,
    label_recall,
    ndcg,
    precision_at_k,
    r_precision,
    recall_at_k,
    reciprocal_rank,
    weighted_average_precision,
)

RELEVANCE = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
TOTAL = torch.tensor([3, 0, 1])
CALLS = {
    "acg": lambda relevance, total: acg(relevance),
    "anmrr": lambda relevance, total: anmrr(relevance, total, 3),
    "average_precision": lambda relevance, total: average_precision(relevance, total),
    "average_precision_at_r": lambda relevance, total: average_precision_at_r(relevance, total),
    "coverage_at_k": lambda relevance, total: coverage_at_k(relevance, total, 2),
    "hamming_loss": lambda relevance, total: hamming_loss(relevance, total, 2 * relevance, 5),
    "label_f1": lambda relevance, total: label_f1(relevance, total, 2 * relevance),
    "label_precision": lambda relevance, total: label_precision(relevance, 2 * relevance),
    "label_recall": lambda relevance, total: label_recall(relevance, total),
    "ndcg": lambda relevance, total: ndcg(relevance, relevance.sort(dim=-1, descending=True).values),
    "precision_at_k": lambda relevance, total: precision_at_k(relevance, 2),
    "r_precision": lambda relevance, total: r_precision(relevance, total),
    "recall_at_k": lambda relevance, total: recall_at_k(relevance, 2),
    "reciprocal_rank": lambda relevance, total: reciprocal_rank(relevance),
    "weighted_average_precision": lambda relevance, total: weighted_average_precision(relevance, relevance),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_returns_one_float64_value_per_query_for_each_dtype(name, dtype, device):
    values = CALLS[name](RELEVANCE.to(device, dtype), TOTAL.to(device))
    assert values.shape == (3,)
    assert values.dtype is torch.float64
    assert values.device.type == device.type
    torch.testing.assert_close(values, CALLS[name](RELEVANCE.to(device), TOTAL.to(device)), equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_queries_do_not_influence_each_other(name):
    together = CALLS[name](RELEVANCE, TOTAL)
    alone = torch.cat([CALLS[name](RELEVANCE[i : i + 1], TOTAL[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_shape_is_named(name):
    with pytest.raises(ValueError, match=r"\(queries, k\), got \(4,\)"):
        CALLS[name](RELEVANCE[0], TOTAL[:1])


@pytest.mark.parametrize(
    "name",
    [
        "anmrr",
        "average_precision",
        "average_precision_at_r",
        "coverage_at_k",
        "hamming_loss",
        "label_f1",
        "label_recall",
    ],
)
def test_an_argument_with_a_wrong_number_of_queries_is_named(name):
    with pytest.raises(ValueError, match=r"(num_relevant|query_sizes) .*\(3,\), got \(2,\)"):
        CALLS[name](RELEVANCE, TOTAL[:2])
