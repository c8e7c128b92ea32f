"""Which loss should I use? quotes figures of the results pages."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "learn" / "which_loss.md").read_text(encoding="utf-8")


def label_map(page, metric="label mAP", spread=False):
    """Label mAP or another metric by method, for each table of a results page that has it; as printed."""
    text = (DOCS / "results" / page).read_text(encoding="utf-8")
    tables = []
    for lines in re.findall(r"^\| method \|.*\| label mAP \|(?:.*\n\|.*)+", text, re.MULTILINE):
        rows = [row.replace("*", "").strip("| ").split(" | ") for row in lines.splitlines()]
        column = rows[0].index(metric)
        tables.append({row[0]: row[column] if spread else row[column].split(" ")[0] for row in rows[2:]})
    return tables


def test_figures_of_the_frozen_page():
    ucm, ml_aid = label_map("frozen.md")
    classifier, jaccard = "Classifier, weighted probabilities", "MACL, frequency Jaccard"
    assert f"UC Merced ({ucm[classifier]} against {ucm['MACL']})" in PAGE
    assert f"ML-AID ({ml_aid['MACL']} against {ml_aid[classifier]})" in PAGE
    assert f"{ucm[jaccard]} against {ucm['MACL']} on UC Merced, {ml_aid[jaccard]} against {ml_aid['MACL']}" in PAGE


def test_figures_of_macl_with_proxies():
    joined, tuned = "MACL, proxies, joined 0.2", label_map("fine_tuned.md")
    (ucm, ml_aid), (macl_ucm, macl_ml_aid) = ([table[name] for table in tuned] for name in (joined, "MACL"))
    assert f"label mAP {ucm} on UC Merced and {ml_aid} on ML-AID (MACL alone {macl_ucm} and {macl_ml_aid})" in PAGE
    frozen_ucm, frozen_ml_aid = (table[joined] for table in label_map("frozen.md"))
    quoted = f"{frozen_ucm} frozen and {ucm} fine-tuned on UC Merced, {frozen_ml_aid} and {ml_aid} on ML-AID"
    assert quoted in " ".join(PAGE.split())
    text = (DOCS / "results" / "fine_tuned.md").read_text(encoding="utf-8")
    ranks = dict(re.findall(r"^\| ([^|]+) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \|$", text, re.MULTILINE))
    best, *others = sorted(ranks, key=lambda name: float(ranks[name]))
    assert best == joined
    assert f"the best mean rank of {len(ranks)} methods ({ranks[best]}; MACL alone {ranks['MACL']})" in PAGE
    other = next(name for name in others if not name.startswith("MACL"))
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert other == "Classifier, weighted probabilities, joined 0.2"
    compared = "The best other method, a classifier's weighted probabilities, joined as well, has"
    on_ucm = dict(re.findall(r"^\| ([^|]+) \| ([\d.]+) \| [\d.]+ \| [\d.]+ \|$", text, re.MULTILINE))
    alone = f"{ranks[other]}; on UC Merced alone it is ahead ({on_ucm[other]} against {on_ucm[best]})."
    assert f"of {len(ranks)} methods: {ranks[best]}. {compared} {alone}" in " ".join(readme.split())
    of_msc = f"is {ranks['MSC']} of {len(ranks)}, and {ranks['MSC, joined 0.2']} if it is joined."
    assert f"its [mean rank](../results/fine_tuned.md) {of_msc}" in " ".join(PAGE.split())
    unseen = label_map("generalisation.md")[:2]
    proxies, macl = ([table[name] for table in unseen] for name in ("MACL, proxies", "MACL"))
    assert f"{proxies[0]} instead of {macl[0]} on UC Merced, {proxies[1]} instead of {macl[1]} on ML-AID" in PAGE


def test_figures_of_the_page_on_random_weights():
    (found,) = label_map("random_weights.md")
    order = ("Classifier, weighted probabilities", "MACL, weighted", "MACL")
    quoted = "{} for the classifier's weighted probabilities, {} for weighted MACL, {} for `MACLLoss`"
    assert quoted.format(*(found[name] for name in order)) in PAGE


def test_figures_of_the_page_on_unseen_labels():
    unseen_ucm, unseen_ml_aid, seen_ucm, seen_ml_aid = label_map("generalisation.md")[:4]
    names = ("MACL", "MACL, joined 0.2", "MACL, joined 0.5", "Features, no training")
    (before, little, much, alone), (other_before, other_little, other_much, other_alone) = (
        [table[name] for name in names] for table in (unseen_ucm, unseen_ml_aid)
    )
    assert f"rises from {before} to {little} on UC Merced and from {other_before} to {other_little} on ML-AID" in PAGE
    assert f"with unseen labels {much} and {other_much} (features alone: {alone} and {other_alone})" in PAGE
    changes = [float(table[name]) - float(table["MACL"]) for name in names[1:3] for table in (seen_ucm, seen_ml_aid)]
    assert "changes by {:+.1f} and {:+.1f} points".format(*changes[:2]) in PAGE
    assert "seen labels lose {:.1f} and {:.1f} points".format(*(-change for change in changes[2:])) in PAGE


def test_readme_and_home_page_quote_the_results():
    """README has three columns for each data set: two of the frozen page, and the label mAP of unseen labels."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    frozen, unseen = label_map("frozen.md", spread=True), label_map("generalisation.md", spread=True)[:2]
    exact = label_map("frozen.md", "mAP, same label set", spread=True)
    rows = [row.replace("*", "").strip("| ").split(" | ") for row in readme.splitlines() if "±" in row]
    assert len(rows) == 8
    for name, *cells in rows:
        tables = [table[number][name] for number in (0, 1) for table in (frozen, exact, unseen)]
        assert cells == tables
    index = (DOCS / "results" / "index.md").read_text(encoding="utf-8")
    best = dict(re.findall(r"^\| ([^|]*) \| 18 \| (MACL, [^(]*) \(", index, re.MULTILINE))
    assert {name: [question for question in best if best[question] == name] for name in best.values()} == {
        "MACL, joined 0.2": ["all labels seen", "seen labels", "10 % of the images", "incomplete labels"],
        "MACL, joined 0.5": ["unseen labels", "unseen scenes", "other archive"],
        "MACL, proxies, joined 0.2": ["20 % of the images", "50 % of the images"],
    }  # as README says
    joined = dict(re.findall(r"^\| ([^|]*) \| \d+ \| \*\*(MACL[^(]*) \(.* \|$", index, re.MULTILINE))
    assert set(joined) == {"all labels seen", "fine-tuned", "seen labels"} | {
        f"{percent} % of the images" for percent in (10, 20, 50)
    }  # where MACL is best if all are joined
    assert "each of nine comparisons of 18 methods" in " ".join(readme.split()).replace("In each", "in each")
    home = (DOCS / "index.md").read_text(encoding="utf-8")
    assert "of 18 methods with a frozen backbone and of 16 with a trained one" in " ".join(home.split())
