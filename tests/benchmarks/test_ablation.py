import json

import ablation
import pytest
from training import read_runs

from pml_macl import LabelStatistics
from pml_macl.distances import TemperatureScheduledSimilarity

QUESTION = "overlap in the temperature"


def test_every_setting_makes_a_loss_that_has_it():
    statistics = LabelStatistics(12)
    for question, answers in ablation.QUESTIONS.items():
        for name, variant in answers.items():
            assert variant != ablation.Variant(), (question, name)
            loss = ablation.make_loss(variant, statistics, steps=10)
            for part, settings in ((loss.distance, variant.distance), (loss.reducer, variant.reducer)):
                for key, value in settings.items():
                    assert getattr(part, key) == value
    wrong = ablation.QUESTIONS[QUESTION]["wrong sign, overlap_scale -0.5"]
    assert ablation.make_loss(wrong, statistics, 10).distance.overlap_scale == -0.5
    with pytest.raises(ValueError, match="overlap_scale"):
        TemperatureScheduledSimilarity(overlap_scale=-0.5)


def test_runs_are_written_once_and_reported(data, tmp_path):
    output, page = tmp_path / "out", tmp_path / "page.md"
    command = ["run", "--data", str(data), "--output", str(output), "--seeds", "2", "--epochs", "1"]
    command += ["--questions", QUESTION, "sampler", "--batch-size", "16"]
    ablation.main(command)
    runs = read_runs(output)
    answers = [ablation.DEFAULT, *ablation.QUESTIONS[QUESTION], "label-balanced"]
    assert [(run["seed"], run["answer"]) for run in runs] == [(seed, name) for seed in range(2) for name in answers]
    ablation.main(command)
    assert read_runs(output) == runs
    # One run of the last answer is lost: it is not compared with others that have all theirs.
    kept = [json.dumps(run) for run in runs[:-1]]
    (output / "runs.jsonl").write_text("\n".join(kept) + "\n")
    ablation.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text()
    assert "| wrong sign, overlap_scale -0.5 | " in text
    assert "label-balanced" not in text
    assert (tmp_path / "page-overlap-in-the-temperature.png").stat().st_size > 1000


def test_nothing_to_report(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*runs\.jsonl does not exist"):
        ablation.main(["report", "--output", str(tmp_path), "--page", str(tmp_path / "page.md")])
