from pathlib import Path

import pytest
import results_index
from results_index import best_cell
from retrieval_findings import METRICS

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


def test_the_page_says_what_the_runs_say(tmp_path):
    results_index.main(["--results", str(ROOT / "benchmarks" / "results"), "--page", str(tmp_path / "index.md")])
    text = (ROOT / "docs" / "results" / "index.md").read_text(encoding="utf-8")
    assert (tmp_path / "index.md").read_text(encoding="utf-8") == text
    assert all(f"| {title} | " in text for title in METRICS.values())
