"""Shared fixtures and the naive float64 oracle that the fast code is compared with."""

import os
from pathlib import Path

import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real data sets; set PML_MACL_DATA to where they lie, or put them into ../shared/data."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PML_MACL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets, which are not part of the repository (looked in {folder})")
    return folder
