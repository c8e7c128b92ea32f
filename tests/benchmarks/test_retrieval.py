import json
from pathlib import Path

import ablation
import numpy as np
import pytest
import retrieval
import torch
from PIL import Image
from protocols import FEATURES
from retrieval_bootstrap import bootstrap, query_values
from retrieval_losses import LOSSES
from training import measure, read_runs

from pml_macl import LabelStatistics
from pml_macl.datasets import SyntheticScenes

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--losses", "MACL", "PML NTXent", "--seeds", "2", "--epochs", "1", "--batch-size", "16"]


def test_runs_are_written_once_and_reported(data, tmp_path):
    output = tmp_path / "out"
    command = ["run", "--data", str(data), "--output", str(output), *FEW]
    retrieval.main(command)
    lines = (output / "runs.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    assert [run["stage"] for run in runs] == ["tune"] * 8 + ["test"] * 4
    for run in runs[8:]:
        tuned = [r for r in runs[:8] if r["loss"] == run["loss"]]
        assert run["value"] == max(tuned, key=lambda r: sum(r["metrics"].values()))["value"]
    # The second line is lost, as if the benchmark had been stopped: that run alone is made again.
    (output / "runs.jsonl").write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    retrieval.main(command)
    again = [json.loads(line) for line in (output / "runs.jsonl").read_text().splitlines()]
    assert again[-1]["metrics"] == runs[1]["metrics"]
    assert len(again) == 12
    page = tmp_path / "page" / "results.md"
    retrieval.main(["compare", "--output", str(output)])
    retrieval.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text()
    assert "| MACL | " in text
    assert "2 seeds on scenes" in text
    assert "95 % interval" in text
    assert (page.parent / "results-scenes.png").stat().st_size > 1000


def test_every_loss_makes_a_run_of_one_epoch(data, tmp_path, monkeypatch):
    for entry in LOSSES.values():
        monkeypatch.setattr(entry, "grid", entry.grid[:1])
    command = ["run", "--data", str(data), "--output", str(tmp_path), "--seeds", "1", "--epochs", "1"]
    retrieval.main([*command, "--batch-size", "16"])
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert {run["loss"] for run in runs} == set(LOSSES)
    assert len(runs) == 2 * len(LOSSES)
    assert all(0 < value <= 1 for run in runs for value in run["metrics"].values() if value == value)


@pytest.mark.parametrize(("lost", "named"), [("labels.csv", "labels.csv"), (FEATURES, "scenes/images")])
def test_missing_files_are_named(data, tmp_path, lost, named):
    (data / lost).unlink()
    with pytest.raises(SystemExit, match=f"error: .*{named}"):
        retrieval.main(["run", "--data", str(data), "--output", str(tmp_path), *FEW])


RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("script", "runs", "name"),
    [
        (retrieval, "head", "frozen.md"),
        (retrieval, "finetune", "fine_tuned.md"),
        (retrieval, "resnet18", "random_weights.md"),
        (ablation, "ablation", "ablation.md"),
    ],
)
def test_pages_say_what_the_runs_say(script, runs, name, tmp_path):
    script.main(["report", "--output", str(RESULTS / runs), "--page", str(tmp_path / name)])
    page = ROOT / "docs" / "results" / name
    assert (tmp_path / name).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_readme_says_what_the_results_page_says():
    text = (ROOT / "docs" / "results" / "frozen.md").read_text(encoding="utf-8")
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


def test_a_network_is_trained_on_images_with_the_settings_of_another_folder(data, tmp_path):
    """Protocol finetune on tiny images; and features that are not given are extracted once."""
    (data / "images").mkdir()
    scenes = SyntheticScenes(80, seed=4)
    for row in range(len(scenes)):
        Image.fromarray((255 * scenes[row][0].permute(1, 2, 0)).byte().numpy()).save(data / "images" / f"{row}.png")
    (data / FEATURES).unlink()
    few = ["--losses", "MACL", "--seeds", "1", "--epochs", "1", "--batch-size", "16", "--image-size", "32"]
    head, output = tmp_path / "head", tmp_path / "finetune"
    retrieval.main(["run", "--data", str(data), "--output", str(head), *few])
    command = ["run", "--protocol", "finetune", "--data", str(data), "--output", str(output), *few]
    command += ["--backbone", "small-cnn", "--no-pretrained", "--tuned"]
    with pytest.raises(SystemExit, match="has no tuned setting of MACL"):
        retrieval.main([*command, str(tmp_path)])
    retrieval.main([*command, str(head)])
    tuned = [run["value"] for run in read_runs(head) if run["stage"] == "test"]
    (run,) = read_runs(output)
    assert [run["value"]] == tuned
    assert run["settings"]["backbone"] == "small-cnn"
    assert len(run["curve"]) == 1
    assert (head / f"scenes-{FEATURES}").is_file()


def test_nothing_to_report(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*runs\.jsonl does not exist"):
        retrieval.main(["report", "--output", str(tmp_path), "--page", str(tmp_path / "page.md")])


def test_values_of_queries_average_to_the_metrics_of_the_run():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(60, 6, generator=generator) < torch.linspace(0.05, 0.6, 6)
    embeddings = torch.randn(60, 5, generator=generator) + labels.float() @ torch.randn(6, 5, generator=generator)
    statistics = LabelStatistics.from_labels(labels)
    values = query_values(embeddings, labels, statistics.counts)
    expected = measure(embeddings, labels, statistics)["metrics"]
    means = {metric: value.nanmean(dim=0).nanmean().item() for metric, value in values.items()}
    assert means == pytest.approx(expected, abs=1e-6)


def test_bootstrap_is_paired():
    values = torch.rand(4, 50, 1, generator=torch.Generator().manual_seed(0))
    drawn = bootstrap(values + 0.1, values)
    assert drawn == pytest.approx([0.1] * len(drawn), abs=1e-6)
    noise = torch.randn(4, 50, 1, generator=torch.Generator().manual_seed(1))
    low, high = np.quantile(bootstrap(values + noise, values), (0.025, 0.975))
    assert low < noise.mean() < high
    assert 0.5 < (high - low) / (2 * 1.96 * (noise.mean(dim=0).var() / 50 + noise.mean(dim=1).var() / 4) ** 0.5) < 1.6
