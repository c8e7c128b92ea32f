"""What the package promises: the objects that the modules list in ``__all__``."""

import importlib
import pkgutil

import pml_macl


def public_objects():
    """The classes and functions by the name under which they are public."""
    modules = [pml_macl]
    for info in pkgutil.walk_packages(pml_macl.__path__, "pml_macl."):
        modules.append(importlib.import_module(info.name))
    found = {}
    for module in modules:
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if callable(thing):
                found[f"{module.__name__}.{name}"] = thing
    return found
