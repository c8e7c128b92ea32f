"""What the temperature schedules have in common."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pml_macl.checks import check_integer, check_positive


class ScheduledTemperature(nn.Module, ABC):
    """A temperature that goes from ``start`` to ``end`` in ``num_steps`` steps and stays there.

    The position is an integer buffer: it is saved with ``state_dict``, so a resumed run goes on where it was.
    Subclasses say with :meth:`interpolate` which way it goes.

    Args:
        start: temperature at the first step, > 0.
        end: temperature after ``num_steps`` steps, > 0.
        num_steps: number of steps, >= 1; a step is a differentiable call of the distance in training mode.

    Raises:
        TypeError, ValueError: a temperature is not a positive number or ``num_steps`` not a positive integer.
    """

    step: Tensor

    def __init__(self, start: float, end: float, num_steps: int) -> None:
        super().__init__()
        check_positive("start", start)
        check_positive("end", end)
        check_integer("num_steps", num_steps)
        self.start, self.end, self.num_steps = start, end, num_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self) -> Tensor:
        """Return the temperature at the present step, a () float64 tensor."""
        return self.interpolate((self.step.double() / self.num_steps).clamp(max=1))

    @abstractmethod
    def interpolate(self, progress: Tensor) -> Tensor:
        """Temperature at ``progress``, which goes from 0 to 1."""

    def advance(self) -> None:
        """Go on by one step."""
        self.step += 1

    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}, num_steps={self.num_steps}"
