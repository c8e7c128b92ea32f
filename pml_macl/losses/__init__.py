"""Losses on multi-hot labels."""

from pml_macl.losses.macl_loss import MACLLoss

__all__ = ["MACLLoss"]
