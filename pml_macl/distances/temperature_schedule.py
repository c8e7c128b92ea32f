"""What all temperature schedules have in common."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class TemperatureSchedule(nn.Module, ABC):
    r"""A temperature :math:`\tau(t)` that may depend on the training step or on learnable parameters.

    Subclass it for a schedule of your own; keep what changes in buffers or parameters, so that it is saved, moved and
    restored.
    """

    @abstractmethod
    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the temperature at the present step, a () tensor, computed in ``dtype``."""

    def advance(self) -> None:
        """Go to the next step; by default nothing changes."""
        return
