"""The public classes and functions of the package: everything that a module lists in ``__all__``."""

import importlib
import pkgutil

import pml_macl


def public_objects():
    """Return each public object by one name: that of its folder, if ``pml_macl`` lists the object too."""
    modules = [pml_macl]
    for info in pkgutil.walk_packages(pml_macl.__path__, "pml_macl."):
        modules.append(importlib.import_module(info.name))
    names = {}
    for module in modules:
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if callable(thing):
                names[thing] = f"{module.__name__}.{name}"
    return {name: thing for thing, name in names.items()}
