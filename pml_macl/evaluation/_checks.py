"""Checks that the metric functions share; they look at shapes and names only, so they never wait for a device."""

from collections.abc import Collection

from torch import Tensor


def check_ranks(tensor: Tensor, name: str) -> None:
    """Raise ValueError unless the tensor has the shape (queries, k)."""
    if tensor.ndim != 2:
        raise ValueError(f"{name} must have the shape (queries, k), got {tuple(tensor.shape)}")


def check_same_shape(tensor: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Raise ValueError unless both are (queries, k) of the same size."""
    check_ranks(tensor, name)
    if tensor.shape != other.shape:
        raise ValueError(f"{other_name} must have the shape of {name}, {tuple(tensor.shape)}, got {tuple(other.shape)}")


def check_per_query(tensor: Tensor, name: str, num_queries: int) -> None:
    """Raise ValueError unless there is one value a query."""
    if tuple(tensor.shape) != (num_queries,):
        raise ValueError(f"{name} must have one value a query, shape ({num_queries},), got {tuple(tensor.shape)}")


def check_choice(value: str, name: str, choices: Collection[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
