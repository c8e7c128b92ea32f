"""A property that is computed when it is first asked for."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class computed_once(Generic[Value]):  # used like property and functools.cached_property
    """``functools.cached_property`` without the lock that it has before Python 3.12: torch.compile cannot trace locks.

    Example:
        >>> class Square:
        ...     @computed_once
        ...     def area(self):
        ...         print("computing")
        ...         return 4
        >>> square = Square()
        >>> square.area + square.area
        computing
        8
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self.compute = compute
        self.name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type) -> Value:
        value = self.compute(instance)
        setattr(instance, self.name, value)  # found before the descriptor from now on
        return value
