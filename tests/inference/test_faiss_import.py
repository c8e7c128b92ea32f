"""What is said where faiss is missing or installed twice."""

import importlib

import pytest

from pml_macl.inference import faiss_import


def test_two_packages_that_provide_faiss(monkeypatch):
    monkeypatch.setattr(faiss_import, "is_installed", lambda name: name in ("faiss-cpu", "faiss-gpu"))
    with pytest.raises(ImportError, match="pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-gpu"):
        faiss_import.import_faiss()


def test_no_faiss(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(faiss_import, "import_module", missing)
    with pytest.raises(ImportError, match="pip install faiss-cpu, or faiss-gpu on a machine with an NVIDIA GPU"):
        faiss_import.import_faiss()


def test_what_is_installed():
    assert sum(map(faiss_import.is_installed, faiss_import.PACKAGES)) == 1
    assert not faiss_import.is_installed("faiss-nothing")
    assert faiss_import.import_faiss() is importlib.import_module("faiss")
