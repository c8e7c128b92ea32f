"""A constant temperature."""

import torch
from torch import Tensor

from pml_macl.checks import check_positive
from pml_macl.distances.temperature_schedule import TemperatureSchedule


class ConstantTemperature(TemperatureSchedule):
    """Schedule that returns the same temperature at every step.

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

    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the temperature, a () tensor on the CPU in ``dtype``."""
        return torch.tensor(self.value, dtype=dtype)

    def extra_repr(self) -> str:
        return f"value={self.value}"
