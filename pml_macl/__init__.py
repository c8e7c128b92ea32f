"""Multi-label adaptive contrastive learning (MACL) as parts of pytorch-metric-learning."""

__version__ = "0.1.0"
