"""Samples that are dictionaries, as torchgeo gives them, give what the same samples as pairs give."""

from operator import itemgetter

import pytest
import torch
from dict_samples import BigEarthNetSamples, train_test_search
from torch.utils.data import TensorDataset

from pml_macl.inference import MultiLabelInferenceModel

SAMPLES = BigEarthNetSamples()


def test_dictionaries_give_what_pairs_give():
    found = train_test_search(SAMPLES, itemgetter("image", "label"))
    assert found[0]["epoch"] == 1
    expected = train_test_search(TensorDataset(SAMPLES.images, SAMPLES.labels), None)
    assert found[:2] == expected[:2]
    assert torch.equal(found[2], expected[2])
    assert torch.equal(found[2], SAMPLES.labels.bool())


def test_a_getter_may_join_parts_of_a_sample():
    class Radar(BigEarthNetSamples):
        """``torchgeo.datasets.BigEarthNetV2(root, bands="all")``, which also gives a mask."""

        def __getitem__(self, index):
            image = self.images[index]
            return {"image_s1": image[:2], "image_s2": image[2:], "mask": image[:1].long(), "label": self.labels[index]}

    def image_and_label(batch):
        return torch.cat([batch["image_s1"], batch["image_s2"]], dim=1), batch["label"]

    assert (
        train_test_search(Radar(), image_and_label)[:2] == train_test_search(SAMPLES, itemgetter("image", "label"))[:2]
    )


def test_dictionaries_without_getter_are_refused():
    model = MultiLabelInferenceModel(torch.nn.Flatten())
    with pytest.raises(
        TypeError, match=r"got dictionaries with the keys \['image', 'label'\]; pass data_and_label_get"
    ):
        model.index(SAMPLES)
    assert len(model) == 0
    with pytest.raises(TypeError, match="data_and_label_getter must be callable or None, got 'image'"):
        MultiLabelInferenceModel(torch.nn.Flatten(), data_and_label_getter="image")
