"""Label sets of images whose objects are annotated."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class DetectionLabels:
    """Turns the objects of an image into its label set, as ``target_transform`` of torchvision's detection data sets.

    The image has a label if it has at least one object of this class. Crowd regions of COCO and difficult objects of
    VOC count as objects.

    Args:
        classes: the C distinct classes in the order of the label columns. For ``CocoDetection`` these are category ids,
            such as ``dataset.coco.getCatIds()``; for ``VOCDetection`` they are names.

    Raises:
        TypeError: ``classes`` is not a sequence of integers or of strings.
        ValueError: a class appears twice.

    Example:
        >>> to_labels = DetectionLabels(classes=[1, 3, 18])  # COCO: person, car, dog
        >>> to_labels([{"category_id": 18, "bbox": [0, 0, 9, 9]}, {"category_id": 1}, {"category_id": 1}])
        tensor([ True, False,  True])
        >>> to_labels = DetectionLabels(classes=["car", "dog"])  # VOC
        >>> to_labels({"annotation": {"object": [{"name": "dog", "difficult": "0"}]}})
        tensor([False,  True])
    """

    def __init__(self, classes: Sequence[int] | Sequence[str]) -> None:
        is_sequence = isinstance(classes, Sequence) and not isinstance(classes, str)
        if not is_sequence or {type(name) for name in classes} not in ({int}, {str}):
            raise TypeError(f"classes must be a sequence of category ids or of names, got {classes!r}")
        self.classes = list(classes)
        self.columns = {name: column for column, name in enumerate(self.classes)}
        if len(self.columns) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f"classes must be distinct, got {twice!r} twice; remove one")

    def __call__(self, target: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Tensor:
        """Return the label set of an image.

        Args:
            target: the objects as ``CocoDetection`` or ``VOCDetection`` gives them.

        Returns:
            (C,) ``torch.bool``.

        Raises:
            TypeError: the target has another form.
            ValueError: an object's class is not in ``classes``.
        """
        try:
            if isinstance(target, Mapping):
                found = [thing["name"] for thing in target["annotation"]["object"]]
            else:
                found = [thing["category_id"] for thing in target]
        except (LookupError, TypeError) as error:
            raise TypeError(
                "target must be a list of dictionaries with 'category_id', as CocoDetection gives it, or "
                "{'annotation': {'object': [{'name': ...}, ...]}}, as VOCDetection gives it, got "
                f"{type(target).__name__}: {str(target)[:80]}"
            ) from error
        unknown = [name for name in found if name not in self.columns]
        if unknown:
            raise ValueError(f"every object's class must be in classes, got {unknown[0]!r}; add it to classes")
        labels = torch.zeros(len(self.classes), dtype=torch.bool)
        labels[[self.columns[name] for name in found]] = True
        return labels
