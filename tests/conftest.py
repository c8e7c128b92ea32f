"""Shared fixtures, and the options of pytest-xdist.

If pytest-xdist is installed, `python -m pytest` runs the suite in one process per CPU. With `-n 0` or `-p no:xdist`, or
if the command line names files or tests, everything runs in a single process. The options are set here because pytest
would refuse `-p no:xdist` if pyproject.toml contained `-n`.
"""

import os
from pathlib import Path

import pytest

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    # The test processes share the CPUs, so each uses one thread. torch reads the variable when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
MAX_PROCESSES = 8  # Each process collects the whole suite, and the slowest file bounds the time.
# All tests of a file run in the same process, so each module fixture is made once. The slowest files start first.
LONGEST_FILES = (
    "test_train.py",
    "test_faults.py",
    "test_process_group.py",
    "test_search_server.py",
    "test_multi_label_distributed_loss_wrapper.py",
    "test_compile.py",
    "properties/test_losses.py",
    "test_multi_label_accuracy_calculator.py",
    "test_long_runs.py",
    "test_search.py",
    "test_precision.py",
    "test_docs.py",
    "test_visualization.py",
    "test_site.py",
    "test_query_share.py",
    "test_feature_cache.py",
    "test_host_synchronisation.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Choose the options of pytest-xdist that the command line leaves open."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    if option.numprocesses is None and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        option.numprocesses = "auto"
        option.maxprocesses = option.maxprocesses or MAX_PROCESSES
    if option.numprocesses and option.dist == "no":
        option.dist = "loadfile"
        option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
    if not hasattr(config, "workerinput"):
        return

    def rank(item):
        path = item.path.as_posix()
        return next((number for number, name in enumerate(LONGEST_FILES) if path.endswith(f"/{name}")), len(items))

    items.sort(key=rank)


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real data sets: $PML_MACL_DATA, or ../shared/data."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PML_MACL_DATA", default))
    if not folder.is_dir():
        pytest.skip(
            f"needs the real data sets, found no folder {folder}; set PML_MACL_DATA to the folder that contains them"
        )
    return folder
