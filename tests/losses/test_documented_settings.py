"""The settings tables of the pages about MACL quote differences that the ablation page contains."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
DIFFERENCE = re.compile(r"(?<![\w.])[+-]\d\.\d\d(?!\d)")


def differences_of_the_ablation():
    rows = re.findall(r"^\|.*\|$", (DOCS / "results" / "ablation.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {row.rstrip("|").rpartition("|")[2].strip() for row in rows}


@pytest.mark.parametrize(
    "name",
    [
        "macl_loss",
        "label_overlap_miner",
        "temperature_scheduled_similarity",
        "frequency_weighted_reducer",
    ],
)
def test_quoted_differences_are_in_the_ablation(name):
    settings = (DOCS / "parts" / f"{name}.md").read_text(encoding="utf-8").partition("## Settings")[2]
    quoted = DIFFERENCE.findall(settings)
    assert len(quoted) >= 4
    assert set(quoted) <= differences_of_the_ablation()
    assert "(../results/ablation.md" in settings
