"""A second device for machines that have only a CPU: its tensors hold values, and refuse to meet tensors of the CPU.

Inside ``with OtherDevice() as device:``, ``"cuda"`` names the stand-in. Its tensors report the device ``cuda:0`` and
compute on the CPU, with autograd. ``device.reads`` lists the operations for which a GPU would make the program wait:
those that read values back, or whose result has a shape that depends on values.

Old releases of torch cannot run it: tests that use it carry ``needs_other_device``.

Limits: to autograd the tensors are of the device ``meta``; streams, kernels, pinned memory and the precision of a GPU
are not imitated. Only a real GPU tests those.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU, META = torch.device("cuda", 0), torch.device("cpu"), torch.device("meta")
READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "bincount")
READS += ("repeat_interleave",)
MOVES = ("_to_copy", "copy_", "lift_fresh")  # operations that may have tensors of both devices


class OtherTensor(torch.Tensor):
    """A tensor of the stand-in. ``value`` is the tensor on the CPU that holds its numbers."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> OtherTensor:
        layout = {"strides": value.stride(), "storage_offset": value.storage_offset(), "dtype": value.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, value.shape, device=META, **layout)
        tensor.value = value
        return tensor

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"OtherTensor({self.value})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{function} met a tensor of the stand-in outside of `with OtherDevice()`")


class _Names(TorchFunctionMode):
    """Give the tensors that a program asks for on "cuda" the device ``meta``, which every build of torch has."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and _is_cuda(kwargs.get("device")):
            del kwargs["device"]  # torch.tensor(numbers, device="meta") would drop the numbers
            return function(*args, **kwargs).to(META)
        if function is torch.device:
            return function(*args, **kwargs)
        if function is torch.Tensor.cuda:
            return args[0].to(META)
        if function is torch.Tensor.tolist and isinstance(args[0], OtherTensor):
            return args[0].cpu().tolist()  # torch has none for its subclasses
        if function is torch.Tensor.numpy and isinstance(args[0], OtherTensor):
            raise TypeError("can't convert a tensor of the stand-in to numpy; use Tensor.cpu() first")
        return function(*tree_map(_meta_for_cuda, args), **tree_map(_meta_for_cuda, kwargs))


def _is_cuda(thing: Any) -> bool:
    return (isinstance(thing, torch.device) and thing.type == "cuda") or (
        isinstance(thing, str) and thing.startswith("cuda")
    )


def _meta_for_cuda(thing: Any) -> Any:
    return META if _is_cuda(thing) else thing


class OtherDevice(TorchDispatchMode):
    """Compute on the stand-in; see the module. ``reads`` lists what would make a program wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.names = _Names()

    def __enter__(self) -> OtherDevice:
        self.names.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.names.__exit__(*error)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = function.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, OtherTensor)]
        if ours and name not in MOVES and any(tensor.dim() for tensor in tensors if tensor.device == CPU):
            raise RuntimeError(f"{function}: expected all tensors on one device, got {sorted({*map(_place, tensors)})}")
        target = kwargs.get("device")
        is_other = bool(ours) if target is None else target == META
        if name == "copy_":
            is_other = isinstance(args[0], OtherTensor)
        if target is not None:
            kwargs["device"] = CPU
        is_late = name == "copy_" and (kwargs.get("non_blocking") or True in args[2:])  # the program goes on meanwhile
        if ours and not is_late and (name in READS or not is_other or _selects_by_mask(name, args)):
            self.reads.append(name)
        result = function(*tree_map(_value, args), **tree_map(_value, kwargs))
        if not is_other:
            return result
        return return_and_correct_aliasing(function, args, kwargs, tree_map(_wrap, result))


def _place(tensor: torch.Tensor) -> str:
    return str(tensor.device)


def _value(thing: Any) -> Any:
    return thing.value if isinstance(thing, OtherTensor) else thing


def _wrap(thing: Any) -> Any:
    return OtherTensor(thing) if isinstance(thing, torch.Tensor) and not isinstance(thing, OtherTensor) else thing


def _selects_by_mask(name: str, args: Any) -> bool:
    """Whether the operation indexes with a mask, which has a result of unknown size."""
    return name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])


def _works() -> bool:
    """Whether this release of torch lets the stand-in send numbers there and back."""
    try:
        with OtherDevice():
            return torch.ones(2, 3).to("cuda").T.cpu().sum().item() == 6
    except RuntimeError:
        return False


WORKS = _works()
needs_other_device = pytest.mark.skipif(not WORKS, reason="this release of torch cannot run the stand-in for a GPU")
