"""Random retrieval problems that hit the corners of the definitions."""

import pytest
import torch


def random_problem(seed, num_classes=5):
    """Embeddings on a small grid, so that many distances tie exactly, with empty label sets and unseen labels."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator)

    num_queries, num_references = int(integers(1, 12, 1)), int(integers(1, 15, 1))
    query, reference = integers(-2, 3, num_queries, 2).float(), integers(-2, 3, num_references, 2).float()
    density = torch.rand(num_classes, generator=generator) * 0.8
    density[integers(0, num_classes, 1)] = 0  # a label that nobody carries
    query_labels = torch.rand(num_queries, num_classes, generator=generator) < density
    reference_labels = torch.rand(num_references, num_classes, generator=generator) < density
    ref_includes_query = bool(integers(0, 2, 1))
    if ref_includes_query:
        reference = torch.cat([query, reference])
        reference_labels = torch.cat([query_labels, reference_labels])
    return query, query_labels, reference, reference_labels, ref_includes_query


@pytest.fixture(params=range(40))
def problem(request):
    return random_problem(request.param)
