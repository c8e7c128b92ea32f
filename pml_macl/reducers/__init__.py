"""Reducers that weight pairs by their multi-hot labels."""

from pml_macl.reducers.frequency_weighted_reducer import FrequencyWeightedReducer
from pml_macl.reducers.mul_sup_con_reducer import MulSupConReducer
from pml_macl.reducers.pair_weighted_reducer import PairWeightedReducer
from pml_macl.reducers.similarity_dissimilarity_reducer import SimilarityDissimilarityReducer

__all__ = [
    "FrequencyWeightedReducer",
    "MulSupConReducer",
    "PairWeightedReducer",
    "SimilarityDissimilarityReducer",
]
