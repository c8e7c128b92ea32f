"""Miners for multi-hot labels."""

from pml_macl.miners.label_overlap_miner import LabelOverlapMiner
from pml_macl.miners.multi_label_miner_wrapper import MultiLabelMinerWrapper

__all__ = ["LabelOverlapMiner", "MultiLabelMinerWrapper"]
