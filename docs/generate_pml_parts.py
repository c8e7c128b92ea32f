"""Write the page about PML's losses, miners and trainers from the table in ``pml_macl/compatibility.py``.

Run it as:

    python docs/generate_pml_parts.py > docs/parts/pml_parts.md
"""

from collections.abc import Iterable, Mapping

from pml_macl.compatibility import PML_LOSSES, PML_MINERS, PML_TRAINERS, PMLPart


def pml_parts_page() -> str:
    """Return the page in Markdown."""
    lines = [
        "# Parts of pytorch-metric-learning on multi-hot labels",
        "",
        "Look up here whether a loss, miner or trainer of pytorch-metric-learning (PML) 2.9 works on multi-hot labels,",
        "and if not, why.",
        "",
        "Wrap losses as `MultiLabelLossWrapper(loss)` and miners as `MultiLabelMinerWrapper(miner)`. Two rows then",
        "count as equal if they share a label and their Jaccard similarity is at least `threshold`; otherwise they",
        "count as different. Wrapping a class that is marked *refused* raises a `ValueError` with the remark. Your own",
        'subclasses are treated like their PML base class. Trainers need `label_hierarchy_level="all"`.',
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
