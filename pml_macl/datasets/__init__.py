"""Multi-label image data sets."""

from pml_macl.datasets.synthetic_scenes import SyntheticScenes

__all__ = ["SyntheticScenes"]
