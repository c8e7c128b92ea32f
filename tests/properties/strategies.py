"""What hypothesis draws: label sets bit by bit, so that they shrink, and embeddings from a seed and a kind."""

import torch
from hypothesis import strategies as st

EMBEDDINGS = ("normal", "grid", "alike", "identical", "zero", "huge", "tiny")


@st.composite
def label_sets(draw, min_rows=1, max_rows=10, num_classes=None, min_labels=0):
    """(N, C) boolean label sets with repeated and empty rows and labels that nobody carries."""
    num_classes = draw(st.integers(1, 6)) if num_classes is None else num_classes
    codes = st.integers(min(min_labels, 1), 2**num_classes - 1)
    rows = draw(st.lists(codes, min_size=min_rows, max_size=max_rows))
    return torch.tensor([[code >> bit & 1 for bit in range(num_classes)] for code in rows]).bool().view(-1, num_classes)


@st.composite
def embeddings_of(draw, num_rows, size=None, kinds=("normal",), first_seed=0):
    """(N, D) float64 embeddings of a kind; all but "zero" and "grid" are far from the zero vector."""
    size = draw(st.integers(2, 5)) if size is None else size
    generator = torch.Generator().manual_seed(first_seed + draw(st.integers(0, 2**16)))
    normal = torch.randn(num_rows, size, generator=generator, dtype=torch.float64)
    return {
        "normal": normal,
        "grid": normal.round(),  # with ties and zero rows
        "alike": 1 + 1e-9 * normal,
        "identical": torch.ones_like(normal),
        "zero": torch.zeros_like(normal),
        "huge": 1e15 * normal,
        "tiny": 1e-6 * normal,
    }[draw(st.sampled_from(kinds))]


@st.composite
def batches(draw, min_rows=2, max_rows=8, kinds=("normal",), references=None, min_labels=0):
    """Embeddings and labels of a batch, and of its references or None for both."""
    labels = draw(label_sets(min_rows, max_rows, min_labels=min_labels))
    embeddings = draw(embeddings_of(len(labels), kinds=kinds))
    references = draw(st.booleans()) if references is None else references
    if not references:
        return embeddings, labels, None, None
    ref_labels = draw(label_sets(min_rows, max_rows, labels.shape[1], min_labels))
    # Seeds of their own: a reference that equals an anchor would be a kink of the losses on distances.
    ref_emb = draw(embeddings_of(len(ref_labels), embeddings.shape[1], kinds, first_seed=2**20))
    return embeddings, labels, ref_emb, ref_labels


def orders_of(num_items):
    """A permutation as a tensor."""
    return st.permutations(range(num_items)).map(lambda order: torch.tensor(order, dtype=torch.long))


def sets_of(labels):
    return [set(row.nonzero().flatten().tolist()) for row in labels]
