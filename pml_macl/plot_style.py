"""Colours, line styles and empty figures for the plots of the package, the examples and the benchmarks.

matplotlib is optional (``pip install matplotlib``). It is imported when a figure is created.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
GREEN, RED, GREY, INK = "#009E73", "#D55E00", "#6B6B6B", "#1A1A1A"
GRID: dict[str, Any] = {"color": "#D5D9DD", "linewidth": 0.7}
LINE_STYLES = ("-", "--", "-.", ":")


def new_figure(width: float, height: float) -> "Figure":
    """Create an empty figure with this size in inches, without a window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib; install it with: pip install matplotlib") from error
    return Figure(figsize=(width, height), dpi=150, facecolor="white")


def new_plot(width: float, height: float, title: str | None, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    """Create a figure with axes side by side, which matplotlib lays out when it draws the figure."""
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    if title is not None:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, weight="bold", color=INK)
    panels = list(figure.subplots(1, columns, squeeze=False)[0])
    for axes in panels:
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=INK)
    return figure, panels


def add_legend(axes: "Axes") -> None:
    """Add a legend above the axes, where it covers no curve; axes without named curves get no legend."""
    labels = axes.get_legend_handles_labels()[1]
    if any(labels):
        columns = 1 if max(map(len, labels)) > 30 else 2
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=columns, frameon=False, fontsize=8.5)


def line_style(number: int) -> dict[str, Any]:
    """Return the colour, line style and width of a curve by its number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
        "linewidth": 1.8,
    }
