import pytest
import torch

from pml_macl.datasets import BaseMultiLabelImageDataset

GOOD = {"paths": ["a.png", "b.png"], "labels": torch.eye(2), "ids": ["a", "b"], "classes": ["ship", "trees"]}


def test_attributes(save, tmp_path):
    path = save(tmp_path / "a.png", size=(5, 3))
    dataset = BaseMultiLabelImageDataset([str(path)], torch.tensor([[1, 0]]), ("a",), ("ship", "trees"))
    assert (dataset.paths, dataset.ids, dataset.classes) == ([path], ["a"], ["ship", "trees"])
    assert dataset.labels.tolist() == [[True, False]]
    assert dataset[0][0].shape == (3, 3, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": torch.eye(3)}, ValueError, r"labels must have one column per class \(2\), got 3 columns"),
        ({"labels": [[1, 0], [0, 1]]}, TypeError, "labels must be a multi-hot torch.Tensor"),
        ({"labels": torch.eye(2) / 2}, ValueError, "labels must hold only 0 and 1, got 0.5"),
        ({"paths": ["a.png"]}, ValueError, "paths, ids and labels must have the same length, got 1 paths"),
        ({"ids": ["a", "b", "c"]}, ValueError, "got 2 paths, 3 ids and 2 rows"),
        ({"ids": ["a", "a"]}, ValueError, "ids must be distinct, got 'a' twice"),
        ({"classes": ["ship", "ship"]}, ValueError, "classes must be distinct, got 'ship' twice"),
        ({"transform": 3}, TypeError, "transform must be callable or None, got 3"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        BaseMultiLabelImageDataset(**{**GOOD, **arguments})
