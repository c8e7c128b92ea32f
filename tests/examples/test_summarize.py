import json

import pytest
import summarize
from report import NAMES


def write_run(folder, value, names=NAMES, **settings):
    """Write the metrics of a finished run and return its folder."""
    folder.mkdir()
    result = {"settings": settings, "before": dict.fromkeys(names, 0.1), "best": dict.fromkeys(names, value)}
    (folder / "metrics.json").write_text(json.dumps(result))
    return str(folder)


def test_mean_and_standard_deviation_by_loss(tmp_path):
    runs = [("macl", 0.2), ("macl", 0.4), ("supcon-any", 0.1)]
    folders = [
        write_run(tmp_path / str(seed), value, loss=loss, seed=seed, lr=0.1) for seed, (loss, value) in enumerate(runs)
    ]
    header, _, first, *_ = summarize.main(folders).splitlines()
    assert header == "| test split, percent | before training (n = 3) | macl (n = 2) | supcon-any (n = 1) |"
    assert first == "| label mAP | 10.0 ± 0.0 | 30.0 ± 14.1 | 10.0 |"


def test_runs_with_other_settings_have_other_columns(tmp_path):
    """An older run may lack a setting."""
    folders = [
        write_run(tmp_path / "a", 0.2, loss="macl", seed=0, lr=0.1, ignore_columns=["tile"], device="cpu"),
        write_run(tmp_path / "b", 0.4, loss="macl", seed=1, lr=0.1, ignore_columns=["tile"], device="cuda"),
        write_run(tmp_path / "c", 0.6, loss="macl", seed=0, lr=0.2, ignore_columns=["tile"], amp=True),
    ]
    header, _, first, *_ = summarize.main(folders).splitlines()
    two, one = ", amp None, lr 0.1 (n = 2)", ", amp True, lr 0.2 (n = 1)"
    columns = [f"{name}{settings}" for name in ("before training", "macl") for settings in (two, one)]
    assert header == f"| test split, percent | {' | '.join(columns)} |"
    assert first == "| label mAP | 10.0 ± 0.0 | 10.0 | 30.0 ± 14.1 | 60.0 |"


def test_a_metric_that_an_older_run_lacks_is_left_out(tmp_path):
    older = [name for name in NAMES if name != "recall_at_5"]
    folders = [write_run(tmp_path / str(len(names)), 0.1, names, loss="macl") for names in (NAMES, older)]
    table = summarize.main(folders)
    assert "recall at 10" in table
    assert "recall at 5" not in table


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*metrics\.json'; give output folders of finished runs"):
        summarize.main([str(tmp_path)])


def test_undefined_metrics_and_joined_embeddings(tmp_path):
    folders = [write_run(tmp_path / str(seed), None, loss="macl", seed=seed) for seed in (0, 1)]
    for folder in folders:
        path = tmp_path / folder / "metrics.json"
        result = json.loads(path.read_text()) | {"joined": {"feature_weight": 0.2, **dict.fromkeys(NAMES, 0.5)}}
        path.write_text(json.dumps(result))
    header, _, first, *_ = summarize.main(folders).splitlines()
    assert header.endswith("| macl (n = 2) | macl, joined 0.2 (n = 2) |")
    assert first == "| label mAP | 10.0 ± 0.0 | nan ± nan | 50.0 ± 0.0 |"
