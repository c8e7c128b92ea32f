"""Writes the page about PML's losses, miners and trainers from the table in ``pml_macl/compatibility.py``.

python docs/generate_pml_parts.py > docs/parts/pml_parts.md
"""

from collections.abc import Iterable, Mapping

from pml_macl.compatibility import PML_LOSSES, PML_MINERS, PML_TRAINERS, PMLPart


def pml_parts_page() -> str:
    """The page in Markdown."""
    lines = [
        "# Parts of pytorch-metric-learning on multi-hot labels",
        "",
        "This page lists the losses, miners and trainers of pytorch-metric-learning (PML) 2.9 that work on multi-hot",
        "labels, and why the others cannot.",
        "",
        "Use PML's losses and miners as `MultiLabelLossWrapper(loss)` and `MultiLabelMinerWrapper(miner)`. Two rows",
        "count as equal if they share a label and have a Jaccard similarity of at least `threshold`; otherwise they",
        "count as different. The wrappers refuse the classes marked below at construction. Your subclasses are treated",
        'like their PML base class. Trainers need `label_hierarchy_level="all"`.',
        "",
        "The tests run every class on this page. `python docs/generate_pml_parts.py > docs/parts/pml_parts.md` writes",
        "the page from the table in `pml_macl/compatibility.py`.",
    ]
    for title, parts in (("Losses", PML_LOSSES), ("Miners", PML_MINERS), ("Trainers", PML_TRAINERS)):
        lines += ["", f"## {title}", "", "| Class | On multi-hot labels | Remark |", "|---|---|---|", *_rows(parts)]
    return "\n".join(lines) + "\n"


def _rows(parts: Mapping[str, PMLPart]) -> Iterable[str]:
    for name, part in parts.items():
        yield f"| `{name}` | {'works' if part.works else 'refused'} | {part.remark} |"


if __name__ == "__main__":
    print(pml_parts_page(), end="")
