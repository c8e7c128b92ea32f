"""The Wuhan dense labelling data set (WHDLD)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pml_macl.datasets.base_mask_dataset import BaseMaskDataset
from pml_macl.datasets.official_layout import OfficialLayout

if TYPE_CHECKING:
    from PIL import Image

COLOURS = {
    "building": (255, 0, 0),
    "road": (255, 255, 0),
    "pavement": (192, 192, 0),
    "vegetation": (0, 255, 0),
    "bare soil": (128, 128, 128),
    "water": (0, 0, 255),
}


class WHDLD(BaseMaskDataset):
    """WHDLD: 4940 satellite images of Wuhan, 256 x 256 pixels, each with a mask of 6 classes.

    An image has the label of every class that its mask shows, or of every class that covers at least
    ``min_fraction`` of the mask.

    Please cite Shao, Zhou, Deng, Zhang and Cheng, "Multilabel remote sensing image retrieval based on fully
    convolutional network", IEEE JSTARS 13, 2020, and Shao, Yang and Zhou, "Performance evaluation of single-label and
    multi-label remote sensing image retrieval using a dense labeling dataset", Remote Sensing 10(6), 2018. Get the
    data from Zhou Weixun's page (sites.google.com/view/zhouwx/dataset), and see there for the terms. The folder layout:

        Images/<name>.jpg
        Labels/<name>.png   as large as the image, in RGB: building (255, 0, 0), road (255, 255, 0),
                            pavement (192, 192, 0), vegetation (0, 255, 0), bare soil (128, 128, 128), water (0, 0, 255)

    There is no published split; make one with ``stratified_split`` and ``write_split``.

    Args:
        root: the folder that holds ``Images`` and ``Labels``.
        split: keep the images of this split; None keeps all.
        min_fraction: smallest share of the mask that a label must cover, in [0, 1]. At 0, one pixel is enough.
            A large value may leave an image without labels.
        transform: called on each RGB ``PIL.Image``; None makes a (3, H, W) float32 tensor in [0, 1].
        split_file: a file from ``write_split`` that names the split of each image; None reads ``splits.csv`` in
            ``root``.

    Attributes:
        classes: the 6 label names in the order of the label columns.
        labels: (N, 6) ``torch.bool``.
        ids: the N image names without extension.
        paths: the N image files.

    Raises:
        FileNotFoundError: a folder, an image or its mask is missing; the message says where to get the data.
        TypeError: an argument has the wrong type.
        ValueError: a mask differs in size from its image or has an unknown colour; two images have the same name;
            ``min_fraction`` is out of range; the split is unknown, or the split file names images that do not exist.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as root:
        ...     for name in ("Images/wh0001.jpg", "Labels/wh0001.png"):
        ...         Path(root, name).parent.mkdir()
        ...         Image.new("RGB", (4, 4), (0, 0, 255)).save(Path(root, name))
        ...     dataset = WHDLD(root)
        >>> dataset.ids, [name for name, seen in zip(dataset.classes, dataset.labels[0]) if seen]
        (['wh0001'], ['water'])
    """

    LAYOUT = OfficialLayout(
        "WHDLD",
        "the project page of Shao et al. (2020), sites.google.com/view/zhouwx/dataset",
        ("Images/<name>.jpg", "Labels/<name>.png"),
    )
    CLASSES = tuple(COLOURS)

    @staticmethod
    def count_pixels(mask: "Image.Image") -> NDArray[np.int64]:
        pixels = np.asarray(mask.convert("RGB").convert("RGBA"))
        codes = pixels.view(np.uint32).ravel()  # comparing one number per pixel is much faster than comparing three
        known = np.array([(*colour, 255) for colour in COLOURS.values()], dtype=np.uint8).view(np.uint32).ravel()
        counts = np.array([np.count_nonzero(codes == code) for code in known])
        if counts.sum() < codes.size:
            first = int(np.isin(codes, known).argmin())
            colour = tuple(pixels.reshape(-1, 4)[first, :3].tolist())
            raise ValueError(f"the unknown colour {colour}; the colours must be those of {COLOURS}")
        return counts
