"""What the benchmarks import from examples/: data sets, networks, and the loss and the miner of train.py.

Python finds the modules beside a script, but not those of ``examples``. This module adds that folder to the import
path, and the other benchmarks import from this module.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from data import SPLITS, Split, extract_features, random_flip
from models import BACKBONES, make_backbone, make_head
from package_losses import make_loss as make_train_loss
from package_losses import make_miner as make_train_miner
from training_loop import PROXY_LR_FACTOR

__all__ = [
    "BACKBONES",
    "PROXY_LR_FACTOR",
    "SPLITS",
    "Split",
    "extract_features",
    "make_backbone",
    "make_head",
    "make_train_loss",
    "make_train_miner",
    "random_flip",
]
