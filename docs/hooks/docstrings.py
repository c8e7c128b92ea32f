"""Turns the docstrings' reStructuredText into Markdown, and equations into MathML, which needs no script to show."""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

MATH_BLOCK = re.compile(r"^([ ]*)\.\. math::[ ]*(.*)\n((?:\1[ ]+.*\n|[ ]*\n)*)", re.MULTILINE)
MATH_ROLE = re.compile(r":math:`([^`]+)`")
CODE_ROLE = re.compile(r":(?:class|func|meth):`~?([^`]*?)([^`.]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"\$([^$\n]+)\$")


def mathml(latex: str, display: str) -> str:
    """MathML of an equation, ``inline`` or as a ``block``."""
    # Underscores of argument names stand in \text{}, where LaTeX would escape them.
    markup = convert(" ".join(latex.split()), display=display).replace("\\_", "_")
    # Markdown takes a line that begins with <math> for a block of HTML.
    return f"<span>{markup}</span>" if display == "inline" else markup


def to_markdown(text: str) -> str:
    """Markdown of a docstring's prose; the sections that follow are left for mkdocstrings."""

    def block(match: re.Match[str]) -> str:
        indent, first, rest = match.groups()
        equation = mathml(f"{first} {textwrap.dedent(rest)}", "block")
        return f"{indent}{equation}\n\n"

    text = EXAMPLE.sub(r"\1Examples:", text)  # the name of the section in Google's convention
    text = MATH_BLOCK.sub(block, text + "\n")
    text = MATH_ROLE.sub(lambda match: mathml(match[1], "inline"), text)
    text = CODE_ROLE.sub(lambda match: f"[`{match[2]}`][{match[1]}{match[2]}]" if match[1] else f"`{match[2]}`", text)
    return text.replace("``", "`").rstrip("\n")


class Docstrings(griffe.Extension):
    """Griffe extension for mkdocstrings."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """MkDocs hook: equations of the pages stand between dollars, or double dollars where they have their own line."""
    markdown = DISPLAYED.sub(lambda match: mathml(match[1], "block"), markdown)
    return INLINE.sub(lambda match: mathml(match[1], "inline"), markdown)
