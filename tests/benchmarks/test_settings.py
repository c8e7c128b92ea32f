import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from settings import DEFAULTS, Settings

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("protocol", DEFAULTS)
def test_given_values_override_the_defaults_of_the_protocol(protocol, tmp_path):
    given = {"output": tmp_path, "epochs": 7, "lr": None, "losses": ["MACL"], "command": "run"}
    settings = Settings.of_protocol(protocol, given)
    assert settings == Settings(tmp_path, protocol, **{**DEFAULTS[protocol], "epochs": 7})
    with pytest.raises(FrozenInstanceError):
        settings.epochs = 8


@pytest.mark.parametrize("folder", ["head", "finetune", "resnet18", "ablation"])
def test_settings_of_the_committed_runs_can_be_recorded_again(folder, tmp_path):
    for line in (RESULTS / folder / "runs.jsonl").read_text().splitlines():
        recorded = json.loads(line)["settings"]
        settings = Settings.of_protocol(recorded["protocol"], {**recorded, "output": tmp_path})
        assert list(settings.recorded().items()) == list(recorded.items())
