from pathlib import Path

import pytest
import results_index
from results_index import METHODS, best_cell, best_joined_table, best_ranks_table, rank_table
from retrieval_findings import METRICS
from retrieval_report import each_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("bounds", "cell"),
    [
        ((-0.05, -0.01), "MulSupCon 63.0; MACL -3.0 (**-5.0 to -1.0**)"),
        ((-0.07, 0.01), "MulSupCon 63.0; MACL -3.0 (-7.0 to +1.0)"),
    ],
)
def test_a_cell_names_the_best_method_and_what_macl_lacks(bounds, cell):
    by_loss = {"MACL": [{"metrics": {"ndcg": 0.60}}], "MulSupCon": [{"metrics": {"ndcg": 0.63}}]}
    known = {("ml_aid", "ndcg", "MACL", "MulSupCon"): dict(zip(("low", "high"), bounds, strict=True))}
    assert best_cell("ml_aid", by_loss, "ndcg", known) == cell
    by_loss["MACL"][0]["metrics"]["ndcg"] = 0.7
    assert best_cell("ml_aid", by_loss, "ndcg", known) == "MACL 70.0"


def test_the_first_table_names_the_methods_that_macl_is_not_ahead_of():
    values = dict.fromkeys(METHODS, 0.5) | {"MACL": 0.6, "MulSupCon": 0.7}
    runs = {"ml_aid": {loss: [{"metrics": dict.fromkeys(METRICS, value)}] for loss, value in values.items()}}
    bounds = {"MulSupCon": {"low": -0.2, "high": -0.1}}
    known = {
        ("ml_aid", metric, "MACL", other): bounds.get(other, {"low": 0.05, "high": 0.15})
        for metric in METRICS
        for other in METHODS
    }

    def row():
        return best_ranks_table({"unseen labels": runs}, known).splitlines()[-1]

    assert row() == f"| unseen labels | {len(METHODS)} | MulSupCon (1.0) | MACL (2.0) |  | MulSupCon (7 / 0) |"
    known |= {("ml_aid", metric, "MACL", "MulSupCon"): {"low": -0.1, "high": 0.1} for metric in METRICS}
    assert row().endswith("| none |")
    runs["ml_aid"]["MACL"][0]["metrics"] = dict.fromkeys(METRICS, 0.8)
    assert row() == f"| unseen labels | {len(METHODS)} | MACL (1.0) | MulSupCon (2.0) | none | none |"


def test_methods_joined_alike_are_ranked_without_the_others():
    values = {
        "MACL": 0.9,
        "MACL, joined 0.2": 0.6,
        "MSC, joined 0.2": 0.7,
        "HyP2, joined 0.2": 0.5,
        "MACL, joined 0.5": 1,
    }
    runs = {
        data: {loss: [{"metrics": dict.fromkeys(METRICS, value)}] for loss, value in values.items()} for data in "ab"
    }
    del runs["a"]["HyP2, joined 0.2"]
    header, _, row = best_joined_table({"seen labels": runs}).splitlines()
    assert header == "| question | methods | best variant of MACL | best other method |"
    assert row == "| seen labels | 2 | MACL (2.0) | **MSC (1.0)** |"


def test_a_group_may_have_fewer_methods():
    run = [{"metrics": dict.fromkeys(METRICS, 0.5)}]
    few = ["MACL", *METHODS[-1:], "MulSupCon"]
    groups = {"all": {"a": dict.fromkeys(METHODS, run)}, "few": {"b": dict.fromkeys(few, run)}}
    rows = [row.strip("| ").split(" | ") for row in rank_table(groups).splitlines()]
    assert rows[0] == ["method", "all", "few", "mean"]
    assert {row[0] for row in rows[2:] if row[2]} == set(few)
    known = {(data, metric, "MACL", "MulSupCon"): {"low": 1, "high": 2} for data in "ab" for metric in METRICS}
    known |= {("a", metric, "MACL", "HyP2"): {"low": -2, "high": -1} for metric in METRICS}
    text = each_table(groups, known, {other: ("MACL", other) for other in ("MulSupCon", "HyP2")})
    assert text.splitlines()[2:] == ["| MulSupCon | 7 / 0 | 7 / 0 |", "| HyP2 | 0 / 7 |  |"]


def test_the_page_says_what_the_runs_say(tmp_path):
    results_index.main(["--results", str(ROOT / "benchmarks" / "results"), "--page", str(tmp_path / "index.md")])
    text = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    assert (tmp_path / "index.md").read_text(encoding="utf-8") == text
    assert all(f"| {title} | " in text for title in METRICS.values())
