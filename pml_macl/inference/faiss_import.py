"""Imports faiss when it is needed, and explains what to install if that fails."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cuvs")


def import_faiss() -> Any:
    """The module ``faiss``.

    Raises:
        ImportError: faiss is not installed, or several packages that provide it are; they overwrite each other's files.
    """
    installed = [name for name in PACKAGES if is_installed(name)]
    if len(installed) > 1:
        raise ImportError(
            f"{' and '.join(installed)} are installed, and both provide the module faiss; keep one: "
            f"pip uninstall -y {' '.join(installed)} && pip install {installed[-1]}"
        )
    try:
        return import_module("faiss")
    except ModuleNotFoundError as error:
        raise ImportError(
            "searching needs faiss; pip install faiss-cpu, or faiss-gpu on a machine with an NVIDIA GPU"
        ) from error


def is_installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
