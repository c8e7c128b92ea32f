"""Checks the metadata of the package: requirements, supported Pythons, CI, the citation file, the changelog."""

import ast
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ast.literal_eval(
    re.search(r"^PYTHONS = (.*)$", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)[1]
)
# The distributions that install each module. packages_distributions of Python 3.10 misses most wheels.
OWNERS: dict[str, set[str]] = {}
for found in distributions():
    name = found.metadata["Name"]  # each access parses the metadata again
    for module in {file.parts[0].removesuffix(".py") for file in found.files or ()}:
        OWNERS.setdefault(module, set()).add(name)


def names(requirements):
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def imported(files, top_level_only):
    """Third-party modules that the files import: all of them, or only those at the top level of a file."""
    found = set()
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body if top_level_only else ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split(".")[0])
    own = {file.stem for folder in ("benchmarks", "examples", "tests") for file in (ROOT / folder).glob("*.py")}
    return found - sys.stdlib_module_names - own - {"pml_macl"}


def required_by(modules):
    # A module that is not installed, such as timm, is assumed to have the name of its distribution.
    return names(owner for module in modules for owner in OWNERS.get(module, {module}))


@pytest.mark.parametrize(
    ("folder", "top_level_only", "extras"),
    [
        ("pml_macl", True, []),
        ("pml_macl", False, ["examples", "search", "torchmetrics"]),
        ("examples", False, ["examples", "search", "serve", "tiff", "timm"]),
        ("benchmarks", False, ["examples", "search", "serve", "tiff", "timm", "torchmetrics", "dev"]),
    ],
)
def test_what_is_imported_is_required(folder, top_level_only, extras):
    required = names(PROJECT["dependencies"] + [name for extra in extras for name in EXTRAS[extra]])
    modules = imported((ROOT / folder).rglob("*.py"), top_level_only)
    assert {"torch", "pytorch_metric_learning"} <= modules
    assert required_by(modules) <= required


def test_without_the_extras_all_modules_import_and_evaluation_works():
    """The package itself also imports without PML, which takes seconds to import."""
    optional = names(EXTRAS["examples"] + EXTRAS["search"] + EXTRAS["torchmetrics"] + EXTRAS["docs"])
    extras = optional - names(PROJECT["dependencies"]) - {"tqdm"}  # PML needs tqdm
    blocked = {module for module, owners in OWNERS.items() if names(owners) & extras}
    assert {"PIL", "matplotlib", "faiss", "torchmetrics", "torchvision"} <= blocked
    script = f"""
import importlib, pkgutil, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
import pml_macl
assert not {{"pytorch_metric_learning", "pml_macl.losses"}} & set(sys.modules)
assert "MACLLoss" in dir(pml_macl)
from pml_macl import MACLLoss
assert MACLLoss is sys.modules["pml_macl.losses"].MACLLoss
modules = [info.name for info in pkgutil.walk_packages(pml_macl.__path__, "pml_macl.")]
for name in modules:
    importlib.import_module(name)
print(len(modules))

import torch
from pml_macl.evaluation import *  # without MultiLabelRetrieval
from pml_macl.testers import MultiLabelEmbeddingSpaceTester
MultiLabelEmbeddingSpaceTester()
MultiLabelAccuracyCalculator().get_accuracy(torch.eye(3), torch.ones(3, 2))
assert "MultiLabelRetrieval" in dir(pml_macl.evaluation)
try:
    MultiLabelRetrieval()
except ImportError as error:
    assert "pip install torchmetrics" in str(error), error
else:
    raise AssertionError("no error")
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 50


def test_supported_pythons_are_those_of_the_nox_file():
    classifiers = [name.rsplit(" ", 1)[1] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert classifiers == PYTHONS
    assert PROJECT["requires-python"] == f">={classifiers[0]}"


def test_ci_runs_everything_and_the_tests_on_every_supported_python():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert ".ci/run" in commands["everything"]
    assert "nox -s tests-${{ matrix.python }}" in commands["tests"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == PYTHONS
    assert jobs["oldest"]["steps"][1]["with"]["python-version"] == PYTHONS[0]
    sessions = " ".join(
        command.removeprefix("nox -s ") for command in commands["oldest"] if "nox -s" in command
    ).split()
    defined = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert sessions == [name for name in defined if name.endswith("_oldest")]


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_templates_can_be_read(form):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.stem == "config":
        assert content.keys() == {"blank_issues_enabled"}
        return
    assert {"name", "description", "body"} <= content.keys()
    names = [part["id"] for part in content["body"]]
    assert len(set(names)) == len(names) >= 2
    assert all(part["attributes"]["label"] for part in content["body"])


def test_each_lower_bound_has_one_number_to_test():
    extras = [name for extra in ("examples", "search", "torchmetrics", "docs") for name in EXTRAS[extra]]
    for requirement in PROJECT["dependencies"] + extras:
        # The form that the function oldest of noxfile.py can read.
        assert re.fullmatch(r"[\w.\[\]-]+>=\d+(\.\d+)+(,<\d+)?(; [\w <\'.]+)?", requirement), requirement


def test_the_extra_docs_brings_what_formats_signatures():
    assert "ruff" in names(
        EXTRAS["docs"]
    )  # mkdocstrings does not require a formatter, but without one each signature is a single line


# The keys of Citation File Format 1.2.0 that this file may use.
KEYS = {"cff-version", "message", "title", "type", "authors", "version", "date-released", "license", "url", "keywords"}
REFERENCE_KEYS = {"type", "title", "authors", "year", "month", "url", "doi", "journal", "identifiers", "notes"}


def test_citation_file_is_valid():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() <= KEYS | {"references"}
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]  # with preferred-citation instead, readers would cite the paper alone
    assert {"type", "title", "authors"} <= paper.keys() <= REFERENCE_KEYS
    assert paper["url"] == PROJECT["urls"]["Paper"]
    assert paper["identifiers"][0]["value"].removeprefix("arXiv:") == paper["url"].rsplit("/", 1)[1]
    for author in citation["authors"] + paper["authors"]:
        assert author.keys() in ({"name"}, {"given-names", "family-names"})


def test_the_changelog_has_a_section_of_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\]( - \d{4}-\d{2}-\d{2})?$", changelog, re.MULTILINE)
    assert sections[0] == ("Unreleased", "")
    versions = [version for version, date in sections[1:] if date]
    assert len(versions) == len(sections) - 1
    assert versions[0] == yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
