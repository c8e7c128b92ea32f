"""Draw what joining a method with the features of the backbone gains for unseen labels and costs for seen ones."""

from pathlib import Path
from typing import Any

from figures import TYPE_SIZE, Theme, add_legend, new_figure, save_figure
from retrieval_findings import Runs, means
from words import listed

METRIC = "label_map"
SEEN, UNSEEN = "seen labels", "unseen labels"
GROUPS = ("other losses", "classifier", "no training", "MACL")  # drawn in this order
CAPTION = "Label mAP of unseen labels over that of seen labels, each method a line over the weight of the features"
EXPLAINED = (
    "The next figure shows seen and unseen labels at once, in the same runs. Each line is a method, joined with "
    "features at w = {weights}; the ring is the method alone. Further right is better for seen labels, further up for "
    "unseen ones. The blue lines are MACL and its variants{closest}."
)


def save(every: Runs, page: Path) -> str:
    """Save the figure beside a page; its two images in Markdown."""
    return save_figure(lambda theme: draw(every, theme), page, f"{page.stem}-trade_off", CAPTION)


def explained(every: Runs) -> str:
    """What the figure shows."""
    weights = listed([f"{weight:g}" for weight in weights_of(every, "MACL")])
    names = listed(closest(every))
    return EXPLAINED.format(weights=weights, closest=f"; the grey line next to them is {names}" if names else "")


def data_sets(every: Runs) -> list[str]:
    return [key.removeprefix(f"{SEEN}, ") for key in every if key.startswith(f"{SEEN}, ")]


def grouped(every: Runs) -> dict[str, list[str]]:
    """The methods of each colour, from MACL's variants to the untrained features."""
    starts = {"MACL": "MACL", "Classifier": "classifier", "Features": "no training"}
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for loss in dict.fromkeys(runs[0]["loss"] for runs in next(iter(every.values())).values()):
        found[starts.get(loss.split(",")[0], "other losses")].append(loss)
    return found


def weights_of(every: Runs, loss: str) -> list[float]:
    """The weights at which a method is joined with features, in ascending order; 0: not joined."""
    by_loss = next(iter(every.values()))
    return sorted(runs[0]["feature_weight"] for runs in by_loss.values() if runs[0]["loss"] == loss)


def path_of(every: Runs, loss: str, data: str) -> list[tuple[float, float]]:
    """Label mAP in percent of seen and of unseen labels, for each weight."""
    names = [f"{loss}, joined {weight}" if weight else loss for weight in weights_of(every, loss)]
    seen, unseen = (means(every[f"{side}, {data}"], METRIC) for side in (SEEN, UNSEEN))
    return [(100 * seen[name], 100 * unseen[name]) for name in names]


def closest(every: Runs) -> list[str]:
    """The other losses that are best for seen labels on one of the data sets."""
    others = grouped(every)["other losses"]
    best = (max(others, key=lambda loss: max(path_of(every, loss, data)), default="") for data in data_sets(every))
    return list(filter(None, dict.fromkeys(best)))


def draw(every: Runs, theme: Theme) -> Any:
    """One panel per data set, one line per method."""
    names = data_sets(every)
    figure, panels = new_figure(theme, 0.6 + 3.0 * len(names), len(names))
    colours = dict(zip(GROUPS, (theme.grey, theme.colours[1], theme.colours[2], theme.colours[0]), strict=True))
    for panel, data in zip(panels, names, strict=True):
        for group, losses in grouped(every).items():
            for number, loss in enumerate(losses):
                (x, *more_x), (y, *more_y) = zip(*path_of(every, loss, data), strict=True)
                name = group if number == 0 else None
                panel.plot([x, *more_x], [y, *more_y], color=colours[group], zorder=1)
                panel.plot(more_x, more_y, "o", color=colours[group], label=name, zorder=2)
                panel.plot(x, y, "o", markeredgecolor=colours[group], fillstyle="none", zorder=2)
        panel.set_title(data, loc="left", color=theme.ink, size=TYPE_SIZE)
        panel.set_xlabel("label mAP of seen labels [%]")
        panel.set_ylabel("of unseen labels [%]")
        panel.grid(color=theme.grid)
    add_legend(figure, panels[0], theme, ncols=2)
    return figure
