"""Base class of the temperatures that follow a curve over the training steps."""

from abc import abstractmethod

import torch
from torch import Tensor

from pml_macl.checks import check_integer, check_positive
from pml_macl.distances.temperature_schedule import TemperatureSchedule


class ScheduledTemperature(TemperatureSchedule):
    """Base class of schedules that go from ``start`` to ``end`` in ``num_steps`` steps and then stay at ``end``.

    Subclasses implement the curve in :meth:`interpolate`. The current step is an integer buffer, so ``state_dict``
    saves it and a resumed run continues at the same step.

    Args:
        start: temperature at the first step, > 0.
        end: temperature after ``num_steps`` steps, > 0.
        num_steps: number of steps, >= 1; see ``auto_advance`` of :class:`TemperatureScheduledSimilarity`.

    Raises:
        TypeError, ValueError: a temperature is not a positive number, or ``num_steps`` is not an integer of at least 1.
    """

    step: Tensor

    def __init__(self, start: float, end: float, num_steps: int) -> None:
        super().__init__()
        check_positive("start", start)
        check_positive("end", end)
        check_integer("num_steps", num_steps)
        self.start, self.end, self.num_steps = start, end, num_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.interpolate((self.step.to(dtype) / self.num_steps).clamp(max=1))

    @abstractmethod
    def interpolate(self, progress: Tensor) -> Tensor:
        """Compute the temperature at a position of the curve.

        Args:
            progress: () tensor from 0 (``start``) to 1 (``end``).

        Returns:
            () tensor, the temperature.
        """

    def advance(self) -> None:
        """Move to the next step."""
        self.step += 1

    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}, num_steps={self.num_steps}"
