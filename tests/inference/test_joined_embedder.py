"""Embeddings joined with the features of the backbone."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from pml_macl.inference import JoinedEmbedder, MultiLabelInferenceModel


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_its_cosine_similarity_is_the_weighted_mean(weight, generator):
    features = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    embedder = torch.nn.Linear(5, 3).double()
    joined = JoinedEmbedder(embedder, weight)(features)
    assert joined.shape == (6, 8)
    assert torch.allclose(joined.norm(dim=1), torch.ones(6, dtype=torch.float64))
    for one in range(6):
        for other in range(6):
            mean = (1 - weight) * cosine_similarity(embedder(features[one]), embedder(features[other]), dim=0)
            mean += weight * cosine_similarity(features[one], features[other], dim=0)
            assert torch.isclose(joined[one] @ joined[other], mean, rtol=1e-12)


def test_search_with_it(generator):
    images, trunk = torch.rand(20, 3, 4, 4, generator=generator), torch.nn.Flatten()
    model = MultiLabelInferenceModel(trunk, JoinedEmbedder(torch.nn.Linear(48, 2), weight=0.5))
    model.index(images)
    assert [found.ids[0] for found in model.search(images, k=1)] == list(range(20))
    assert model.knn_func.index.d == 50


def test_bad_arguments():
    with pytest.raises(TypeError, match="embedder must be a torch module, got function"):
        JoinedEmbedder(lambda features: features)
    with pytest.raises(ValueError, match="weight"):
        JoinedEmbedder(torch.nn.Identity(), 1.5)
