"""What every batch of the label-balanced sampler holds."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from properties.strategies import label_sets

from pml_macl.samplers import LabelBalancedSampler


@settings(max_examples=80)
@given(label_sets(min_rows=1, max_rows=24), st.data())
def test_batches(labels, data):
    assume(labels.any())
    num_images, num_labels = len(labels), int(labels.any(dim=0).sum())
    batch_size = data.draw(st.integers(1, num_images))
    labels_per_batch = data.draw(st.integers(1, min(batch_size, num_labels)))
    every_image = data.draw(st.booleans())
    fewest = -(-num_images // batch_size) if every_image else 1
    length = batch_size * data.draw(st.integers(fewest, fewest + 4))
    seed = data.draw(st.integers(0, 99))
    sampler, again = (
        LabelBalancedSampler(
            labels, batch_size, labels_per_batch, length, every_image, torch.Generator().manual_seed(seed)
        )
        for _ in range(2)
    )
    indices = list(sampler)
    assert indices == list(again)
    assert len(indices) == len(sampler) == length
    if every_image:
        assert set(indices) == set(range(num_images))
        # What is left of a batch after its share of all images.
        batch_rest = batch_size - -(-num_images * batch_size // length)
    else:
        batch_rest = batch_size
    counts = labels.sum(dim=0)
    balanced = counts.clamp(max=batch_rest // labels_per_batch)
    for batch in torch.tensor(indices).view(-1, batch_size):
        assert len(batch.unique()) == batch_size
        # At least as many labels as take their turn reach their number.
        assert int((labels[batch].sum(dim=0) >= balanced)[counts > 0].sum()) >= labels_per_batch
