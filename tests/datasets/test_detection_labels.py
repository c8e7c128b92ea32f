"""Targets in the exact format of torchvision, from its VOCDetection class and from stand-ins for CocoDetection."""

import pickle
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from pml_macl.datasets import DetectionLabels

COCO_IDS = [1, 2, 3, 90]  # the ids of COCO have gaps


def coco_object(category, **more):
    """An annotation as ``CocoDetection`` passes it on."""
    return {
        "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
        "area": 12.5,
        "iscrowd": 0,
        "image_id": 139,
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "category_id": category,
        "id": 1768,
        **more,
    }


@pytest.mark.parametrize(
    ("categories", "expected"),
    [([], [0, 0, 0, 0]), ([90], [0, 0, 0, 1]), ([3, 1, 3, 3], [1, 0, 1, 0]), (COCO_IDS, [1, 1, 1, 1])],
)
def test_coco(categories, expected):
    labels = DetectionLabels(COCO_IDS)([coco_object(category) for category in categories])
    assert labels.dtype is torch.bool
    assert labels.tolist() == expected


def test_crowds_count():
    crowd = coco_object(2, iscrowd=1, segmentation={"counts": [272, 2], "size": [4, 4]})
    assert DetectionLabels(COCO_IDS)([crowd]).tolist() == [False, True, False, False]


@pytest.fixture
def voc(tmp_path):
    """VOC 2012 with three images: several objects of which one has parts, one difficult object, none."""
    datasets = pytest.importorskip("torchvision.datasets", reason="needs torchvision: pip install torchvision")
    person = "<object><name>person</name><part><name>head</name></part></object>"
    objects = {
        "a": f"<object><name>dog</name><difficult>0</difficult></object>{person}{person}",
        "b": "<object><name>car</name><difficult>1</difficult></object>",
        "c": "",
    }
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\n")
    for name, xml in objects.items():
        Image.new("RGB", (4, 4)).save(folder / "JPEGImages" / f"{name}.jpg")
        text = f"<annotation><filename>{name}.jpg</filename><size><width>4</width></size>{xml}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)

    def load(target_transform):
        return datasets.VOCDetection(str(tmp_path), "2012", "train", target_transform=target_transform)

    return load


def test_voc(voc):
    dataset = voc(DetectionLabels(["car", "dog", "person"]))
    labels = [dataset[row][1].tolist() for row in range(3)]
    assert labels == [[False, True, True], [True, False, False], [False, False, False]]
    trees = [ElementTree.parse(path).getroot() for path in dataset.annotations]  # without decoding an image
    assert [dataset.target_transform(dataset.parse_voc_xml(tree)).tolist() for tree in trees] == labels


def test_a_class_that_is_not_listed(voc):
    message = "every object's class must be in classes, got 'person'; add it to classes"
    with pytest.raises(ValueError, match=message):
        voc(DetectionLabels(["car", "dog"]))[0]
    with pytest.raises(ValueError, match="got 4; add"):
        DetectionLabels(COCO_IDS)([coco_object(1), coco_object(4)])


@pytest.mark.parametrize("target", [{}, {"annotation": {}}, [{"name": "dog"}], 3, torch.ones(2), ["dog"]])
def test_other_targets(target):
    with pytest.raises(TypeError, match=f"target must be a list of dictionaries .* got {type(target).__name__}: "):
        DetectionLabels(["dog"])(target)


@pytest.mark.parametrize("classes", ["dog", 3, None, [], [1, "dog"], [1.0], [True], {"dog": 1}])
def test_classes_of_wrong_type(classes):
    with pytest.raises(TypeError, match="classes must be a sequence of category ids or of names, got "):
        DetectionLabels(classes)


def test_classes_are_distinct_and_can_be_pickled():
    with pytest.raises(ValueError, match="classes must be distinct, got 'dog' twice; remove one"):
        DetectionLabels(["dog", "car", "dog"])
    assert pickle.loads(pickle.dumps(DetectionLabels((3, 1))))([coco_object(1)]).tolist() == [False, True]
