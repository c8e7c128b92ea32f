"""Data sets of images with multi-labels, and functions that split them."""

from pml_macl.datasets.base_multi_label_image_dataset import BaseMultiLabelImageDataset
from pml_macl.datasets.detection_labels import DetectionLabels
from pml_macl.datasets.dlrsd import DLRSD
from pml_macl.datasets.mlaid import MLAID
from pml_macl.datasets.multi_label_image_dataset import MultiLabelImageDataset
from pml_macl.datasets.split_file import read_split, write_split
from pml_macl.datasets.stratification import stratified_split
from pml_macl.datasets.synthetic.synthetic_scenes import SyntheticScenes
from pml_macl.datasets.uc_merced_multi_label import UCMercedMultiLabel
from pml_macl.datasets.whdld import WHDLD

__all__ = [
    "DLRSD",
    "MLAID",
    "WHDLD",
    "BaseMultiLabelImageDataset",
    "DetectionLabels",
    "MultiLabelImageDataset",
    "SyntheticScenes",
    "UCMercedMultiLabel",
    "read_split",
    "stratified_split",
    "write_split",
]
