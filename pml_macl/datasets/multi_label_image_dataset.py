"""Images in a folder and their multi-labels in a table."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from pml_macl.datasets.base_multi_label_image_dataset import BaseMultiLabelImageDataset, check_paths, check_transform
from pml_macl.datasets.image_files import find_images
from pml_macl.datasets.label_table import read_label_table


class MultiLabelImageDataset(BaseMultiLabelImageDataset):
    r"""An image folder with a label table: one row an image, one 0/1 column a class.

    The table is a UTF-8 text with tabs or commas between the columns and a first line that names them. The first
    column holds the image ids: file names in the folder, with or without extension (jpg, jpeg, png, tif, tiff, bmp),
    sub-folders allowed. Every other column that is not named below is a class, with cells 0 or 1 (0.0 and 1.0 are
    taken as well). The whole table is checked and the images of the chosen split are looked up at once, but each is
    decoded when it is asked for, which needs Pillow (``pip install pml_macl[examples]``).

    Args:
        images: the image folder.
        labels_file: the label table.
        split: keep the rows whose ``split_column`` says this; None keeps all rows.
        split_column: column that names the split of each row; it is no class.
        ignore_columns: further columns that are no classes.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].

    Attributes:
        classes: the C label names in the order of the columns.
        labels: (N, C) ``torch.bool``.
        ids: the N image ids as the table writes them.
        paths: the N image files.

    Raises:
        FileNotFoundError: the folder, the table or an image of a row is missing.
        TypeError: an argument has the wrong type.
        ValueError: the table is malformed (the message names line and column), a split or column is unknown, or an
            id leaves the folder or is ambiguous.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 2), "white").save(Path(folder, "pier.png"))
        ...     _ = Path(folder, "labels.csv").write_text("image,ship,trees,water\npier,1,0,1\n")
        ...     dataset = MultiLabelImageDataset(folder, Path(folder, "labels.csv"))
        ...     image, labels = dataset[0]
        >>> image.shape, labels, dataset.classes
        (torch.Size([3, 2, 4]), tensor([ True, False,  True]), ['ship', 'trees', 'water'])
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        labels_file: str | os.PathLike[str],
        split: str | None = None,
        split_column: str | None = None,
        ignore_columns: Collection[str] = (),
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        check_paths(images=images, labels_file=labels_file)
        for name, text in (("split", split), ("split_column", split_column)):
            if not isinstance(text, str | None):
                raise TypeError(f"{name} must be a string or None, got {text!r}")
        is_collection = isinstance(ignore_columns, Collection) and not isinstance(ignore_columns, str)
        if not is_collection or not all(isinstance(name, str) for name in ignore_columns):
            raise TypeError(f"ignore_columns must be a collection of column names, got {ignore_columns!r}")
        check_transform(transform)
        if split is not None and split_column is None:
            raise ValueError(f"split {split!r} needs split_column, the name of the column that holds it")
        table = read_label_table(Path(labels_file), split_column, ignore_columns)
        rows = [row for row, found in enumerate(table.splits) if split in (None, found)]
        if not rows:
            splits = ", ".join(sorted(set(table.splits))[:10])
            raise ValueError(f"{labels_file} has no split {split!r} in its column {split_column!r}; it has {splits}")
        ids = [table.ids[row] for row in rows]
        labels = table.labels[torch.tensor(rows)]
        super().__init__(find_images(Path(images), ids), labels, ids, table.classes, transform)
