"""Miners on multi-hot labels."""

from pml_macl.miners.label_overlap_miner import LabelOverlapMiner

__all__ = ["LabelOverlapMiner"]
