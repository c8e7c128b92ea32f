"""A temperature that follows half a cosine wave."""

import math

from torch import Tensor

from pml_macl.distances.scheduled_temperature import ScheduledTemperature


class CosineTemperature(ScheduledTemperature):
    r"""Cosine schedule: :math:`\tau(t) = \tau_1 + (\tau_0 - \tau_1) (1 + \cos(\pi \min(t / T, 1))) / 2`.

    Args:
        start: temperature :math:`\tau_0` at the first step, > 0.
        end: temperature :math:`\tau_1` from step :math:`T` on, > 0.
        num_steps: number of steps :math:`T`, >= 1.

    Raises:
        TypeError, ValueError: a temperature is not a positive number, or ``num_steps`` is not an integer of at least 1.

    Example:
        >>> schedule = CosineTemperature(0.2, 0.1, num_steps=4)
        >>> schedule.advance()
        >>> schedule()
        tensor(0.1854, dtype=torch.float64)
    """

    def interpolate(self, progress: Tensor) -> Tensor:
        return self.end + (self.start - self.end) * (1 + (math.pi * progress).cos()) / 2
