"""Builds the documentation site once and checks the HTML that a browser would get."""

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

import pml_macl

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "assets"
# Markdown's [text][reference] and the roles and directives of reStructuredText: none may reach the site.
UNRESOLVED = re.compile(
    r"\[[^\[\]\n]+\]\s?\[[^\[\]\n]*\]|:(?:class|func|meth|attr|mod|obj|math|ref):|^\s*\.\. \w+::", re.MULTILINE
)
REQUEST_OF_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^)\"']+)")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Folder and log of the site. Without --strict the log shows all faults instead of the first."""
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


def test_the_build_logs_no_warning(build):
    """Nor the message that no formatter for signatures was found, which is no warning."""
    _, log = build
    lines = [line for line in log.splitlines() if line.strip()]
    assert [line.split("-", 1)[1].split()[0] for line in lines] == ["Cleaning", "Building", "Documentation"], log


def test_every_source_has_a_page(pages):
    sources = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    folders = {source.parent if source.name == "index" else source for source in sources}
    notebooks = {f"/use/{name}/index.html" for name in ("quick_start", "combine_with_pml")}
    assert len(notebooks) == len(list((ROOT / "examples" / "notebooks").glob("*.ipynb")))
    expected = {f"/{(folder / 'index.html').as_posix()}" for folder in folders} | notebooks | {"/404.html"}
    assert set(pages) == expected


def test_every_page_starts_with_a_title_and_a_paragraph(pages):
    found = {name: (page.title.strip(), page.first_paragraph.strip()) for name, page in pages.items()}
    del found["/404.html"]
    assert {name: texts for name, texts in found.items() if not all(texts)} == {}


def test_notebooks_are_shown_with_their_outputs(build):
    folder, _ = build
    text = (folder / "use" / "quick_start" / "index.html").read_text(encoding="utf-8")
    assert text.count('<div class="output highlight">') >= 3
    assert len(re.findall(r'<img[^>]*src="\.\./quick_start_[^"]*\.png"', text)) >= 2


def test_the_footer_shows_the_version(pages):
    for address, page in pages.items():
        assert f"pml_macl {pml_macl.__version__}" in page.footer, address


def test_the_font_has_the_characters_of_all_equations(build, pages):
    """The font is a subset: extra.css lists its characters in unicode-range."""
    folder, _ = build
    ranges = re.findall(r"U\+([0-9A-F]+)(?:-([0-9A-F]+))?", (ASSETS / "extra.css").read_text(encoding="utf-8"))
    available = {code for first, last in ranges for code in range(int(first, 16), int(last or first, 16) + 1)}
    used = {character for page in pages.values() for character in page.equations if not character.isspace()}
    assert len(used) > 50
    assert {character for character in used if ord(character) not in available} == set()
    assert 50_000 < (folder / "assets" / "fonts" / "stix-two-math.woff2").stat().st_size < 500_000
    assert "SIL OPEN FONT LICENSE" in (folder / "assets" / "fonts" / "OFL.txt").read_text(encoding="utf-8")


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
    """Whether a class inherits its constructor from PML or torch, whose code the site does not read."""
    own = [base for base in getattr(thing, "__mro__", ()) if base.__module__.startswith("pml_macl")]
    return inspect.isclass(thing) and not any({"__init__", "__new__"} & vars(base).keys() for base in own)


def test_signatures_are_laid_out_in_lines(pages):
    lines = [line for page in pages.values() for text in page.signatures.values() for line in text.splitlines()]
    assert len(lines) > 100
    assert [line for line in lines if len(line) > 80] == []


def test_members_that_are_computed_once_are_shown_as_properties(build):
    folder, _ = build
    text = re.sub(r"<[^>]+>", "", (folder / "parts" / "pairs" / "index.html").read_text(encoding="utf-8"))
    for name in ("statistics", "carriers", "shared", "jaccard", "positives", "negatives"):
        assert re.search(rf"\b{name}: \w+", text)
        assert f"{name}()" not in text


def test_no_reference_is_unresolved(pages):
    found = {address: UNRESOLVED.findall(page.text) for address, page in pages.items()}
    assert {address: references for address, references in found.items() if references} == {}


def test_no_section_is_empty_or_says_only_none(pages):
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
    """Links may lead to other hosts; files that the browser fetches to show the page may not."""
    folder, _ = build
    asked = {(address, file) for address, page in pages.items() for file in page.files if urlsplit(file).netloc}
    for sheet in folder.rglob("*.css"):
        asked |= {(sheet.name, url) for url in REQUEST_OF_CSS.findall(sheet.read_text(encoding="utf-8"))}
    assert asked == set()
