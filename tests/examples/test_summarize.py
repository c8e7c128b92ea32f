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


def test_a_metric_that_an_older_run_lacks_is_left_out(tmp_path):
    folders = []
    for number, names in enumerate([NAMES, [name for name in NAMES if name != "recall_at_5"]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        values = dict.fromkeys(names, 0.1)
        (folder / "metrics.json").write_text(
            json.dumps({"settings": {"loss": "macl"}, "before": values, "best": values})
        )
        folders.append(str(folder))
    table = summarize.main(folders)
    assert "recall at 10" in table
    assert "recall at 5" not in table


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        summarize.main([str(tmp_path)])
