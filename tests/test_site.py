"""The documentation site, as a browser gets it: one build, whose HTML is read."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from html_page import Page
from public_objects import public_objects

ROOT = Path(__file__).resolve().parents[1]
# Markdown's [text][reference] and reStructuredText's roles and directives, of which nothing may be left.
UNRESOLVED = re.compile(
    r"\[[^\[\]\n]+\]\s?\[[^\[\]\n]*\]|:(?:class|func|meth|attr|mod|obj|math|ref):|^\s*\.\. \w+::", re.MULTILINE
)
REQUEST_OF_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^)\"']+)")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Folder and log of the site; a build that is not strict shows all faults and not the first."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout + result.stderr


@pytest.fixture(scope="module")
def pages(build):
    """The pages by their address."""
    folder, _ = build
    files = sorted(folder.rglob("*.html"))
    return {f"/{file.relative_to(folder).as_posix()}": Page(file.read_text(encoding="utf-8")) for file in files}


def test_the_build_reports_nothing(build):
    """No warning, and no word of what formats the signatures being missing."""
    _, log = build
    told = [line for line in log.splitlines() if line.strip()]
    assert [line.split("-", 1)[1].split()[0] for line in told] == ["Cleaning", "Building", "Documentation"], log


def test_every_page_of_the_folder_is_built(pages):
    sources = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    folders = {source.parent if source.name == "index" else source for source in sources}
    assert set(pages) == {f"/{(folder / 'index.html').as_posix()}" for folder in folders} | {"/404.html"}


@pytest.mark.parametrize("name", public_objects())
def test_every_public_object_has_an_anchor_and_its_signature(pages, name):
    shown = [page.signatures.get(name, "") for page in pages.values() if name in page.ids]
    assert len(shown) == 1, f"{name} has {len(shown)} anchors"
    if has_no_constructor(public_objects()[name]):
        return
    short_name = name.rpartition(".")[2]
    assert shown[0].lstrip().startswith(short_name), f"the signature of {name} is {shown[0]!r}"
    for argument in inspect.signature(public_objects()[name]).parameters:
        assert re.search(rf"\b{argument}\b", shown[0]), f"{argument} is not in the signature of {name}: {shown[0]}"


def has_no_constructor(thing):
    """A class that leaves its constructor to PML's or torch's base class, which the site does not read."""
    own = [base for base in getattr(thing, "__mro__", ()) if base.__module__.startswith("pml_macl")]
    return inspect.isclass(thing) and not any({"__init__", "__new__"} & vars(base).keys() for base in own)


def test_signatures_are_laid_out_in_lines(pages):
    lines = [line for page in pages.values() for text in page.signatures.values() for line in text.splitlines()]
    assert len(lines) > 100
    assert [line for line in lines if len(line) > 80] == []


def test_what_is_computed_once_is_shown_as_a_property(build):
    folder, _ = build
    text = re.sub(r"<[^>]+>", "", (folder / "parts" / "pairs" / "index.html").read_text(encoding="utf-8"))
    for name in ("statistics", "carriers", "shared", "jaccard", "positives", "negatives"):
        assert re.search(rf"\b{name}: \w+", text)
        assert f"{name}()" not in text


def test_no_reference_is_unresolved(pages):
    found = {address: UNRESOLVED.findall(page.text) for address, page in pages.items()}
    assert {address: references for address, references in found.items() if references} == {}


def test_no_section_is_empty(pages):
    found = {address: page.empty_sections for address, page in pages.items() if address != "/404.html"}
    assert {address: titles for address, titles in found.items() if titles} == {}


def test_every_internal_link_and_picture_leads_somewhere(build, pages):
    folder, _ = build
    broken = set()
    for address, page in pages.items():
        for target in page.links + page.files:
            path, anchor = urldefrag(urljoin(address, target))
            if urlsplit(path).scheme:
                continue
            path = unquote(path) + ("index.html" if path.endswith("/") else "")
            if not (folder / path[1:]).is_file() or (
                anchor and path in pages and unquote(anchor) not in pages[path].ids
            ):
                broken.add((address, target))
    assert broken == set()


def test_no_page_asks_another_host(build, pages):
    """Links may lead away; what the browser fetches by itself may not."""
    folder, _ = build
    asked = {(address, file) for address, page in pages.items() for file in page.files if urlsplit(file).netloc}
    for sheet in folder.rglob("*.css"):
        asked |= {(sheet.name, url) for url in REQUEST_OF_CSS.findall(sheet.read_text(encoding="utf-8"))}
    assert asked == set()
