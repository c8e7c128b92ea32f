"""The AID multi-label data set (ML-AID)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from pml_macl.checks import check_callable, check_string_or_none
from pml_macl.datasets.base_multi_label_image_dataset import BaseMultiLabelImageDataset
from pml_macl.datasets.image_matching import by_name, list_tree, match_images
from pml_macl.datasets.label_table import read_label_table
from pml_macl.datasets.official_layout import OfficialLayout
from pml_macl.datasets.split_file import select_rows


class MLAID(BaseMultiLabelImageDataset):
    r"""ML-AID, the AID multi-label data set: 3000 aerial images, 100 of each of 30 scenes, with 17 multi-labels.

    The scene of an image is not one of its labels. The published split has 2400 training and 600 test images. To take
    a validation split from the training images, load ``train = MLAID(root, "train")`` and call
    ``write_split(path, train.ids, stratified_split(train.labels, (0.8, 0.2)))``. Then load ``"train"`` and ``"val"``
    with ``split_file=path``, and ``"test"`` without it.

    Please cite Hua, Mou and Zhu, "Relation network for multilabel aerial image classification", IEEE TGRS 58(7),
    2020, for the multi-labels, and Xia et al., "AID: a benchmark data set for performance evaluation of aerial scene
    classification", IEEE TGRS 55(7), 2017, for the images. The authors state no terms for the images. Get the
    data from the project page "AID-Multilabel-Dataset" (github.com/Hua-YS/AID-Multilabel-Dataset). The folder layout:

        images_tr/<Scene>/<name>.jpg     such as images_tr/Airport/airport_1.jpg
        images_test/<Scene>/<name>.jpg
        multilabel.csv                   one row per image, one column of 0 and 1 per class

    Args:
        root: the folder with this layout.
        split: ``"train"`` or ``"test"`` as published, or a split of ``split_file``; None keeps all images.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].
        split_file: a file from ``write_split`` that names the split of each image; None takes the published split.

    Attributes:
        classes: the 17 label names in the order of the label columns.
        labels: (N, 17) ``torch.bool``.
        ids: the N image ids as the label file writes them.
        paths: the N image files.

    Raises:
        FileNotFoundError: a folder, the label file or an image is missing; the message says where to get them.
        TypeError: an argument has the wrong type.
        ValueError: the label file is malformed (the message names line and column); two images have the same name; an
            id names a file outside the folder; the split is unknown, or the split file names images that do not exist.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     for name in ("images_tr/Beach/beach_1.jpg", "images_test/Beach/beach_2.jpg"):
        ...         Path(root, name).parent.mkdir(parents=True)
        ...         Image.new("RGB", (4, 4)).save(Path(root, name))
        ...     _ = Path(root, "multilabel.csv").write_text("IMAGE\\LABEL,sand,sea\nbeach_1,1,1\nbeach_2,1,0\n")
        ...     dataset = MLAID(root, split="test")
        >>> dataset.ids, dataset.classes, dataset.labels
        (['beach_2'], ['sand', 'sea'], tensor([[ True, False]]))
    """

    LAYOUT: ClassVar = OfficialLayout(
        "ML-AID",
        "the project page of Hua, Mou and Zhu (2020), github.com/Hua-YS/AID-Multilabel-Dataset",
        ("images_tr/<Scene>/<name>.jpg", "images_test/<Scene>/<name>.jpg", "multilabel.csv"),
    )

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        transform: Callable[[Any], Any] | None = None,
        split_file: str | os.PathLike[str] | None = None,
    ) -> None:
        check_callable("transform", transform)
        check_string_or_none("split", split)
        train_folder, test_folder, labels_file = self.LAYOUT.find(root)
        train, test = list_tree(train_folder), list_tree(test_folder)
        both = sorted({name.lower() for name in train} & {name.lower() for name in test})
        if both:
            raise ValueError(
                f"{root} has {len(both)} images both for train and for test, the first are {both[:3]}; keep one of each"
            )
        table = read_label_table(labels_file)
        paths = match_images(table.ids, by_name(train | test), self.LAYOUT.how_to_fix(Path(root)))
        if split is not None and split_file is None:
            published = {"train": train, "test": test}
            if split not in published:
                raise ValueError(f"split must be 'train' or 'test' without a split_file, got {split!r}")
            chosen = set(published[split].values())
            rows = [row for row, path in enumerate(paths) if path in chosen]
            if not rows:
                raise ValueError(f"{labels_file} has no row of split {split!r}; check the image folders of {root}")
        else:
            rows = select_rows(table.ids, split, split_file, Path(root))
        ids = [table.ids[row] for row in rows]
        labels = table.labels[torch.tensor(rows)]
        super().__init__([paths[row] for row in rows], labels, ids, table.classes, transform)
