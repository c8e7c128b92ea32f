import json
import re
import shlex
from pathlib import Path

import ablation
import pytest
import retrieval
import torch
from classifier import ClassifierLoss, features, weighted_probabilities
from figures import THEMES
from PIL import Image
from protocols import FEATURES
from pytorch_metric_learning.losses import MultipleLosses
from retrieval_bootstrap import interval, query_values, resample
from retrieval_findings import METRICS, against_each_method, edges, findings, mean_of_all
from retrieval_losses import LOSSES, UNTRAINED
from retrieval_report import against_each
from settings import Settings
from training import append_run, is_finished, measure, read_runs

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
    assert [run["stage"] for run in runs] == ["tune"] * 10 + ["test"] * 4
    for run in runs[10:]:
        tuned = [r for r in runs[:10] if r["loss"] == run["loss"]]
        assert run["value"] == max(tuned, key=lambda r: mean_of_all(r["metrics"]))["value"]
    # Without the second line, as after an interruption, the benchmark repeats only that run.
    (output / "runs.jsonl").write_text("\n".join(lines[:1] + lines[2:]) + "\n")
    retrieval.main(command)
    again = [json.loads(line) for line in (output / "runs.jsonl").read_text().splitlines()]
    assert again[-1]["metrics"] == runs[1]["metrics"]
    assert len(again) == 14
    page = tmp_path / "page" / "results.md"
    retrieval.main(["compare", "--output", str(output)])
    retrieval.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text()
    assert "| MACL | " in text
    assert "2 seeds on scenes" in text
    assert "95 % interval" in text
    assert "## MACL against each other method" in text
    assert "R@5, same label set" in text
    for mode in THEMES:
        figure = (page.parent / f"results-scenes-{mode}.svg").read_text(encoding="utf-8")
        assert f"(results-scenes-{mode}.svg#only-{mode})" in text
        assert THEMES[mode].colours[0].lower() in figure.lower()
        assert THEMES[mode].ink.lower() in figure.lower()
        assert "<dc:date>" not in figure
    retrieval.main(["report", "--output", str(output), "--page", str(page)])
    assert (page.parent / "results-scenes-dark.svg").read_text(encoding="utf-8") == figure


def test_every_loss_makes_a_run_of_one_epoch(data, tmp_path, monkeypatch):
    for entry in LOSSES.values():
        monkeypatch.setattr(entry, "grid", entry.grid[:1])
    command = ["run", "--data", str(data), "--output", str(tmp_path), "--seeds", "1", "--epochs", "1"]
    retrieval.main([*command, "--batch-size", "16"])
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert {run["loss"] for run in runs} == set(LOSSES)
    assert len(runs) == 2 * len(LOSSES)
    assert all(0 < value <= 1 for run in runs for value in run["metrics"].values() if value == value)
    sizes = {run["loss"]: run["dimensions"] for run in runs}
    assert sizes.pop(UNTRAINED) == 32  # the fixture's features
    assert [sizes.pop(f"Classifier, {name}") for name in ("features", "probabilities")] == [512, 12]
    assert sizes.pop("Classifier, weighted probabilities") == 12
    joined = {name: sizes.pop(name) - 19 for name in LOSSES if ", joined " in name}  # components of 20 images
    assert joined.pop("Classifier, features, joined 0.2") == 512
    assert joined.pop("Classifier, weighted probabilities, joined 0.2") == 12
    assert set(joined.values()) == {128}
    assert set(sizes.values()) == {128}


def test_a_loss_with_proxies_gives_the_same_run_again(data, tmp_path):
    found = []
    for name in ("one", "two"):
        command = ["run", "--data", str(data), "--output", str(tmp_path / name), "--losses", "MSC", "MACL, proxies"]
        torch.rand(1)  # what was drawn before must not matter
        retrieval.main([*command, "--seeds", "1", "--epochs", "1", "--batch-size", "16"])
        found.append([(run["value"], run["metrics"]) for run in read_runs(tmp_path / name)])
    assert found[0] == found[1]


def test_rare_labels_weigh_more_in_the_classifier():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    statistics = LabelStatistics.from_labels(labels)
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1 / 3, 3, 4]) ** 0.5  # a label without images counts as one with a single image
    expected = -(labels * weights * scores.sigmoid().log() + (1 - labels) * (-scores).sigmoid().log()).mean()
    assert ClassifierLoss(0.5, statistics)(scores, labels.bool()).item() == pytest.approx(expected.item(), rel=1e-6)
    head = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)).eval()
    images = torch.randn(5, 3)
    assert torch.equal(features(head, statistics)(images), head[1](head[0](images)))
    weighted = head(images).sigmoid() / torch.tensor([3.0, 1.0, 1.0]).sqrt()
    assert torch.allclose(weighted_probabilities(head, statistics)(images), weighted)


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


def make_runs(values, curve=(0.5, 0.6)):
    """One run per loss on one data set; every metric has the same value, in percent."""
    return {
        loss: [{"metrics": dict.fromkeys(METRICS, value / 100), "curve": curve, "value": 0.8}]
        for loss, value in values.items()
    }


def make_intervals(macl, other, low, high):
    return [
        {"data": "ml_aid", "metric": metric, "macl": macl, "other": other, "low": low / 100, "high": high / 100}
        for metric in METRICS
    ]


def test_the_conclusions_follow_the_numbers():
    ahead = {"ml_aid": make_runs({"MACL": 60, "MACL, weighted": 59, "SupCon any": 55, "MulSupCon": 57})}
    text = findings(ahead, make_intervals("MACL", "MulSupCon", 1, 5))
    assert "**ML-AID.** One of MACL's variants is ahead of every other method on 7 of 7 metrics" in text
    assert "label mAP (+3.0)" in text
    assert "MACL (1.0), weighted MACL (2.0) and MulSupCon (3.0)" in text
    assert "5.0 points apart" in text
    text = findings(ahead, make_intervals("MACL", "MulSupCon", -1, 5))
    assert "None of MACL's variants is ahead" in text
    assert "The interval of the difference includes 0 on: " in text
    behind = {"ml_aid": make_runs({"MACL": 55, "MACL, weighted": 59, "SupCon any": 62, "MulSupCon": 60})}
    text = findings(behind, make_intervals("MACL, weighted", "SupCon any", -4, -2))
    assert "Another method is ahead on: " in text
    assert "label mAP (-3.0, SupCon any)" in text
    assert "SupCon any (1.0), MulSupCon (2.0) and weighted MACL (3.0)" in text
    assert "these differences may be chance" not in text
    assert "these differences may be chance" in findings(behind, [])


def test_the_conclusion_on_the_length_of_training_follows_the_curves():
    values = {"MACL": 60, "SupCon any": 55}
    text = findings({"ml_aid": make_runs(values, (0.5, 0.6))}, [])
    assert "2 of 2 methods still gain more than 1 point" in text
    text = findings({"ml_aid": make_runs(values, (0.6, 0.605))}, [])
    assert "No method still gains more than 1 point." in text
    assert "Training length" not in findings({"ml_aid": make_runs(values, (0.6,))}, [])


@pytest.mark.parametrize(("gain", "passing"), [(6, "SupCon any on ML-AID"), (4, "no method that is behind it")])
def test_the_page_says_how_much_an_edge_of_the_grid_may_matter(gain, passing):
    runs = {"ml_aid": make_runs({"MACL": 60, "SupCon any": 55})}
    tuned = [
        {"data": "ml_aid", "loss": loss, "value": value, "metrics": dict.fromkeys(METRICS, percent / 100)}
        for loss in ("MACL", "SupCon any")
        for value, percent in ((0.4, 50), (0.8, 50 + gain))
    ]
    text = edges(runs, tuned)
    assert f"| SupCon any | ML-AID | 0.8 | 0.4 | {gain:+.2f} | +5.00 |" in text
    assert f"{passing} would pass MACL" in text
    runs["ml_aid"]["MACL"][0]["value"] = runs["ml_aid"]["SupCon any"][0]["value"] = 0.2
    assert edges(runs, tuned) == "No method uses a value at an edge of its grid."


def test_the_tuned_parameters_have_the_names_of_the_arguments():
    statistics = LabelStatistics(12)
    for name, entry in LOSSES.items():
        if entry.make is None:
            continue
        loss = entry.make(entry.grid[1], statistics)
        for part in loss.losses.values() if isinstance(loss, MultipleLosses) else [getattr(loss, "loss", loss)]:
            owner = part if hasattr(part, entry.parameter) else getattr(part, "distance", part)
            assert getattr(owner, entry.parameter) == entry.grid[1], name


def test_a_network_is_trained_on_images_with_the_settings_of_another_folder(data, tmp_path):
    """The protocol "finetune" trains on tiny images. The protocol "head" extracts missing features once."""
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


def test_tuning_around_a_setting_goes_on_while_the_next_value_is_better(tmp_path, monkeypatch):
    head, output = tmp_path / "head", tmp_path / "finetune"
    quality = {0.05: 0.1, 0.1: 0.2, 0.2: 0.3, 0.4: 0.4, 0.8: 0.35}

    def run_once(settings, data, splits, stage, loss, value, seed, trained):
        key = {"data": data, "stage": stage, "loss": loss, "value": value, "seed": seed}
        if not is_finished(settings.output, key):
            append_run(settings.output, {**key, "metrics": dict.fromkeys(METRICS, quality[value])})

    monkeypatch.setattr(retrieval, "run_once", run_once)
    for folder, start, tried in ((head, None, [0.05, 0.1, 0.2, 0.4, 0.8]), (output, head, [0.2, 0.4, 0.8])):
        folder.mkdir()
        retrieval.tune(Settings.of_protocol("head", {"output": folder}), "scenes", {}, "MACL", start, {})
        assert [run["value"] for run in read_runs(folder)] == tried
        assert retrieval.best_value(folder, "scenes", "MACL") == 0.4
    quality[0.1], quality[0.05] = 0.6, 0.5
    moved = tmp_path / "moved"
    moved.mkdir()
    retrieval.tune(Settings.of_protocol("head", {"output": moved}), "scenes", {}, "MACL", head, {})
    assert [run["value"] for run in read_runs(moved)] == [0.2, 0.4, 0.8]
    quality[0.2] = 0.45
    (moved / "runs.jsonl").unlink()
    retrieval.tune(Settings.of_protocol("head", {"output": moved}), "scenes", {}, "MACL", head, {})
    assert [run["value"] for run in read_runs(moved)] == [0.2, 0.4, 0.8, 0.1, 0.05]
    assert retrieval.best_value(moved, "scenes", "MACL") == 0.1


def test_a_loss_and_its_joined_forms_share_a_training(data, tmp_path, monkeypatch):
    trainings = []
    train = retrieval.train
    monkeypatch.setattr(retrieval, "train", lambda *args: trainings.append(args) or train(*args))
    few = ["--data", str(data), "--seeds", "1", "--epochs", "1", "--batch-size", "16", "--losses"]
    names = ["MACL", "MACL, joined 0.2", "MACL, joined 0.5"]
    retrieval.main(["run", "--output", str(tmp_path / "together"), *few, *names])
    assert len(trainings) == len(LOSSES["MACL"].grid) + len(
        {run["value"] for run in read_runs(tmp_path / "together") if run["stage"] == "test"}
    )
    for name in names:
        retrieval.main(["run", "--output", str(tmp_path / name), *few, name])
        alone = read_runs(tmp_path / name)
        together = [run for run in read_runs(tmp_path / "together") if run["loss"] == name]
        for one, other in zip(together, alone, strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}


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


def resampled(values):
    return torch.stack([resample(run) for run in values])


def test_bootstrap_is_paired():
    values = torch.rand(4, 50, 1, generator=torch.Generator().manual_seed(0))
    assert interval(resampled(values + 0.1), resampled(values)) == pytest.approx([0.1, 0.1], abs=1e-6)
    noise = torch.randn(4, 50, 1, generator=torch.Generator().manual_seed(1))
    low, high = interval(resampled(values + noise), resampled(values))
    assert low < noise.mean() < high
    assert 0.5 < (high - low) / (2 * 1.96 * (noise.mean(dim=0).var() / 50 + noise.mean(dim=1).var() / 4) ** 0.5) < 1.6


def test_resamples_draw_runs():
    values = torch.zeros(2, 50, 1)
    leads = torch.tensor([0.0, 1.0])[:, None, None]  # in one of the two runs only
    assert interval(resampled(values + leads), resampled(values)) == pytest.approx([0.0, 1.0], abs=1e-6)


def test_resamples_average_queries_then_classes():
    values = torch.tensor([[1.0, torch.nan], [torch.nan, 0.5], [0.0, 0.5]])
    draw = torch.randint(3, (2000, 3), generator=torch.Generator().manual_seed(0))
    expected = values.double()[draw].nanmean(dim=1).nanmean(dim=1)
    assert torch.allclose(resample(values), expected, equal_nan=True)


def test_the_page_counts_metrics_ahead_and_behind():
    runs = {"ml_aid": make_runs({"MACL": 60, "SupCon any": 55, "MulSupCon": 57})}
    known = {
        ("ml_aid", metric, "MACL", other): {"low": low, "high": 2.0}
        for other, low in (("SupCon any", 1.0), ("MulSupCon", -1.0))
        for metric in METRICS
    }
    known["ml_aid", "ndcg", "MACL", "MulSupCon"] = {"low": -2.0, "high": -1.0}
    assert "is behind on the most metrics against MulSupCon: behind on 1 of 7, ahead on 0." in against_each_method(
        runs, known
    )
    assert "**MACL against each method.** MACL is not ahead of MulSupCon on more" in against_each_method(runs, known)
    text = against_each(runs, known)
    assert "| SupCon any | 7 | 0 |" in text
    assert "| MulSupCon | 0 | 1 |" in text
    del known["ml_aid", "ndcg", "MACL", "MulSupCon"]
    assert against_each(runs, known) == against_each_method(runs, known) == ""


@pytest.mark.parametrize(("page", "num_losses", "seeds"), [("fine_tuned", 16, None), ("random_weights", 6, 2)])
def test_the_command_of_a_page_trains_the_methods_of_the_page(page, num_losses, seeds):
    text = (ROOT / "docs" / "results" / f"{page}.md").read_text(encoding="utf-8")
    command = re.search(r"^python benchmarks/retrieval.py (run .*)$", text, re.MULTILINE)[1]
    args = retrieval.parse_args(shlex.split(command.replace("DIR [DIR ...]", "DIR")))
    assert len(args.losses) == num_losses
    assert all(f"\n| {loss} | " in text for loss in args.losses)
    assert args.seeds == seeds  # None: the default of the protocol
