"""Each recipe runs by itself, and the page about the example scripts names options that exist."""

import re
from pathlib import Path

import pytest
import torch

from pml_macl.losses import MACLLoss

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def sections(name):
    """The text below each heading of a page."""
    page = (ROOT / "docs" / "use" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))


RECIPES = sections("recipes.md")
LOOPS = sections("training_loops.md")
SCRIPTS = {title: text for title, text in sections("examples.md").items() if title.endswith(".py")}


PROGRAMS = {title: BLOCK.findall(text) for title, text in {**RECIPES, **LOOPS}.items() if BLOCK.search(text)}


@pytest.mark.parametrize("title", PROGRAMS)
def test_recipe_runs_by_itself(title):
    if title == "Export the network" and torch.__version__.startswith("2.2."):
        pytest.skip("torch 2.2 cannot load a network with a free batch size that it has exported")
    torch.manual_seed(0)
    names: dict = {}
    for block in PROGRAMS[title]:
        exec(compile(block, title, "exec"), names)


def test_each_program_has_a_section():
    pages = [(ROOT / "docs" / "use" / name).read_text("utf-8") for name in ("recipes.md", "training_loops.md")]
    assert len(PROGRAMS) > 20
    assert sum(map(len, PROGRAMS.values())) == len(BLOCK.findall("\n".join(pages)))


def test_two_forward_passes_give_the_gradient_of_the_large_batch():
    torch.manual_seed(0)
    names: dict = {}
    exec(BLOCK.search(LOOPS["Gradient accumulation"])[1], names)
    model, found = names["model"], names["model"].weight.grad.clone()
    model.zero_grad()
    MACLLoss(num_classes=6)(model(names["images"]), names["labels"]).backward()
    torch.testing.assert_close(found, model.weight.grad)


def test_tests_on_the_page_about_the_ecosystem_exist():
    table = (ROOT / "docs" / "use" / "ecosystem.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", table)
    assert len(named) >= 5
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text("utf-8") if test else (ROOT / file).exists(), (file, test)


def test_every_script_has_a_section():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py") if "\ndef main(" in path.read_text("utf-8")}
    assert set(SCRIPTS) == scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_on_the_page_exist(script):
    sources = [ROOT / "examples" / script]
    if script in ("train.py", "evaluate.py", "search.py", "summarize.py"):  # the last one's section uses train.py
        sources += [ROOT / "examples" / "command_line.py"]
    if script in ("evaluate.py", "search.py"):
        sources += [ROOT / "examples" / "joined.py"]
    known = set(re.findall(r'add\w*\(\s*"(--[\w-]+)"', "".join(path.read_text("utf-8") for path in sources)))
    # Of torchrun; of train.py, named in the section of search.py; of search.py, named in the section of train.py.
    known |= {"--nproc-per-node", "--freeze-trunk", "--feature-weight"}
    assert set(re.findall(r"--[a-z][\w-]+", SCRIPTS[script])) <= known
