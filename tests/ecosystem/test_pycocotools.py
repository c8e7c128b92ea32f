"""DetectionLabels in torchvision's CocoDetection, which reads the annotations with pycocotools."""

import json

import pytest
import torch
from PIL import Image

from pml_macl.datasets import DetectionLabels

pytest.importorskip("pycocotools", reason="needs pycocotools: pip install pycocotools")
datasets = pytest.importorskip("torchvision.datasets", reason="needs torchvision: pip install torchvision")


def test_coco(tmp_path):
    for number in (7, 8, 9):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.jpg")
    objects = [(7, 1), (7, 90), (7, 90), (9, 18)]
    annotations = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (7, 8, 9)],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"id": row, "image_id": image, "category_id": category, "bbox": [0, 0, 2, 2], "iscrowd": 0, "area": 4}
            for row, (image, category) in enumerate(objects, start=1)
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(annotations))
    dataset = datasets.CocoDetection(str(tmp_path), str(tmp_path / "instances.json"))
    to_labels = DetectionLabels(sorted(dataset.coco.getCatIds()))
    assert to_labels.classes == [1, 18, 90]
    labels = torch.stack([to_labels(dataset.coco.imgToAnns[image_id]) for image_id in dataset.ids])
    assert labels.tolist() == [[True, False, True], [False, False, False], [False, True, False]]
    dataset = datasets.CocoDetection(dataset.root, str(tmp_path / "instances.json"), target_transform=to_labels)
    for row in range(3):
        assert torch.equal(dataset[row][1], labels[row])
