import pytest
import torch

from pml_macl import jaccard_similarity
from pml_macl.functional import weighted_jaccard_similarity


@pytest.mark.parametrize("num_classes", [7, 90])  # matrix products, and sums of table rows
def test_equals_the_loop(num_classes, generator):
    labels, ref_labels = (torch.rand(n, num_classes, generator=generator) < 0.2 for n in (9, 12))
    labels[0] = ref_labels[0] = False
    ref_labels[1] = labels[1]
    weights = 10 ** torch.rand(num_classes, generator=generator, dtype=torch.float64).mul(4).sub(2)
    found = weighted_jaccard_similarity(labels.long(), ref_labels, weights)
    for i, row in enumerate(labels.tolist()):
        for j, other in enumerate(ref_labels.tolist()):
            union = sum(w for w, x, y in zip(weights.tolist(), row, other, strict=True) if x or y)
            shared = sum(w for w, x, y in zip(weights.tolist(), row, other, strict=True) if x and y)
            assert found[i, j].item() == pytest.approx(shared / union if shared else 0.0, rel=1e-12, abs=0)
    assert found.max() <= 1


@pytest.mark.parametrize("num_classes", [20, 90])
def test_equal_sets_have_exactly_the_similarity_1(num_classes, generator):
    labels = torch.rand(256, num_classes, generator=generator) < 0.3
    labels[:, 0] |= ~labels.any(dim=1)
    weights = 10 ** torch.rand(num_classes, generator=generator).mul(3)
    assert (weighted_jaccard_similarity(labels, labels, weights).diagonal() == 1).all()
    assert (weighted_jaccard_similarity(labels[:1] & False, labels[:1] & False, weights) == 0).all()


def test_equal_weights_give_the_jaccard_similarity(generator):
    labels = torch.rand(9, 6, generator=generator) < 0.4
    assert torch.equal(weighted_jaccard_similarity(labels, labels, torch.ones(6)), jaccard_similarity(labels))


def test_number_of_weights_is_checked():
    with pytest.raises(ValueError, match=r"labels must have one column per class \(3\), got 2 columns"):
        weighted_jaccard_similarity(torch.eye(2), torch.eye(2), torch.ones(3))
