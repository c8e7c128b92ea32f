"""Reducers on multi-hot labels."""

from pml_macl.reducers.frequency_weighted_reducer import FrequencyWeightedReducer

__all__ = ["FrequencyWeightedReducer"]
