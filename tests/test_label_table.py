import pytest
import torch

from pml_macl.functional import sum_over_shared_labels
from pml_macl.label_table import LabelTable, sum_over_shared


def naive_sums(labels, ref_labels, values):
    """Compute the sums with loops over the labels or over the pairs of labels."""
    sums = torch.zeros(len(labels), len(ref_labels), dtype=torch.float64)
    for i, anchor in enumerate(labels.tolist()):
        for j, reference in enumerate(ref_labels.tolist()):
            shared = [k for k in range(len(anchor)) if anchor[k] and reference[k]]
            if values.ndim == 1:
                sums[i, j] = sum(values[k].item() for k in shared)
            else:
                sums[i, j] = sum(values[k, m].item() for k in shared for m in shared if k <= m)
    return sums


@pytest.mark.parametrize("num_classes", [1, 3, 24, 25, 128, 129])
@pytest.mark.parametrize("of_pairs", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_equal_a_loop(num_classes, of_pairs, dtype, generator, device):
    labels = torch.rand(6, num_classes, generator=generator) < min(0.6, 4 / num_classes)
    ref_labels = torch.rand(9, num_classes, generator=generator) < min(0.6, 4 / num_classes)
    labels[0] = ref_labels[0] = False
    labels[1] = True
    ref_labels[1:4] = labels[1:4]
    values = torch.rand(num_classes, num_classes, dtype=torch.float64, generator=generator)
    values = values + values.T if of_pairs else values[0]
    expected = naive_sums(labels, ref_labels, values)
    tables = [LabelTable(x.to(device), dtype) for x in (labels, ref_labels)]
    rtol = 1e-5 if dtype is torch.float32 else 1e-12
    with torch.autocast(device.type, dtype=torch.bfloat16):
        for rows in (slice(0, 4), slice(4, 6), slice(0, 6)):
            sums = sum_over_shared(*tables, rows, values.to(device, dtype))
            assert sums.dtype is dtype
            torch.testing.assert_close(sums.cpu().double(), expected[rows], rtol=rtol, atol=1e-6)
            counts = sum_over_shared(*tables, rows).cpu().double()
            assert torch.equal(counts, naive_sums(labels[rows], ref_labels, torch.ones(num_classes)))
    at_once = sum_over_shared_labels(labels.to(device), ref_labels.to(device), values.to(device, dtype))
    torch.testing.assert_close(at_once.cpu().double(), expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("num_classes", [3, 200])
@pytest.mark.parametrize("of_pairs", [False, True])
@pytest.mark.parametrize(("num_rows", "num_references"), [(4, 5), (0, 5), (4, 0)])
def test_sums_are_0_without_shared_labels(num_classes, of_pairs, num_rows, num_references, device):
    labels = torch.zeros(num_rows, num_classes, dtype=torch.bool, device=device)
    ref_labels = torch.ones(num_references, num_classes, dtype=torch.bool, device=device)
    values = torch.ones((num_classes,) * (1 + of_pairs), device=device)
    assert sum_over_shared_labels(labels, ref_labels, values).equal(
        torch.zeros(num_rows, num_references, device=device)
    )
