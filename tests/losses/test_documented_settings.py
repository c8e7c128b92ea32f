"""The pages that advise on settings of MACL quote differences that the ablation page contains."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
DIFFERENCE = re.compile(r"(?<![\w.])[+-]\d\.\d\d(?!\d)")


def differences_of_the_ablation():
    rows = re.findall(r"^\|.*\|$", (DOCS / "results" / "ablation.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {row.rstrip("|").rpartition("|")[2].strip() for row in rows}


@pytest.mark.parametrize(
    ("page", "section"),
    [
        ("parts/macl_loss.md", "## Settings"),
        ("parts/label_overlap_miner.md", "## Settings"),
        ("parts/temperature_scheduled_similarity.md", "## Settings"),
        ("parts/frequency_weighted_reducer.md", "## Settings"),
        ("learn/which_loss.md", "## Which settings matter"),
    ],
)
def test_quoted_differences_are_in_the_ablation(page, section):
    settings = (DOCS / page).read_text(encoding="utf-8").partition(section)[2]
    quoted = DIFFERENCE.findall(settings)
    assert len(quoted) >= 4
    assert set(quoted) <= differences_of_the_ablation()
    assert "(../results/ablation.md" in settings
