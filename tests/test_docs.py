"""The code of README and of the pages runs, and the pages agree with the package."""

import inspect
import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from public_objects import public_objects

import pml_macl

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


RECIPES = ("recipes.md", "training_loops.md")  # test_use_pages.py runs each section of these pages by itself


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in RECIPES], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_blocks_run(page):
    torch.manual_seed(0)
    names: dict = {}
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(block, str(page), "exec"), names)


def test_readme_and_home_page_have_code():
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        assert BLOCK.search(page.read_text(encoding="utf-8"))


PARTS = sorted(page for page in (ROOT / "docs" / "parts").glob("*.md") if page.stem not in ("index", "pml_parts"))
SECTIONS = ["Label contract", "Implementation notes", "Settings", "Example"]
NO_PARTS = ("visualization", "functional")  # these pages list functions


@pytest.mark.parametrize("page", PARTS, ids=lambda page: page.stem)
def test_pages_of_parts_have_the_same_sections(page):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    if page.stem in NO_PARTS:
        assert headings == []
    else:
        assert headings == SECTIONS
        assert text.index("::: pml_macl") < text.index("## Label contract")
        assert len(BLOCK.findall(text)) == 1


@pytest.mark.parametrize(
    "name", ["macl_loss", "label_overlap_miner", "temperature_scheduled_similarity", "frequency_weighted_reducer"]
)
def test_pages_of_macl_list_what_the_paper_leaves_open(name):
    text = (ROOT / "docs" / "parts" / f"{name}.md").read_text(encoding="utf-8")
    introduction = "The paper does not specify the following; this implementation chooses:\n\n"
    assert text.count(introduction) == 1
    choices = text.partition(introduction)[2].partition("\n\n")[0]
    assert len(re.findall(r"^- \*\*", choices, re.MULTILINE)) >= 3


def test_the_page_about_parts_of_pml_is_generated_from_the_table():
    script = runpy.run_path(str(ROOT / "docs" / "generate_pml_parts.py"))
    page = (ROOT / "docs" / "parts" / "pml_parts.md").read_text(encoding="utf-8")
    assert page == script["pml_parts_page"](), "run: python docs/generate_pml_parts.py > docs/parts/pml_parts.md"


def test_every_public_object_has_a_page():
    shown = re.findall(r"^::: (\S+)$", "\n".join(page.read_text(encoding="utf-8") for page in PARTS), re.MULTILINE)
    whole = {"pml_macl.evaluation", "pml_macl.functional"}  # a page shows all functions of these modules
    missing = {name for name in public_objects() if name not in shown and name.rpartition(".")[0] not in whole}
    assert missing == set()


@pytest.mark.parametrize("name", public_objects())
def test_documented_arguments_equal_the_signature(name):
    thing = public_objects()[name]
    documented = re.search(r"^ *Args:\n(.*?)(?=^ *\w+:\n|\Z)", inspect.getdoc(thing), re.DOTALL | re.MULTILINE)
    arguments = [
        ("*" * (p.kind is p.VAR_POSITIONAL) or "**" * (p.kind is p.VAR_KEYWORD)) + p.name
        for p in inspect.signature(thing).parameters.values()
    ]
    in_docs = re.findall(r"^    (\**\w+): ", documented[1], re.MULTILINE) if documented else []
    if name not in ("pml_macl.distances.TemperatureSchedule", "pml_macl.inference.SearchResults"):  # made by others
        assert [name.strip() for name in in_docs] == arguments


@pytest.mark.parametrize(
    "notebook", sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebooks_are_committed_with_the_outputs_of_one_complete_run(notebook):
    assert notebook.stat().st_size < 250_000
    content = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs
    for output in outputs:  # neither errors nor warnings, which would show local paths
        assert output["output_type"] in ("stream", "execute_result")
        assert output.get("name", "stdout") == "stdout"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/development/releasing.md"])
def test_files_named_for_contributors_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    found = set(re.findall(r"(?<![\w./])(?:pml_macl|tests|docs|examples|benchmarks|\.ci|\.github)(?:/[\w.]+)+", text))
    named = {path for path in found if "my_" not in path}  # my_loss.py and the like stand for new files
    assert len(named) > 3
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_citation_has_the_version_of_the_package():
    version = pml_macl.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
