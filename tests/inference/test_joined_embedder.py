"""Embeddings joined with the principal components of the backbone's features."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch.nn.functional import cosine_similarity

from pml_macl.inference import JoinedEmbedder, MultiLabelInferenceModel


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_its_cosine_similarity_is_the_weighted_mean(weight, generator):
    features = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    embedder = torch.nn.Linear(5, 3).double()
    joined = JoinedEmbedder.fit(embedder, features, weight, num_components=2)(features)
    assert joined.shape == (9, 5)
    assert torch.allclose(joined.norm(dim=1), torch.ones(9, dtype=torch.float64))
    unit = (features / features.norm(dim=1, keepdim=True)).numpy()
    components = torch.from_numpy(PCA(2, svd_solver="full").fit_transform(unit))
    for one in range(9):
        for other in range(9):
            mean = (1 - weight) * cosine_similarity(embedder(features[one]), embedder(features[other]), dim=0)
            mean += weight * cosine_similarity(components[one], components[other], dim=0)
            assert torch.isclose(joined[one] @ joined[other], mean, rtol=1e-9, atol=1e-12)


def test_gradients_reach_the_embedder_and_the_features(generator):
    """Finite differences, in float64."""
    features = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    joined = JoinedEmbedder.fit(torch.nn.Linear(3, 2).double(), features, num_components=2)
    assert torch.autograd.gradcheck(joined, features.requires_grad_())
    joined(features).sum().backward()
    assert joined.embedder.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("rows", "asked", "kept"), [(20, 64, 5), (3, 64, 2), (20, 4, 4)])
def test_there_are_no_more_axes_than_the_features_have(rows, asked, kept, generator):
    features = torch.randn(rows, 5, generator=generator)
    joined = JoinedEmbedder.fit(torch.nn.Identity(), features, num_components=asked)
    assert joined.axes.shape == (5, kept)
    assert torch.allclose(joined.axes.T @ joined.axes, torch.eye(kept), atol=1e-6)
    assert repr(joined).count(f"num_components={kept}, weight=0.2") == 1


def test_the_state_holds_mean_and_axes(generator):
    features = torch.randn(20, 5, generator=generator)
    joined = JoinedEmbedder.fit(torch.nn.Linear(5, 2), features, num_components=3)
    other = JoinedEmbedder(torch.nn.Linear(5, 2), torch.zeros(5), torch.zeros(5, 3))
    other.load_state_dict(joined.state_dict())
    assert torch.equal(other(features), joined(features))
    assert joined.to(torch.float64)(features.double()).dtype == torch.float64


def test_half_precision_features(generator):
    features = torch.randn(20, 5, generator=generator)
    exact = JoinedEmbedder.fit(torch.nn.Identity(), features, num_components=3)(features)
    half = JoinedEmbedder.fit(torch.nn.Identity(), features.half(), num_components=3)(features.half())
    assert half.dtype == torch.float32
    assert torch.allclose(half @ half.T, exact @ exact.T, atol=0.005)


def test_a_row_of_zeros_in_half_precision(generator):
    """The 1e-12 that normalising adds to the length is 0 in float16."""
    features = torch.randn(20, 5, generator=generator).half()
    joined = JoinedEmbedder.fit(torch.nn.Linear(5, 2, bias=False).half(), features).half()
    assert torch.isfinite(joined(torch.zeros(1, 5).half())).all()


def test_search_with_it(generator):
    images, trunk = torch.rand(20, 3, 4, 4, generator=generator), torch.nn.Flatten()
    embedder = JoinedEmbedder.fit(torch.nn.Linear(48, 2), trunk(images), weight=0.5, num_components=8)
    model = MultiLabelInferenceModel(trunk, embedder)
    model.index(images)
    assert [found.ids[0] for found in model.search(images, k=1)] == list(range(20))
    assert model.knn_func.index.d == 10


def test_bad_arguments():
    features = torch.eye(4)
    with pytest.raises(TypeError, match="embedder must be a torch module, got function"):
        JoinedEmbedder.fit(lambda features: features, features)
    with pytest.raises(ValueError, match="weight"):
        JoinedEmbedder.fit(torch.nn.Identity(), features, 1.5)
    with pytest.raises(ValueError, match=r"axes \(F, K\), got \(3,\) and \(4, 2\)"):
        JoinedEmbedder(torch.nn.Identity(), torch.zeros(3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="features must have at least two rows, got 1"):
        JoinedEmbedder.fit(torch.nn.Identity(), features[:1])
    with pytest.raises(ValueError, match="features must be finite, got NaN or infinity in 4 of 4 rows"):
        JoinedEmbedder.fit(torch.nn.Identity(), features * np.nan)
    with pytest.raises(ValueError, match="features must be a floating-point tensor"):
        JoinedEmbedder.fit(torch.nn.Identity(), torch.eye(4).long())
    with pytest.raises(TypeError, match="num_components must be an integer"):
        JoinedEmbedder.fit(torch.nn.Identity(), features, num_components=2.5)
    with pytest.raises(ValueError, match="num_components must be at least 1, got 0"):
        JoinedEmbedder.fit(torch.nn.Identity(), features, num_components=0)
