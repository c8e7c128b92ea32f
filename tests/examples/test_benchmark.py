import json
from pathlib import Path

import benchmark
import pytest
from benchmark_losses import LOSSES
from benchmark_protocols import FEATURES

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--losses", "MACL", "PML NTXent", "--seeds", "2", "--epochs", "1", "--batch-size", "16"]


def test_runs_are_written_once_and_reported(data, tmp_path):
    output = tmp_path / "out"
    command = ["run", "--data", str(data), "--output", str(output), *FEW]
    benchmark.main(command)
    lines = (output / "runs.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    assert [run["stage"] for run in runs] == ["tune"] * 8 + ["test"] * 4
    for run in runs[8:]:
        tuned = [r for r in runs[:8] if r["loss"] == run["loss"]]
        assert run["value"] == max(tuned, key=lambda r: sum(r["metrics"].values()))["value"]
    # The second line is lost, as if the benchmark had been stopped: that run alone is made again.
    (output / "runs.jsonl").write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    benchmark.main(command)
    again = [json.loads(line) for line in (output / "runs.jsonl").read_text().splitlines()]
    assert again[-1]["metrics"] == runs[1]["metrics"]
    assert len(again) == 12
    page = tmp_path / "page" / "results.md"
    benchmark.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text()
    assert "| MACL | " in text
    assert "2 seeds" in text
    assert (page.parent / "results-scenes.png").stat().st_size > 1000


def test_every_loss_makes_a_run_of_one_epoch(data, tmp_path, monkeypatch):
    for entry in LOSSES.values():
        monkeypatch.setattr(entry, "grid", entry.grid[:1])
    command = ["run", "--data", str(data), "--output", str(tmp_path), "--seeds", "1", "--epochs", "1"]
    benchmark.main([*command, "--batch-size", "16"])
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert {run["loss"] for run in runs} == set(LOSSES)
    assert len(runs) == 2 * len(LOSSES)
    assert all(0 < value <= 1 for run in runs for value in run["metrics"].values() if value == value)


@pytest.mark.parametrize(("lost", "named"), [("labels.csv", "labels.csv"), (FEATURES, "scenes/images")])
def test_missing_files_are_named(data, tmp_path, lost, named):
    (data / lost).unlink()
    with pytest.raises(SystemExit, match=f"error: .*{named}"):
        benchmark.main(["run", "--data", str(data), "--output", str(tmp_path), *FEW])


def test_the_results_page_and_readme_say_what_the_runs_say(tmp_path):
    page = tmp_path / "results.md"
    benchmark.main(["report", "--output", str(ROOT / "benchmarks" / "results" / "head"), "--page", str(page)])
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text
    rows = {
        row.split(" | ")[0]: row.replace("*", "").removesuffix(" |")
        for row in reversed(text.splitlines())
        if "±" in row
    }
    readme = [row for row in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "±" in row]
    assert len(readme) == 5
    for row in readme:
        name, *cells = row.replace("*", "").removesuffix(" |").split(" | ")
        assert set(cells) <= set(rows[name.replace("SupCon, any shared label", "SupCon any")].split(" | "))


def test_nothing_to_report(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*runs\.jsonl does not exist"):
        benchmark.main(["report", "--output", str(tmp_path), "--page", str(tmp_path / "page.md")])
