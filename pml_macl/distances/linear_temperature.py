"""A temperature that changes linearly."""

from torch import Tensor

from pml_macl.distances.scheduled_temperature import ScheduledTemperature


class LinearTemperature(ScheduledTemperature):
    r"""Linear schedule: :math:`\tau(t) = \tau_0 + (\tau_1 - \tau_0) \min(t / T, 1)`.

    Args:
        start: temperature :math:`\tau_0` at the first step, > 0.
        end: temperature :math:`\tau_1` from step :math:`T` on, > 0.
        num_steps: number of steps :math:`T`, >= 1.

    Raises:
        TypeError, ValueError: a temperature is not a positive number, or ``num_steps`` is not an integer of at least 1.

    Example:
        >>> schedule = LinearTemperature(0.2, 0.1, num_steps=2)
        >>> schedule.advance()
        >>> schedule()
        tensor(0.1500, dtype=torch.float64)
    """

    def interpolate(self, progress: Tensor) -> Tensor:
        return self.start + (self.end - self.start) * progress
