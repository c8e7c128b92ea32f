"""Base class of the temperature schedules."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class TemperatureSchedule(nn.Module, ABC):
    r"""Base class of schedules: a temperature :math:`\tau(t)` that can depend on the step or on trained parameters.

    To write your own schedule, subclass this class and implement :meth:`forward`. Store what changes in buffers or
    parameters, so that ``state_dict`` saves it and ``to`` moves it.
    """

    @abstractmethod
    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Compute the temperature at the current step.

        Args:
            dtype: dtype of the computation.

        Returns:
            () tensor > 0.
        """

    def advance(self) -> None:
        """Move to the next step. The default does nothing."""
        return
