"""The dense labelling remote sensing data set (DLRSD)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pml_macl.datasets.base_mask_dataset import BaseMaskDataset
from pml_macl.datasets.official_layout import OfficialLayout

if TYPE_CHECKING:
    from PIL import Image


class DLRSD(BaseMaskDataset):
    """DLRSD: the 2100 aerial images of UC Merced Land Use, each with a mask of 17 classes.

    An image has the label of every class that its mask shows, or of every class that covers at least
    ``min_fraction`` of the mask. These labels differ from those of Chaudhuri et al., which ``UCMercedMultiLabel``
    reads. The ids and the order of the classes are the same, so one split file fits both data sets.

    Please cite Shao, Yang and Zhou, "Performance evaluation of single-label and multi-label remote sensing image
    retrieval using a dense labeling dataset", Remote Sensing 10(6), 2018, and Yang and Newsam, "Bag-of-visual-words
    and spatial extensions for land-use classification", ACM SIGSPATIAL GIS 2010. The images are from the USGS
    National Map and in the public domain. Get the data from Zhou Weixun's page
    (sites.google.com/view/zhouwx/dataset), and see there for the terms of the masks. The folder layout:

        Images/<scene>/<name>.tif   such as Images/airplane/airplane00.tif
        Labels/<scene>/<name>.png   one channel or a palette, values 1 to 17, as large as the image

    The values 1 (airplane) to 17 (water) number the classes in alphabetical order, as the AiTLAS toolbox does. There
    is no published split; make one with ``stratified_split`` and ``write_split``.

    Args:
        root: the folder that holds ``Images`` and ``Labels``.
        split: keep the images of this split; None keeps all.
        min_fraction: smallest share of the mask that a label must cover, in [0, 1]. At 0, one pixel is enough.
            A large value may leave an image without labels.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].
        split_file: a file from ``write_split`` that names the split of each image; None reads ``splits.csv`` in
            ``root``.

    Attributes:
        classes: the 17 label names in the order of the label columns.
        labels: (N, 17) ``torch.bool``.
        ids: the N image names without scene and extension.
        paths: the N image files.

    Raises:
        FileNotFoundError: a folder, an image or its mask is missing; the message says where to get the data.
        TypeError: an argument has the wrong type.
        ValueError: a mask differs in size from its image, has the wrong kind of pixels or an unknown value; two
            images have the same name; ``min_fraction`` is out of range; the split is unknown, or the split file names
            images that do not exist.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     for name in ("Images/river/river00.tif", "Labels/river/river00.png"):
        ...         Path(root, name).parent.mkdir(parents=True)
        ...         Image.new("L", (4, 4), 17).save(Path(root, name))
        ...     dataset = DLRSD(root)
        >>> dataset.ids, [name for name, seen in zip(dataset.classes, dataset.labels[0]) if seen]
        (['river00'], ['water'])
    """

    LAYOUT = OfficialLayout(
        "DLRSD",
        "the project page of Shao, Yang and Zhou (2018), sites.google.com/view/zhouwx/dataset",
        ("Images/<scene>/<name>.tif", "Labels/<scene>/<name>.png"),
    )
    CLASSES = (
        "airplane",
        "bare soil",
        "buildings",
        "cars",
        "chaparral",
        "court",
        "dock",
        "field",
        "grass",
        "mobile home",
        "pavement",
        "sand",
        "sea",
        "ship",
        "tanks",
        "trees",
        "water",
    )

    @staticmethod
    def count_pixels(mask: "Image.Image") -> NDArray[np.int64]:
        if mask.mode not in ("L", "P"):
            raise ValueError(f"mode {mask.mode}; it must have one channel (L) or a palette (P) with the values 1 to 17")
        counts = np.bincount(np.asarray(mask).ravel(), minlength=256)
        unknown = np.flatnonzero(counts[18:]) + 18 if not counts[0] else [0]
        if len(unknown):
            raise ValueError(f"the unknown value {unknown[0]}; the values must be from 1 (airplane) to 17 (water)")
        return counts[1:18]
