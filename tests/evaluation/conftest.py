"""Random retrieval problems that cover special cases of the definitions."""

import sys

import pytest
import torch
from evaluation_oracles import random_problem

from pml_macl.evaluation.map_in_threads import map_in_threads


@pytest.fixture(params=range(40))
def problem(request):
    return random_problem(request.param)


@pytest.fixture(autouse=True)
def several_threads(request, monkeypatch):
    """Evaluate in at least two threads, although each process of pytest-xdist has only one (see tests/conftest.py).

    Tests that set the number of threads themselves are not changed.
    """
    if "num_threads" not in request.fixturenames:
        threads = max(torch.get_num_threads(), 2)
        monkeypatch.setattr(sys.modules[map_in_threads.__module__], "num_torch_threads", lambda: threads)
