"""Losses on multi-hot labels."""

from pml_macl.losses.jaccard_sup_con_loss import JaccardSupConLoss
from pml_macl.losses.macl_loss import MACLLoss
from pml_macl.losses.mul_sup_con_loss import MulSupConLoss
from pml_macl.losses.multi_label_contrastive_loss import MultiLabelContrastiveLoss
from pml_macl.losses.multi_label_cross_batch_memory import MultiLabelCrossBatchMemory
from pml_macl.losses.multi_label_distributed_loss_wrapper import MultiLabelDistributedLossWrapper
from pml_macl.losses.multi_label_loss_wrapper import MultiLabelLossWrapper
from pml_macl.losses.multi_sup_con_loss import MultiSupConLoss
from pml_macl.losses.proxy_macl_loss import ProxyMACLLoss
from pml_macl.losses.similarity_dissimilarity_loss import SimilarityDissimilarityLoss
from pml_macl.losses.sup_con_any_loss import SupConAnyLoss
from pml_macl.losses.sup_con_exact_loss import SupConExactLoss

__all__ = [
    "JaccardSupConLoss",
    "MACLLoss",
    "MulSupConLoss",
    "MultiLabelContrastiveLoss",
    "MultiLabelCrossBatchMemory",
    "MultiLabelDistributedLossWrapper",
    "MultiLabelLossWrapper",
    "MultiSupConLoss",
    "ProxyMACLLoss",
    "SimilarityDissimilarityLoss",
    "SupConAnyLoss",
    "SupConExactLoss",
]
