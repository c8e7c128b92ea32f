"""PML's record-keeping: it records the settings of a part, and resetting the statistics keeps the settings."""

import pytest
import torch
from parts import make_batch

from pml_macl.distances import TemperatureScheduledSimilarity
from pml_macl.losses import MACLLoss
from pml_macl.miners import LabelOverlapMiner
from pml_macl.reducers import FrequencyWeightedReducer

PARTS = [
    (LabelOverlapMiner, {"positive_threshold": 0.2, "negative_threshold": 0.1}),
    (TemperatureScheduledSimilarity, {"temperature": 0.2, "overlap_scale": 0.5, "rarity_scale": 0.1}),
    (MACLLoss, {"positive_threshold": 0.2, "negative_threshold": 0.1}),
]
REDUCER = (FrequencyWeightedReducer, {"power": 0.5, "overlap_power": 1.0, "anchor_power": 0.5})  # has no stats


@pytest.mark.parametrize(("part", "settings"), [*PARTS, REDUCER])
def test_settings_are_recorded_and_kept_by_a_reset(part, settings):
    module = part(**settings, collect_stats=True)
    assert set(settings) <= set(module._record_these)
    module.reset_stats()
    assert {name: float(getattr(module, name)) for name in settings} == settings
    assert not set(settings) & set(getattr(module, "_record_these_stats", []))


@pytest.mark.parametrize(("part", "settings"), PARTS)
def test_stats_are_zero_after_a_reset(part, settings):
    module = part(**settings, collect_stats=True)
    embeddings, labels = make_batch()
    module(embeddings.detach(), labels=labels)
    stats = module._record_these_stats
    assert any(torch.as_tensor(getattr(module, name)) != 0 for name in stats)
    module.reset_stats()
    assert all(getattr(module, name) == 0 for name in stats)
