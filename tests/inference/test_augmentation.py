"""Database-side augmentation against a loop."""

import pytest
import torch

from pml_macl.inference import MultiLabelInferenceModel, augment_embeddings


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("power", [0, 1, 3.0])
def test_a_loop_gives_the_same(k, power):
    embeddings = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(embeddings.double(), dim=1)
    for row, found in enumerate(augment_embeddings(embeddings, k, power)):
        similarities = unit @ unit[row]
        nearest = similarities.argsort(descending=True)[: k + 1]
        assert row in nearest
        total = sum(max(float(similarities[j]), 0) ** power * unit[j] for j in nearest)
        assert torch.allclose(found.double(), total / total.norm(), atol=1e-5)


def test_the_index_takes_augmented_embeddings():
    embeddings = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    model, expected = (MultiLabelInferenceModel(torch.nn.Identity()) for _ in range(2))
    model.index(embeddings, augment_k=4)
    expected.index(augment_embeddings(embeddings, 4))
    found, wanted = model.search(embeddings, 5), expected.search(embeddings, 5)
    assert [result.ids for result in found] == [result.ids for result in wanted]


def test_no_embeddings():
    assert augment_embeddings(torch.zeros(0, 3)).shape == (0, 3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="embeddings must be finite, got NaN or infinity in 1 of 2 rows"):
        augment_embeddings(torch.tensor([[1.0, 0.0], [torch.nan, 1.0]]))
    embeddings = torch.randn(4, 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        augment_embeddings(embeddings, 0)
    with pytest.raises(ValueError, match="power must be >= 0"):
        augment_embeddings(embeddings, 1, -1)
    with pytest.raises(ValueError, match="embeddings must be"):
        augment_embeddings(embeddings[0])
