"""Search an archive of images with a trained network."""

from pml_macl.inference.augmentation import augment_embeddings
from pml_macl.inference.joined_embedder import JoinedEmbedder
from pml_macl.inference.multi_label_inference_model import MultiLabelInferenceModel
from pml_macl.inference.search_results import SearchResults

__all__ = ["JoinedEmbedder", "MultiLabelInferenceModel", "SearchResults", "augment_embeddings"]
