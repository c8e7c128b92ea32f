"""A property that is computed on first access and then stored."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class computed_once(Generic[Value]):  # in lower case, like property and functools.cached_property
    """A property that is computed on first access and then stored in the instance.

    It works like ``functools.cached_property``, but without the lock that Python before 3.12 uses there, because
    torch.compile cannot trace locks.

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
        setattr(instance, self.name, value)  # Python finds the instance attribute before this descriptor
        return value
