"""A temperature that the optimizer trains."""

import math

import torch
from torch import Tensor, nn

from pml_macl.checks import check_positive
from pml_macl.distances.temperature_schedule import TemperatureSchedule


class LearnableTemperature(TemperatureSchedule):
    r"""Schedule that trains the temperature :math:`\tau = e^{\theta}` within bounds.

    Radford et al., Learning Transferable Visual Models From Natural Language Supervision (CLIP), arXiv 2103.00020,
    train the logarithm of :math:`1 / \tau` and clamp it, so that training stays stable. This class clamps the parameter
    :math:`\theta` in place before each use, so a clamped parameter still receives its gradient.

    The parameter belongs to the loss. Pass ``loss_fn.parameters()`` to an optimizer, usually without weight decay.

    Args:
        initial: temperature before training, in [``low``, ``high``].
        low: smallest temperature, > 0.
        high: largest temperature, > 0.

    Attributes:
        log_temperature: () parameter :math:`\theta`.

    Raises:
        TypeError, ValueError: a temperature is not a positive number, or ``initial`` is outside the bounds.

    Example:
        >>> LearnableTemperature(0.1)(torch.float32)
        tensor(0.1000, grad_fn=<ExpBackward0>)
    """

    def __init__(self, initial: float = 0.1, low: float = 0.01, high: float = 1.0) -> None:
        super().__init__()
        for name, value in (("initial", initial), ("low", low), ("high", high)):
            check_positive(name, value)
        if not low <= initial <= high:
            raise ValueError(f"initial must be in [low, high] = [{low}, {high}], got {initial}; change one of them")
        self.low, self.high = low, high
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Compute the temperature, a () tensor with a gradient, on the device of the parameter and in ``dtype``."""
        with torch.no_grad():  # safe for earlier graphs: exp saves its result, not the parameter
            self.log_temperature.clamp_(math.log(self.low), math.log(self.high))
        return self.log_temperature.to(dtype).exp()

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"
