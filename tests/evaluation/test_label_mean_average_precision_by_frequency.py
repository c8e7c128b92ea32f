import pytest
import torch
from evaluation_oracles import naive_by_frequency

from pml_macl.evaluation import label_mean_average_precision_by_frequency


@pytest.mark.parametrize("num_labels", [1, 2, 3, 4, 5, 17, 100])
def test_equals_the_loop(num_labels, generator, device):
    values = torch.rand(num_labels, generator=generator, dtype=torch.float64)
    values[torch.rand(num_labels, generator=generator) < 0.2] = torch.nan
    counts = torch.randint(0, 5, (num_labels,), generator=generator)
    expected = naive_by_frequency(dict(enumerate(values.tolist())), counts.tolist())
    found = label_mean_average_precision_by_frequency(values.to(device), counts.to(device)).tolist()
    assert found == pytest.approx([expected["tail"], expected["middle"], expected["head"]], nan_ok=True)


def test_different_shapes_are_named_in_the_error():
    with pytest.raises(
        ValueError, match=r"must both have one value per class, shape \(classes,\), got \(3,\) and \(2,\)"
    ):
        label_mean_average_precision_by_frequency(torch.ones(3), torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64, torch.float32])
def test_counts_of_any_type(dtype, generator):
    values, counts = torch.rand(100, generator=generator), torch.randperm(100, generator=generator)
    found, expected = (label_mean_average_precision_by_frequency(values, x) for x in (counts.to(dtype), counts))
    assert torch.equal(found, expected)
