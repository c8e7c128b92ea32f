"""Conditions on tensors that a training step can check without waiting for the GPU."""

import torch
from torch import Tensor

# How many conditions are awaited before the others are looked at late: enough to meet a data set of the wrong kind.
SYNCHRONOUS_CHECKS = 16


class DeferredCheck:
    """Raises ``ValueError`` if a condition on tensors fails: at once on a CPU, later on a GPU.

    To read a value, the host must wait until the GPU has computed it. The first conditions are awaited, because wrong
    labels are usually wrong from the first batch on. Of every later condition a copy travels to the host while training
    goes on, and the next call that finds a failure there raises. Nothing on the GPU is aborted.

    A copy of the object starts anew.
    """

    def __init__(self) -> None:
        self.num_checks = 0
        self._flags: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, failed: Tensor, message: str, detail: str = "") -> None:
        """Check a condition.

        Args:
            failed: () boolean, True where the condition does not hold.
            message: what must hold; also the key under which late failures are remembered.
            detail: what was found and how to fix it, for a failure that is raised at once.

        Raises:
            ValueError: this condition failed, or an earlier one with the same message.
        """
        if failed.device.type == "cpu" or self.num_checks < SYNCHRONOUS_CHECKS:
            self.num_checks += 1
            if failed:
                raise ValueError(message + detail)
        else:
            self.look_later(failed, message)

    def look_later(self, failed: Tensor, message: str) -> None:
        """Remember a condition without waiting for it, and raise if an earlier one is known to have failed."""
        if message not in self._flags:
            can_pin = failed.is_cuda and torch.cuda.is_available()
            on_host = torch.zeros((), dtype=torch.bool, pin_memory=can_pin)
            self._flags[message] = (torch.zeros_like(failed), on_host)
        on_device, on_host = self._flags[message]
        if self._is_set(on_host):
            del self._flags[message]
            raise ValueError(f"{message}; an earlier batch did not; check the labels and pairs of the whole data set")
        on_device |= failed
        on_host.copy_(on_device, non_blocking=True)

    def _is_set(self, on_host: Tensor) -> bool:
        """Read host memory, which waits for nothing; a copy that is still under way is seen by a later call."""
        return bool(on_host)

    def __reduce__(self) -> tuple[type["DeferredCheck"], tuple[()]]:
        return DeferredCheck, ()
