"""Which loss should I use? quotes figures of the results pages."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "learn" / "which_loss.md").read_text(encoding="utf-8")


def label_map(page):
    """Label mAP by method, for each table of a results page that has it; as printed."""
    text = (DOCS / "results" / page).read_text(encoding="utf-8")
    tables = []
    for lines in re.findall(r"^\| method \|.*\| label mAP \|(?:.*\n\|.*)+", text, re.MULTILINE):
        rows = [row.replace("*", "").strip("| ").split(" | ") for row in lines.splitlines()]
        column = rows[0].index("label mAP")
        tables.append({row[0]: row[column].split(" ")[0] for row in rows[2:]})
    return tables


def test_figures_of_the_frozen_page():
    ucm, ml_aid = label_map("frozen.md")
    classifier, jaccard = "Classifier, weighted probabilities", "MACL, frequency Jaccard"
    assert f"UC Merced ({ucm[classifier]} against {ucm['MACL']})" in PAGE
    assert f"ML-AID ({ml_aid['MACL']} against {ml_aid[classifier]})" in PAGE
    assert f"{ucm[jaccard]} against {ucm['MACL']} on UC Merced, {ml_aid[jaccard]} against {ml_aid['MACL']}" in PAGE


def test_figures_of_the_page_on_unseen_labels():
    ucm, ml_aid = label_map("generalisation.md")[:2]
    text = (DOCS / "results" / "generalisation.md").read_text(encoding="utf-8")
    joined = {}
    for group in (
        "unseen labels, UC Merced (multi-label)",
        "unseen labels, ML-AID",
        "seen labels, UC Merced (multi-label)",
        "seen labels, ML-AID",
    ):
        rows = re.search(rf"^\| {re.escape(group)} \|.*\n.*\n.*$", text, re.MULTILINE)[0].replace("*", "").splitlines()
        joined[group] = [row.strip("| ").split(" | ")[-8] for row in rows]  # MACL comes first of eight methods
    (before, _, after), (other_before, _, other_after), seen, other_seen = joined.values()
    features = "Features, no training"
    assert f"rises from {before} to {after} (features alone: {ucm[features]})" in PAGE
    assert f"ML-AID from {other_before} to {other_after} ({ml_aid[features]})" in PAGE
    lost = [float(values[0]) - float(values[2]) for values in (seen, other_seen)]
    assert "seen labels lose {:.1f} and {:.1f} points".format(*lost) in PAGE
