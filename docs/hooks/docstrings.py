"""Converts the reStructuredText of docstrings to Markdown, and equations to MathML, which needs no script."""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

MATH_BLOCK = re.compile(r"^([ ]*)\.\. math::[ ]*(.*)\n((?:\1[ ]+.*\n|[ ]*\n)*)", re.MULTILINE)
MATH_ROLE = re.compile(r":math:`([^`]+)`")
CODE_ROLE = re.compile(r":(?:attr|class|func|meth):`~?([^`]*?)([^`.]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"\$([^$\n]+)\$")
# Browsers space these unlike TeX. Here bars are brackets, colons mean "such that", and a thin space follows the name of
# a function whose argument has no brackets.
SPACING = (
    (re.compile('<mo stretchy="false">&#x0007C;'), '<mo stretchy="false" lspace="0" rspace="0">&#x0007C;'),
    (re.compile("<mi>:</mi>"), '<mo lspace="0.28em" rspace="0.28em">:</mo>'),
    (re.compile("(<m[io]>(?:exp|log|max|min)</m[io]>)(?=<m(?:frac|i|sub))"), r'\1<mspace width="0.17em"/>'),
)
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def mathml(latex: str, display: str) -> str:
    """Convert an equation to MathML; ``display`` is ``"inline"`` or ``"block"``."""
    latex = latex.replace("\\Bigl", "\\left").replace("\\Bigr", "\\right")  # MathML has no fixed bracket sizes
    latex = latex.replace("\\bigl", "\\left").replace("\\bigr", "\\right")
    # Names of arguments have their underscores escaped in LaTeX's \text{}; MathML shows the backslash.
    markup = convert(" ".join(latex.split()), display=display).replace("\\_", "_")
    for pattern, replacement in SPACING:
        markup = pattern.sub(replacement, markup)
    # Markdown treats a line that starts with <math> as a block of HTML, so inline equations start with <span>.
    return f"<span>{markup}</span>" if display == "inline" else markup


def to_markdown(text: str) -> str:
    """Convert the prose of a docstring to Markdown; mkdocstrings reads the sections, such as Args."""

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
    """Griffe extension for mkdocstrings: docstrings in Markdown, and members that griffe does not show."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Show members decorated with ``computed_once`` as properties, and signatures that ``__new__`` defines.

        Griffe reads the signature of a class from ``__init__`` only; subclasses of Tensor define ``__new__``.
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
    """Convert the equations of a page, between ``$`` or ``$$``, to MathML; code stays as it is (MkDocs hook)."""
    return "".join(part if CODE.fullmatch(part) else convert_equations(part) for part in CODE.split(markdown))


def convert_equations(markdown: str) -> str:
    """Convert ``$$...$$`` to block equations and ``$...$`` to inline equations."""
    markdown = DISPLAYED.sub(lambda match: mathml(match[1], "block"), markdown)
    return INLINE.sub(lambda match: mathml(match[1], "inline"), markdown)
