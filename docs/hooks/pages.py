"""MkDocs hooks: the version in the footer, notebooks as pages, and no requests to other hosts."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
REQUEST = re.compile(r"<(?:script|img|iframe|link(?![^>]*rel=\"?canonical))\b[^>]*(?:src|href)=\"?https?:[^>]*>")
# nbconvert indents outputs. A fenced block keeps them apart from the code, so that the style sheet can mark them.
TEMPLATE = """
{%- extends "markdown/index.md.j2" -%}
{%- block stream %}
``` { .text .output }
{{ output.text | strip_ansi | trim }}
```
{% endblock stream -%}
{%- block data_text %}
``` { .text .output }
{{ output.data["text/plain"] | trim }}
```
{% endblock data_text -%}
{%- block data_png %}
![Figure drawn by the code above]({{ output.metadata.filenames["image/png"] }})
{% endblock data_png -%}
"""


def on_config(config: MkDocsConfig) -> None:
    """Show the version of the package in the footer."""
    version = VERSION.search((ROOT / "pml_macl" / "__init__.py").read_text(encoding="utf-8"))
    if version is None:
        raise PluginError('pml_macl/__init__.py must contain a line __version__ = "...", found none')
    config.copyright = f"pml_macl {version[1]}, MIT licence"


def page_of(notebook: Path) -> str:
    """Address of a notebook's page: ``QuickStart.ipynb`` becomes ``use/quick_start.md``."""
    return f"use/{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', notebook.stem).lower()}.md"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add each notebook as a page, with the outputs that are saved in the file."""
    exporter = MarkdownExporter(raw_template=TEMPLATE)
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", enabled=True)
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        address = page_of(notebook)
        names = {"output_files_dir": "", "unique_key": f"{Path(address).stem}_"}
        markdown, resources = exporter.from_filename(str(notebook), resources=names)
        source = notebook.relative_to(ROOT).as_posix()
        markdown += f"\n\nThis page shows the notebook `{source}` with the outputs of its last run.\n"
        files.append(File.generated(config, address, content=markdown))
        for name, content in resources["outputs"].items():
            files.append(File.generated(config, f"use/{name}", content=content))


def on_post_page(output: str, page: Page, **kwargs: Any) -> str:
    """Stop the build at a page that makes the browser ask another host, since it would not show offline."""
    request = REQUEST.search(output)
    if request:
        raise PluginError(f"{page.file.src_path} must not load anything from another host, found {request[0]}")
    return output
