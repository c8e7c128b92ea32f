"""Testers for multi-hot labels."""

from pml_macl.testers.multi_label_embedding_space_tester import MultiLabelEmbeddingSpaceTester

__all__ = ["MultiLabelEmbeddingSpaceTester"]
