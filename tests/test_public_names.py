"""The names that ``pml_macl`` itself exports."""

import importlib

import pytest
from public_objects import public_objects

import pml_macl

FOLDERS = {
    "FrequencyWeightedReducer": "reducers",
    "LabelOverlapMiner": "miners",
    "MACLLoss": "losses",
    "MultiLabelAccuracyCalculator": "evaluation",
    "MultiLabelCrossBatchMemory": "losses",
    "MultiLabelInferenceModel": "inference",
    "MultiLabelLossWrapper": "losses",
    "MultiLabelMinerWrapper": "miners",
    "TemperatureScheduledSimilarity": "distances",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_main_parts_can_be_imported_from_the_package(name):
    folder = importlib.import_module(f"pml_macl.{FOLDERS[name]}")
    assert getattr(pml_macl, name) is getattr(folder, name)
    assert name in pml_macl.__all__
    assert name in dir(pml_macl)


def test_every_exported_name_exists():
    names = {}
    exec("from pml_macl import *", names)
    assert set(pml_macl.__all__) <= set(names)
    assert {"labels", "statistics", "__version__"} <= set(dir(pml_macl))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pml_macl' has no attribute 'MACLoss'"):
        pml_macl.MACLoss  # noqa: B018  # reading the attribute is the test


def test_each_public_object_has_one_name():
    names = public_objects()
    assert len(set(names.values())) == len(names)
    assert "pml_macl.losses.MACLLoss" in names
    assert "pml_macl.MACLLoss" not in names
    assert "pml_macl.LabelStatistics" in names
