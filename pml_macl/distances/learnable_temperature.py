"""A temperature that is trained with the network."""

import math

import torch
from torch import Tensor, nn

from pml_macl.checks import check_positive
from pml_macl.distances.temperature_schedule import TemperatureSchedule


class LearnableTemperature(TemperatureSchedule):
    r"""A trained temperature :math:`\tau = e^{\theta}`, kept within bounds.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision (CLIP), arXiv 2103.00020,
    train the logarithm of :math:`1 / \tau` and clamp it, so that training stays stable. Here the parameter
    :math:`\theta` itself is clamped before each use; its gradient is never cut off.

    The parameter belongs to the loss: give ``loss_fn.parameters()`` to an optimizer, usually without weight decay.

    Args:
        initial: temperature before training, from ``low`` to ``high``.
        low: smallest temperature, > 0.
        high: largest temperature, > 0.

    Attributes:
        log_temperature: () the parameter :math:`\theta`.

    Raises:
        TypeError, ValueError: a temperature is not a positive number, or ``initial`` is out of its bounds.

    Example:
        >>> LearnableTemperature(0.1)(torch.float32)
        tensor(0.1000, grad_fn=<ExpBackward0>)
    """

    def __init__(self, initial: float = 0.1, low: float = 0.01, high: float = 1.0) -> None:
        super().__init__()
        for name, value in (("initial", initial), ("low", low), ("high", high)):
            check_positive(name, value)
        if not low <= initial <= high:
            raise ValueError(f"initial must be from low ({low}) to high ({high}), got {initial}")
        self.low, self.high = low, high
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the temperature, a () tensor with a gradient, on the device of the parameter."""
        with torch.no_grad():  # exp keeps its result and not the parameter, so an earlier graph stays valid
            self.log_temperature.clamp_(math.log(self.low), math.log(self.high))
        return self.log_temperature.to(dtype).exp()

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"
