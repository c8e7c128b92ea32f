"""Checks of tensor values that do not make a training step wait for the GPU."""

import torch
from torch import Tensor

# The first checks wait for the GPU; later ones do not. 16 checks cover the first batches, which already contain most
# mistakes in a data set.
SYNCHRONOUS_CHECKS = 16


class DeferredCheck:
    """Raises ``ValueError`` if a check of tensor values fails: immediately on a CPU, possibly later on a GPU.

    Reading a value from the GPU makes the host wait. The first checks wait, because wrong labels are usually wrong
    from the first batch on. Each later check copies its result to the host without waiting, and the next call that
    finds a failure there raises the error. No operation on the GPU is aborted.

    A copy of the object (``copy``, ``pickle``) starts without recorded checks.
    """

    def __init__(self) -> None:
        self.num_checks = 0
        self._flags: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, failed: Tensor, message: str, detail: str = "") -> None:
        """Raise if the check failed, or, on a GPU, if an earlier check failed.

        Args:
            failed: () boolean, True if the check failed.
            message: what was expected, without numbers of this batch: checks with the same message share their memory.
            detail: what was found or how to fix it; added to the message if this call raises for its own check.

        Raises:
            ValueError: this check failed, or an earlier one.
        """
        if failed.device.type == "cpu" or self.num_checks < SYNCHRONOUS_CHECKS:
            self.num_checks += 1
            if failed:
                raise ValueError(message + detail)
        else:
            self.look_later(failed, message)

    def look_later(self, failed: Tensor, message: str) -> None:
        """Record a check without waiting for its result, and raise if the host knows that an earlier one failed."""
        if message not in self._flags:
            can_pin = failed.is_cuda and torch.cuda.is_available()
            on_host = torch.zeros((), dtype=torch.bool, pin_memory=can_pin)
            self._flags[message] = (torch.zeros_like(failed), on_host)
        for earlier, (_, on_host) in self._flags.items():
            if self._is_set(on_host):
                del self._flags[earlier]
                raise ValueError(
                    f"{earlier}, but those of an earlier batch do not; check the labels and pairs of the whole data set"
                )
        on_device, on_host = self._flags[message]
        on_device |= failed
        on_host.copy_(on_device, non_blocking=True)

    def _is_set(self, on_host: Tensor) -> bool:
        """Read the host memory without waiting; a copy that has not arrived yet is found by a later call."""
        return bool(on_host)

    def __reduce__(self) -> tuple[type["DeferredCheck"], tuple[()]]:
        return DeferredCheck, ()
