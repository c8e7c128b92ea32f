"""The conclusion of the precision page follows its tables."""

from pathlib import Path

from precision import MODES, conclusion

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "precision.md"


def test_the_conclusion_names_the_largest_errors():
    rows = [f"| {name} | " + " | ".join([errors] * len(MODES)) + " |" for name, errors in (("A", "1e-07, 3e-02"),)]
    rows.append("| B | " + " | ".join(["2e-06, 1e-03"] * len(MODES)) + " |")
    text = conclusion(["| loss | " + " | ".join(MODES) + " |", "|---|---:|", *rows, "prose"])
    assert text.splitlines()[0] == "- **float32**: at most 2e-06 in the value (`B`) and 3e-02 in the gradient (`A`)."
    assert len(text.splitlines()) == len(MODES)


def test_the_page_says_what_its_tables_say():
    text = PAGE.read_text(encoding="utf-8")
    assert f"\n{conclusion(text.splitlines())}\n" in text
