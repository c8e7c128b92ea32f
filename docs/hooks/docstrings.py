"""Turns the docstrings' reStructuredText into Markdown, and equations into MathML, which needs no script to show.

It also keeps the pages free of requests to other sites.
"""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

MATH_BLOCK = re.compile(r"^([ ]*)\.\. math::[ ]*(.*)\n((?:\1[ ]+.*\n|[ ]*\n)*)", re.MULTILINE)
MATH_ROLE = re.compile(r":math:`([^`]+)`")
CODE_ROLE = re.compile(r":(?:attr|class|func|meth):`~?([^`]*?)([^`.]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"\$([^$\n]+)\$")
REQUEST = re.compile(r"<(?:script|img|iframe|link(?![^>]*rel=\"?canonical))\b[^>]*(?:src|href)=\"?https?:[^>]*>")


def mathml(latex: str, display: str) -> str:
    """MathML of an equation, ``inline`` or as a ``block``."""
    latex = latex.replace("\\Bigl", "\\left").replace("\\Bigr", "\\right")  # MathML has no fixed sizes
    latex = latex.replace("\\bigl", "\\left").replace("\\bigr", "\\right")
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

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Show what griffe does not see: properties that are computed once, and signatures in ``__new__``.

        Griffe takes the signature of a class from ``__init__`` only; subclasses of Tensor have ``__new__``.
        """
        for name, member in list(cls.members.items()):
            if isinstance(member, griffe.Function) and any("computed_once" in str(d.value) for d in member.decorators):
                shown = griffe.Attribute(
                    name,
                    annotation=member.returns,
                    docstring=member.docstring,
                    lineno=member.lineno,
                    endlineno=member.endlineno,
                )
                shown.labels.add("property")
                cls.set_member(name, shown)
        new = cls.members.get("__new__")
        if isinstance(new, griffe.Function) and "__init__" not in cls.members:
            cls.set_member("__init__", griffe.Function("__init__", parameters=new.parameters, lineno=new.lineno))


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """MkDocs hook: equations of the pages stand between dollars, or double dollars where they have their own line."""
    markdown = DISPLAYED.sub(lambda match: mathml(match[1], "block"), markdown)
    return INLINE.sub(lambda match: mathml(match[1], "inline"), markdown)


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """MkDocs hook: a page that asks another site for anything would not show offline."""
    request = REQUEST.search(output)
    if request:
        raise PluginError(f"{page.file.src_path} would ask another site: {request[0]}")
    return output
