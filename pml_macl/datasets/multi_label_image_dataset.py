"""The data set that reads an image folder and a label table."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from pml_macl.checks import check_callable, check_path, check_string_or_none
from pml_macl.datasets.base_multi_label_image_dataset import BaseMultiLabelImageDataset
from pml_macl.datasets.image_matching import EXTENSIONS, by_path, match_images
from pml_macl.datasets.label_table import read_label_table


class MultiLabelImageDataset(BaseMultiLabelImageDataset):
    r"""Reads images from a folder and their labels from a table.

    The table is UTF-8 text with tabs or commas between the columns, and its first line names the columns. Each
    further line describes one image. The id column, by default the first one, holds the image ids: file names in the
    folder or its sub-folders, with or without extension (jpg, jpeg, png, tif, tiff, bmp). With ``loader``, an id may
    also be the exact name of any other file or folder. Every other column is a class, unless ``split_column`` or
    ``ignore_columns`` names it. The cells of a class are 1, 1.0 or True if the image has the label, and 0, 0.0 or
    False if not.

    The constructor checks the whole table and finds the images of the chosen split. Indexing decodes an image. Without
    ``loader`` this needs Pillow (``pip install pillow``).

    Args:
        images: the image folder.
        labels_file: the label table.
        split: keep the rows with this value in ``split_column``; None keeps all rows.
        split_column: name of the column that holds the split of each row.
        ignore_columns: names of further columns that are not classes; ``other_columns`` keeps their cells.
        transform: called on each image; None makes a (3, H, W) float32 tensor in [0, 1], or with ``loader`` leaves the
            image as it is.
        id_column: name of the column that holds the image ids; None is the first column. If you name another column,
            an unnamed first column is ignored, such as the row index that pandas writes.
        loader: reads an image from its path, as in torchvision's ``ImageFolder``, for example a file of many bands or
            of 16 bits; None reads an RGB ``PIL.Image``.
        empty_cells: how to read an empty cell or NaN in a label column: ``"error"`` refuses the table, ``"absent"``
            reads it as 0.

    Attributes:
        classes: the C label names in the order of the columns.
        labels: (N, C) ``torch.bool``.
        ids: the N image ids as the table writes them.
        paths: the N image files.
        other_columns: the N cells of each column in ``ignore_columns``, as strings, by the name of the column.

    Raises:
        FileNotFoundError: the folder, the table or an image of a row is missing.
        TypeError: an argument has the wrong type.
        ValueError: the table is malformed (the message names line and column), a split, a column or ``empty_cells`` is
            unknown, or an id names a file outside the folder or fits several images.

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
        id_column: str | None = None,
        loader: Callable[[Path], Any] | None = None,
        empty_cells: str = "error",
    ) -> None:
        check_path("images", images)
        check_path("labels_file", labels_file)
        check_string_or_none("split", split)
        check_string_or_none("split_column", split_column)
        check_string_or_none("id_column", id_column)
        is_collection = isinstance(ignore_columns, Collection) and not isinstance(ignore_columns, str)
        if not is_collection or not all(isinstance(name, str) for name in ignore_columns):
            raise TypeError(f"ignore_columns must be a collection of column names, got {ignore_columns!r}")
        check_callable("transform", transform)
        check_callable("loader", loader)
        if split is not None and split_column is None:
            raise ValueError(
                f"split {split!r} was given without split_column; set it to the name of the column that holds the split"
            )
        table = read_label_table(Path(labels_file), split_column, ignore_columns, id_column, empty_cells)
        rows = [row for row, found in enumerate(table.splits) if split in (None, found)]
        if not rows:
            splits = ", ".join(sorted(set(table.splits))[:10])
            raise ValueError(f"{labels_file} has no split {split!r} in its column {split_column!r}; it has {splits}")
        ids = [table.ids[row] for row in rows]
        labels = table.labels[torch.tensor(rows)]
        how_to_fix = (
            f"Add the images to {images} (known extensions: {', '.join(EXTENSIONS)}; with loader also any exact name), "
            "remove the rows, or correct the folder"
        )
        paths = match_images(ids, by_path(Path(images), any_name=loader is not None), how_to_fix)
        super().__init__(paths, labels, ids, table.classes, transform, loader)
        self.other_columns = {name: [cells[row] for row in rows] for name, cells in table.other_columns.items()}
