"""The programs of the page about training loops."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "use" / "training_loops.md"


def recipe(title):
    """The code block below a heading."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)[1]
    return re.search(r"^```py(?:thon)?\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[1]


def run(code, **names):
    """Run a program and return its names."""
    exec(compile(code, str(PAGE), "exec"), names)
    return names
