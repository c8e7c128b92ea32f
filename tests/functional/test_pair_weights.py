import pytest
import torch
from oracles import counts_of, naive_pair_weight

from pml_macl import LabelStatistics
from pml_macl.functional import pairwise_label_weights, sum_over_shared_labels
from pml_macl.labels import label_overlap


@pytest.mark.parametrize("num_classes", [1, 7, 60])
@pytest.mark.parametrize("level", ["cooccurrence", "label"])
@pytest.mark.parametrize(("power", "overlap_power"), [(1.0, 0.0), (0.5, 2.0), (0.0, 1.0), (0.0, 0.0)])
def test_equals_a_loop_over_labels(num_classes, level, power, overlap_power, generator, device):
    labels, ref_labels, train = (torch.rand(n, num_classes, generator=generator) < 0.2 for n in (6, 8, 30))
    statistics, counts = LabelStatistics.from_labels(train), counts_of(train)
    inverse_counts = statistics.inverse_frequency() if level == "label" else statistics.inverse_cooccurrence()
    rows, ref_rows = ([set(row.nonzero().flatten().tolist()) for row in x] for x in (labels, ref_labels))
    labels, ref_labels = labels.to(device), ref_labels.to(device)
    _, jaccard = label_overlap(labels, ref_labels, torch.float64)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        rarity = sum_over_shared_labels(labels, ref_labels, inverse_counts.to(device))
        found = pairwise_label_weights(rarity, jaccard, power, overlap_power)
    expected = [[naive_pair_weight(a, b, counts, power, level, overlap_power) for b in ref_rows] for a in rows]
    found = torch.as_tensor(found, dtype=torch.float64).cpu().expand(6, 8)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)
