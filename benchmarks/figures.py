"""Figures of the results pages: SVG with a transparent background, one file for light pages and one for dark pages.

All figures have the same width. Their type is still 11 pixels high on a phone that is 375 pixels wide.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, TYPE_SIZE = 4.6, 10.8  # inches, points


@dataclass(frozen=True)
class Theme:
    """Colours of a figure: text, quiet lines, grid, and three colours that colour-blind readers can distinguish."""

    ink: str
    grey: str
    grid: str
    colours: tuple[str, str, str]


THEMES = {
    "light": Theme("#1A1A1A", "#8A8A8A", "#D5D9DD", ("#0072B2", "#B86E00", "#00805D")),
    "dark": Theme("#E8E8E8", "#8F959C", "#454A52", ("#56B4E9", "#F0B040", "#3FD0A0")),
}


def new_figure(theme: Theme, height: float, panels: int = 1) -> "tuple[Figure, list[Axes]]":
    """Create a figure with axes one above the other; the height is in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(panels, 1, squeeze=False)[:, 0])
    for panel in axes:
        panel.set_axisbelow(True)
        panel.patch.set_alpha(0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(theme.grey)
        panel.tick_params(labelsize=TYPE_SIZE, labelcolor=theme.ink, color=theme.grey)
        for axis in (panel.xaxis, panel.yaxis):
            axis.label.set(color=theme.ink, size=TYPE_SIZE)
    return figure, axes


def add_legend(figure: "Figure", axes: "Axes", theme: Theme, **options: Any) -> None:
    """Put the names of the curves above the figure."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        frameon=False,
        fontsize=TYPE_SIZE,
        labelcolor=theme.ink,
        handletextpad=0.2,
        columnspacing=0.8,
        borderaxespad=0.1,
        **options,
    )


def save_figure(draw: "Callable[[Theme], Figure]", page: Path, name: str, caption: str) -> str:
    """Write ``NAME-light.svg`` and ``NAME-dark.svg`` beside a page.

    Args:
        draw: draws the figure in the colours of a theme.
        page: the Markdown page.
        name: start of the two file names.
        caption: what the figure shows, for readers who cannot see it.

    Returns:
        The two images in Markdown; the site shows the one that fits its colours.
    """
    import matplotlib

    images = []
    for mode, theme in THEMES.items():
        file = page.parent / f"{name}-{mode}.svg"
        with matplotlib.rc_context({"svg.hashsalt": "pml_macl"}):  # the same figure always gives the same file
            draw(theme).savefig(file, transparent=True, metadata={"Date": None})
        images.append(f"![{caption}]({file.name}#only-{mode})")
    return "\n".join(images)
