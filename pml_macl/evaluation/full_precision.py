"""Computes matrix products in full float32, whatever the settings of autocast and of torch's matmul precision."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Compute in the dtype of the tensors: without autocast, and without TF32 or bfloat16 in matrix products.

    Autocast is a setting of the thread, the matmul precision a setting of the process. When the last of several
    overlapping blocks ends, also after an exception, the matmul precision is restored, unless another thread has
    changed it in the meantime.

    Args:
        device_type: device type of the tensors, ``"cpu"`` or ``"cuda"``.
    """
    _enter()
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        _leave()


@dataclass(frozen=True)
class _MatmulPrecision:
    """Torch's settings for float32 matrix products; None for a setting that cannot be read."""

    general: str | None  # torch.get_float32_matmul_precision(); setting it sets the other two as well
    cuda: str | None  # torch.backends.*.matmul.fp32_precision, since torch 2.9
    mkldnn: str | None

    @property
    def is_full(self) -> bool:
        if self.cuda is None:
            return self.general == "highest"
        return self.cuda in _FULL and self.mkldnn in _FULL


_FULL = ("ieee", "none")
_backends: Any = torch.backends
_HAS_BACKEND_SETTINGS = hasattr(torch.backends, "fp32_precision")
_lock = threading.Lock()
_num_blocks = 0
_before: _MatmulPrecision | None = None
_during: _MatmulPrecision | None = None


def _enter() -> None:
    global _num_blocks, _before, _during
    with _lock:
        if _num_blocks == 0:
            _before = _read()
            if not _before.is_full:
                _write(_MatmulPrecision("highest" if _before.general else None, "ieee", "ieee"))
            _during = _read()
        _num_blocks += 1


def _leave() -> None:
    global _num_blocks
    with _lock:
        _num_blocks -= 1
        if _num_blocks == 0 and _before is not None and _before != _during and _read() == _during:
            _write(_before)


def _read() -> _MatmulPrecision:
    if not _HAS_BACKEND_SETTINGS:
        return _MatmulPrecision(torch.get_float32_matmul_precision(), None, None)
    cuda, mkldnn = _backends.cuda.matmul.fp32_precision, _backends.mkldnn.matmul.fp32_precision
    if cuda in _FULL and mkldnn in _FULL:
        return _MatmulPrecision(None, cuda, mkldnn)  # reading the general setting could warn
    try:
        return _MatmulPrecision(torch.get_float32_matmul_precision(), cuda, mkldnn)
    except RuntimeError:  # the backends have different settings
        return _MatmulPrecision(None, cuda, mkldnn)


def _write(precision: _MatmulPrecision) -> None:
    if precision.general is not None:
        torch.set_float32_matmul_precision(precision.general)
    if not _HAS_BACKEND_SETTINGS:
        return
    for backend, value in ((_backends.cuda, precision.cuda), (_backends.mkldnn, precision.mkldnn)):
        backend.matmul.fp32_precision = "none"  # follows torch.backends.fp32_precision
        if backend.matmul.fp32_precision != value:
            backend.matmul.fp32_precision = value
