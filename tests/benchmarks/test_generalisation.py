import json
from pathlib import Path

import generalisation
import pytest
import retrieval
import torch
from generalisation_cases import Archive, cases
from generalisation_report import PRIMARY, all_joined, findings, joined_macl, joining, lead_if_all_are_joined
from retrieval_findings import METRICS, RECALLS
from retrieval_losses import UNTRAINED
from training import read_runs

ROOT = Path(__file__).resolve().parents[2]
NUM_CLASSES = 7


def make_archive(seed, num_images=80):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(num_images, NUM_CLASSES, generator=generator) < 0.3
    splits = [("train", "train", "val", "test")[row % 4] for row in range(num_images)]
    scenes = [f"scene {row % 10}" for row in range(num_images)]
    features = torch.arange(num_images)[:, None].float() + 1000 * seed  # tells which image it is
    return Archive(features, labels, splits, scenes)


ARCHIVES = {"one": make_archive(0), "two": make_archive(1)}


def images_of(features):
    return set(features.flatten().long().tolist())


def test_no_case_trains_on_what_it_searches():
    found = list(cases(ARCHIVES, "one", seed=0))
    answers = [case.answer for case in found]
    assert answers == [
        *(f"third {number}" for number in range(3)),
        *(f"fold {number}" for number in range(5)),
        "two",
        "10 %",
        "20 %",
        "50 %",
        "incomplete",
    ]
    for case in found:
        assert case.train.labels.any(dim=1).all()
        trained = images_of(case.train.dataset.tensors[0])
        for features, labels in case.tests.values():
            assert len(features) == len(labels)
            assert not trained & images_of(features)


def test_each_label_is_unseen_once():
    archive, unseen = ARCHIVES["one"], []
    test = archive.rows("test")
    for case in list(cases(ARCHIVES, "one", seed=0))[:3]:
        searched = case.tests["unseen labels"][1].shape[1]
        assert searched + case.tests["seen labels"][1].shape[1] == NUM_CLASSES
        assert case.train.labels.shape[1] == NUM_CLASSES - searched
        unseen.append(case.tests["unseen labels"][1])
    columns = {tuple(column) for column in torch.cat(unseen, dim=1).T.tolist()}
    assert columns == {tuple(column) for column in archive.labels[test].T.tolist()}


def test_each_scene_is_held_out_once():
    archive, searched = ARCHIVES["one"], []
    for case in list(cases(ARCHIVES, "one", seed=0))[3:8]:
        ((features, _),) = case.tests.values()
        out = {archive.scenes[image] for image in images_of(features)}
        assert not out & {archive.scenes[image] for image in images_of(case.train.dataset.tensors[0])}
        searched += images_of(features)
    assert sorted(searched) == [row for row, split in enumerate(archive.splits) if split != "val"]


def test_few_images_other_archive_and_incomplete_labels():
    *_, other, tenth, fifth, half, incomplete = cases(ARCHIVES, "one", seed=1)
    assert other.source == "two"
    assert min(images_of(other.train.dataset.tensors[0])) >= 1000
    labelled = int(ARCHIVES["one"].labels[ARCHIVES["one"].rows("train")].any(dim=1).sum())
    assert len(tenth.train.labels) <= 4 < len(fifth.train.labels) <= 8 < len(half.train.labels) <= 20
    assert (tenth.epochs, fifth.epochs, half.epochs) == (10, 5, 2)
    assert len(incomplete.train.labels) <= labelled
    kept = incomplete.train.labels.sum() / ARCHIVES["one"].labels[ARCHIVES["one"].rows("train")].sum()
    assert 0.5 < kept < 0.9


def test_runs_are_written_once_compared_and_reported(data, tmp_path, monkeypatch):
    few = ("third 0", "10 %")
    monkeypatch.setattr(generalisation, "cases", lambda *given: [case for case in cases(*given) if case.answer in few])
    lines = (data / "labels.csv").read_text().splitlines()
    rows = [line.replace(",x,", f",{number % 5},") for number, line in enumerate(lines)]
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    methods = ["MACL", "Classifier, features", "Features, no training"]
    head, output = tmp_path / "head", tmp_path / "out"
    tune = ["run", "--data", str(data), "--output", str(head), "--epochs", "1", "--batch-size", "16", "--seeds", "1"]
    retrieval.main([*tune, "--losses", *methods])
    command = ["run", "--data", str(data), "--tuned", str(head), "--output", str(output), "--seeds", "1"]
    command += ["--epochs", "1", "--batch-size", "16", "--methods", *methods]
    generalisation.main(command)
    runs = read_runs(output)
    # A third with two questions, and a tenth of the images; three weights of the features, two untrained.
    assert len(runs) == (2 + 1) * (2 * 3 + 2)
    assert all(run["metrics"].keys() == METRICS.keys() for run in runs)
    assert all(run["recall"].keys() >= RECALLS.keys() for run in runs)
    generalisation.main(command)
    assert len(read_runs(output)) == len(runs)
    page = tmp_path / "page.md"
    with pytest.raises(SystemExit, match="run the command compare first"):
        generalisation.main(["report", "--output", str(output), "--page", str(page)])
    generalisation.main(["compare", "--output", str(output)])
    generalisation.main(["report", "--output", str(output), "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert "**Unseen labels, scenes.** On label mAP, MACL (" in text
    assert (tmp_path / "page-10_percent_of_the_images-dark.svg").is_file()
    assert "| unseen labels, scenes | 0 | " in text
    compared = read_comparisons(output)
    equally = {
        ("MACL, joined 0.2", "Classifier, features, joined 0.2"),
        ("MACL, joined 0.5", "Classifier, features, joined 0.5"),
    }
    assert {(macl, other) for macl, other in compared if "joined" in macl and "joined" in other} == equally


def read_comparisons(folder):
    lines = map(json.loads, (folder / "comparisons.jsonl").read_text().splitlines())
    return {(line["macl"], line["other"]) for line in lines}


def test_methods_joined_at_the_same_weight_are_counted():
    macl, other = "MACL, joined 0.2", "MulSupCon, joined 0.2"
    groups = ("unseen labels, ML-AID", "seen labels, ML-AID")
    every = {
        group: {name: [] for name in ("MACL", "MulSupCon", macl, other, "MulSupCon, joined 0.5")} for group in groups
    }
    known = {(group, metric, macl, other): {"low": -1, "high": 1} for group in groups for metric in METRICS}
    known |= {(groups[0], metric, macl, other): {"low": 1, "high": 2} for metric in ("ndcg", "map_any")}
    known[groups[1], "ndcg", macl, other] = {"low": -2, "high": -1}
    assert joined_macl(every) == [macl]
    header, _, row = all_joined(every, known, macl).splitlines()
    assert header == "| other method | unseen labels (of 7) | seen labels (of 7) |"
    assert row == "| MulSupCon | 2 / 0 | 0 / 1 |"
    (line,) = lead_if_all_are_joined(every, known)
    assert line.endswith("on more metrics than it is behind: unseen labels 1 and seen labels 0.")


def test_the_findings_name_who_is_ahead():
    def run(value, weight=0.0):
        return [{"metrics": dict.fromkeys(METRICS, value), "feature_weight": weight}]

    group = "unseen labels, ML-AID"
    every = {group: {"MACL": run(0.5), "MulSupCon": run(0.4), "Classifier, features": run(0.6), "SupCon any": run(0.5)}}
    bounds = {"MulSupCon": (0.05, 0.15), "Classifier, features": (-0.2, -0.1), "SupCon any": (-0.1, 0.1)}
    known = {
        (group, metric, "MACL", other): {"low": low, "high": high}
        for metric in METRICS
        for other, (low, high) in bounds.items()
    }
    text = findings(every, known)
    assert "MACL (50.0) is behind the classifier's features (60.0); ahead of MulSupCon (40.0)" in text
    assert "undecided against SupCon any (50.0)" in text
    assert "The best are the classifier's features (1.0)" in text
    assert "Joined" not in text


def test_the_findings_count_what_joining_changes():
    every, known = {}, {}
    for group, gain, lead in (("a", 0.1, -0.1), ("b", -0.1, -0.2), ("c", 0.1, 0.2)):
        every[group] = {"MACL, joined 0.5": [{"feature_weight": 0.5}], "MACL": [{"feature_weight": 0.0}]}
        for other, middle in (("MACL", gain), (UNTRAINED, lead)):
            known[group, PRIMARY, "MACL, joined 0.5", other] = {"low": middle - 0.05, "high": middle + 0.05}
    (line,) = joining(every, known)
    assert line.startswith("**MACL joined with features, w = 0.5.** Of 3 pairs of a question and a data set, ")
    assert "MACL's label mAP rises on 2 and falls on 1." in line
    assert "ahead of features without training on 1 and behind on 2." in line


def test_the_page_says_what_the_runs_say(tmp_path):
    folder = ROOT / "benchmarks" / "results" / "generalisation"
    generalisation.main(["report", "--output", str(folder), "--page", str(tmp_path / "generalisation.md")])
    page = ROOT / "docs" / "results" / "generalisation.md"
    assert (tmp_path / "generalisation.md").read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert all(json.loads(line)["versions"] for line in (folder / "runs.jsonl").read_text().splitlines()[:1])
