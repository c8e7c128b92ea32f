"""Each recipe of the page runs by itself."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "use" / "recipes.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
RECIPES = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("title", [title for title, text in RECIPES.items() if BLOCK.search(text)])
def test_runs_by_itself(title):
    torch.manual_seed(0)
    names: dict = {}
    for block in BLOCK.findall(RECIPES[title]):
        exec(compile(block, title, "exec"), names)
