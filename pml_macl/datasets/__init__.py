"""Multi-label image data sets."""

from pml_macl.datasets.multi_label_image_dataset import MultiLabelImageDataset
from pml_macl.datasets.synthetic_scenes import SyntheticScenes

__all__ = ["MultiLabelImageDataset", "SyntheticScenes"]
