"""Samplers that build batches by label sets."""

from pml_macl.samplers.label_balanced_sampler import LabelBalancedSampler

__all__ = ["LabelBalancedSampler"]
