"""A temperature that does not change."""

import torch
from torch import Tensor, nn

from pml_macl.checks import check_positive


class ConstantTemperature(nn.Module):
    """The same temperature at every step.

    Args:
        value: temperature, > 0.

    Raises:
        TypeError, ValueError: ``value`` is not a positive number.

    Example:
        >>> ConstantTemperature(0.1)()
        tensor(0.1000, dtype=torch.float64)
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        check_positive("value", value)
        self.value = value

    def forward(self) -> Tensor:
        """Return the temperature, a () float64 tensor on the CPU."""
        return torch.tensor(self.value, dtype=torch.float64)

    def advance(self) -> None:
        """Do nothing: every step is the same."""

    def extra_repr(self) -> str:
        return f"value={self.value}"
