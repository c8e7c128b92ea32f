"""The data set UC Merced Land Use with multi-labels."""

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


class UCMercedMultiLabel(BaseMultiLabelImageDataset):
    r"""UC Merced Land Use: 2100 aerial images, 100 of each of 21 scenes, with 17 multi-labels.

    The scene of an image is not one of its labels. Most images have 256 x 256 pixels; 44 differ by a few pixels.

    Please cite Yang and Newsam, "Bag-of-visual-words and spatial extensions for land-use classification", ACM
    SIGSPATIAL GIS 2010, for the images, and Chaudhuri, Demir, Chaudhuri and Bruzzone, "Multilabel remote sensing
    image retrieval using a semisupervised graph-theoretic method", IEEE TGRS 56(2), 2018, for the multi-labels. The
    images are from the USGS National Map and in the public domain; the authors state no terms for the labels. Get the
    images from the project page "UC Merced Land Use Dataset" (weegee.vision.ucmerced.edu/datasets/landuse.html) and
    the label file from the authors of the multi-labels. The folder layout:

        Images/<scene>/<name>.tif   such as Images/airplane/airplane00.tif
        LandUse_Multilabeled.txt    tab-separated, IMAGE\LABEL and the 17 classes in the first line

    There is no published split; make one with ``stratified_split`` and ``write_split``.

    Args:
        root: the folder that holds ``Images`` and the label file.
        split: keep the images of this split; None keeps all.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].
        split_file: a file from ``write_split`` that names the split of each image; None reads ``splits.csv`` in
            ``root``.

    Attributes:
        classes: the 17 label names in the order of the label columns.
        labels: (N, 17) ``torch.bool``.
        ids: the N image ids as the label file writes them: the names without scene and extension.
        paths: the N image files.

    Raises:
        FileNotFoundError: the folder, the label file or an image is missing; the message says where to get them.
        TypeError: an argument has the wrong type.
        ValueError: the label file is malformed (the message names line and column); two images have the same name; an
            id names a file outside the folder; the split is unknown, or the split file names images that do not exist.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     Path(root, "Images/beach").mkdir(parents=True)
        ...     Image.new("RGB", (4, 4)).save(Path(root, "Images/beach/beach00.tif"))
        ...     _ = Path(root, "LandUse_Multilabeled.txt").write_text("IMAGE\\LABEL\tsand\tsea\nbeach00\t1\t1\n")
        ...     dataset = UCMercedMultiLabel(root)
        >>> dataset.ids, dataset.classes, dataset.labels
        (['beach00'], ['sand', 'sea'], tensor([[True, True]]))
    """

    LAYOUT: ClassVar = OfficialLayout(
        "UC Merced Land Use with multi-labels",
        "the project page of Yang and Newsam (2010), weegee.vision.ucmerced.edu/datasets/landuse.html, and the "
        "label file from Chaudhuri et al. (IEEE TGRS 2018)",
        ("Images/<scene>/<name>.tif", "LandUse_Multilabeled.txt"),
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
        images, labels_file = self.LAYOUT.find(root)
        table = read_label_table(labels_file)
        rows = select_rows(table.ids, split, split_file, Path(root))
        ids = [table.ids[row] for row in rows]
        paths = match_images(ids, by_name(list_tree(images)), self.LAYOUT.how_to_fix(Path(root)))
        super().__init__(paths, table.labels[torch.tensor(rows)], ids, table.classes, transform)
