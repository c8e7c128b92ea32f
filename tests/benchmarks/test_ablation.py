import json

import ablation
import pytest
from ablation_findings import conclusion, effect
from retrieval_findings import METRICS
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
    # The report omits the last answer, because one of its runs is missing.
    kept = [json.dumps(run) for run in runs[:-1]]
    (output / "runs.jsonl").write_text("\n".join(kept) + "\n")
    ablation.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text()
    assert "| overlap in the temperature: `overlap_scale=-0.5` (negative control) | " in text
    assert "LabelBalancedSampler" not in text
    for mode in ("light", "dark"):
        assert f"(page-{mode}.svg#only-{mode})" in text
        assert (tmp_path / f"page-{mode}.svg").stat().st_size > 1000


def test_nothing_to_report(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*runs\.jsonl does not exist"):
        ablation.main(["report", "--output", str(tmp_path), "--page", str(tmp_path / "page.md")])


def make_runs(percents):
    """One run per seed on ML-AID; every metric has the same value, in percent."""
    return [
        {"data": "ml_aid", "seed": seed, "metrics": dict.fromkeys(METRICS, percent / 100)}
        for seed, percent in enumerate(percents)
    ]


def test_an_effect_is_paired_by_seed():
    found = effect("temperature", "temperature 0.2", make_runs([72, 61, 83]), make_runs([70, 60, 80]))
    assert found.name == "temperature: `temperature=0.2`"
    assert found.difference == pytest.approx(2)
    assert found.noise == pytest.approx(4.30 * 1 / 3**0.5)
    assert found.by_data == {"ml_aid": pytest.approx(2)}
    assert found.group == "unclear"
    assert effect("temperature", "temperature 0.2", make_runs([72]), make_runs([70])).noise is None


def test_the_conclusion_follows_the_numbers():
    default = make_runs([70, 60, 80])

    def said(*percents):
        found = conclusion([effect("frequency weights", "power 0.5", make_runs(percents), default)])
        return {line.split("**")[1]: line for line in found.splitlines() if "**" in line}, found

    lines, text = said(72.1, 62, 81.9)
    assert "frequency weights: `power=0.5` (+2.00)" in lines["Helps"]
    assert "The largest gain that exceeds the noise is that of frequency weights: `power=0.5`." in text
    lines, text = said(68.1, 58, 77.9)
    assert "`power=0.5` (-2.00)" in lines["Hurts"]
    assert "no setting" in lines["Helps"]
    assert "No setting is above the default by more than the noise." in text
    assert "`power=0.5` (+0.20)" in said(70.21, 60.2, 80.19)[0]["Changes little"]
    assert "`power=0.5` (+1.00)" in said(75, 58, 80)[0]["No measurable effect"]
