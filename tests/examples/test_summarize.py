import json

import pytest
import summarize
from report import NAMES


def test_mean_and_standard_deviation_by_loss(tmp_path):
    folders = []
    for number, (loss, value) in enumerate([("macl", 0.2), ("macl", 0.4), ("supcon-any", 0.1)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = {
            "settings": {"loss": loss},
            "before": dict.fromkeys(NAMES, 0.1),
            "best": dict.fromkeys(NAMES, value),
        }
        (folder / "metrics.json").write_text(json.dumps(result))
        folders.append(str(folder))
    header, _, first, *_ = summarize.main(folders).splitlines()
    assert header == "| test split, percent | before training (n = 3) | macl (n = 2) | supcon-any (n = 1) |"
    assert first == "| label mAP | 10.0 ± 0.0 | 30.0 ± 14.1 | 10.0 ± 0.0 |"


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        summarize.main([str(tmp_path)])
