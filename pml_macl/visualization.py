"""Plots of multi-label retrieval: retrieved images, average precision per label, training curves, precision and recall.

Each function takes tensors, arrays, lists or dictionaries and returns a new ``matplotlib.figure.Figure``. No function
opens a window or changes matplotlib's global state. Save a figure with ``figure.savefig("name.png")``. The functions
need matplotlib (``pip install matplotlib``). ``pml_macl.plot_style`` contains the colours and line styles.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pml_macl.checks import check_values
from pml_macl.evaluation.functional.label_mean_average_precision_by_frequency import frequency_thirds
from pml_macl.labels import check_labels
from pml_macl.plot_style import COLOURS, GREEN, GREY, GRID, INK, RED, add_legend, line_style, new_figure, new_plot
from pml_macl.plot_style import LINE_STYLES as LINE_STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Tensor | ArrayLike
Caption = list[tuple[str, str]]  # (line of text, colour)

GRID_NOTE = "Green: labels shared with the query. Red, dashed: no shared label. Grey: other labels."


def plot_retrieval_grid(
    query_images: Sequence[Values] | Tensor,
    query_labels: Tensor,
    retrieved_images: Sequence[Sequence[Values] | Tensor] | Tensor,
    retrieved_labels: Tensor,
    classes: Sequence[str],
    title: str | None = None,
) -> "Figure":
    """Plot queries, the images retrieved for them, and the labels that each retrieved image shares with its query.

    Each row shows a query and its labels, then the nearest images. A retrieved image that shares a label with the query
    has a solid green frame and the shared labels in green. A retrieved image without a shared label has a dashed red
    frame. Labels that only the retrieved image has are grey.

    Args:
        query_images: Q images of shape (3, H, W) or (1, H, W), uint8 or floats in [0, 1]; their sizes may differ.
        query_labels: (Q, C) multi-hot label sets.
        retrieved_images: the k nearest images of each query, nearest first: a tensor (Q, k, 3, H, W), or Q sequences
            of k images.
        retrieved_labels: (Q, k, C) multi-hot label sets of the retrieved images.
        classes: the C label names.
        title: title of the plot; None draws none.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: labels are not tensors, or an image holds neither uint8 nor floats.
        ValueError: a shape, length or value differs from the description above.

    Example:
        >>> import torch
        >>> from pml_macl.datasets import SyntheticScenes
        >>> scenes = SyntheticScenes(num_images=12)
        >>> images = torch.stack([image for image, _ in scenes])
        >>> nearest = torch.tensor([[2, 3, 4], [5, 6, 7]])
        >>> figure = plot_retrieval_grid(
        ...     images[:2], scenes.labels[:2], images[nearest], scenes.labels[nearest], scenes.classes
        ... )
        >>> len(figure.axes)  # two queries with three images each
        8
    """
    captions = grid_captions(query_labels, retrieved_labels, classes)
    num_queries, columns = len(captions), len(captions[0])
    if [len(query_images), *map(len, retrieved_images)] != [num_queries] + [columns - 1] * num_queries:
        raise ValueError(
            f"query_images and retrieved_images must hold one image per row of labels ({num_queries} queries "
            f"with {columns - 1} retrieved images each), got {len(query_images)} queries with "
            f"{[*map(len, retrieved_images)]} retrieved images"
        )
    side, gap, line = 1.25, 0.17, 0.125  # inches
    width = columns * (side + gap) + 2 * gap
    notes = textwrap.wrap(GRID_NOTE, int(width * 17))
    head, foot = 0.3 + 0.3 * (title is not None), 0.1 + line * len(notes)
    heights = [side + line * max(map(len, row)) + 0.2 for row in captions]
    height = sum(heights) + head + foot
    figure = new_figure(width, height)

    def write(left: float, top: float, text: str, **style: Any) -> None:
        # parse_math=False: a dollar sign in a label does not start a formula
        figure.text(left / width, top / height, text, va="top", parse_math=False, **style)

    if title is not None:
        write(gap, height - 0.1, title, fontsize=12, weight="bold", color=INK)
    top = height - head
    for row, row_height in enumerate(heights):
        for column, picture in enumerate([query_images[row], *retrieved_images[row]]):
            left = gap + column * (side + gap) + gap * (column > 0)
            axes = figure.add_axes((left / width, (top - side) / height, side / width, side / height))
            axes.imshow(as_picture(picture), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title("query" if column == 0 else f"rank {column}", fontsize=9, color=INK, pad=4)
            caption = captions[row][column]
            frame = INK if column == 0 else caption[0][1]
            for spine in axes.spines.values():
                dashes = (0, (2.5, 1.5)) if frame == RED else "-"
                spine.set(color=frame, linewidth=1 if column == 0 else 2.5, linestyle=dashes, capstyle="butt")
            for number, (text, colour) in enumerate(caption):
                weight = "bold" if colour in (GREEN, RED) else "normal"
                write(left, top - side - 0.07 - number * line, text, fontsize=7.5, color=colour, weight=weight)
        top -= row_height
    for number, text in enumerate(notes):
        write(gap, foot - number * line, text, fontsize=7.5, color=GREY)
    return figure


def plot_label_average_precision(
    average_precision: Mapping[str, Values] | Values,
    counts: Values,
    classes: Sequence[str],
    title: str | None = None,
) -> "Figure":
    """Plot the average precision of each label, the most frequent label at the top, with the mean of each third.

    The thirds are the head, middle and tail of
    :func:`~pml_macl.evaluation.label_mean_average_precision_by_frequency`. A label without a value (NaN) has no bar and
    does not enter the means.

    Args:
        average_precision: (C,) values in [0, 1], NaN where undefined; or a dictionary from the name of each run to its
            values, such as ``{"before": ..., "best": ...}``.
        counts: (C,) number of images with each label.
        classes: the C label names.
        title: title of the plot; None draws none.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: an argument is not an array of numbers.
        ValueError: a shape or value does not fit the description above.

    Example:
        >>> runs = {"before": [0.6, 0.1, 0.3], "best": [0.9, 0.5, float("nan")]}
        >>> figure = plot_label_average_precision(runs, counts=[900, 20, 150], classes=["trees", "dock", "field"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['trees (900)', 'field (150)', 'dock (20)']
    """
    if len(classes) == 0:
        raise ValueError("classes must name at least one label, got an empty list")
    shape = (len(classes),)
    runs = as_runs(average_precision, "average_precision", shape)
    for name, values in runs.items():
        check_values(f"average_precision{name and f'[{name!r}]'}", values[~np.isnan(values)], 0, 1)
    frequency = as_array(counts, "counts", shape)
    check_values("counts", frequency, 0)
    order = np.argsort(frequency, kind="stable")[::-1]
    has_value = np.any([~np.isnan(values) for values in runs.values()], axis=0)
    # The metric uses the same function, so the plot and the metric have the same head, middle and tail.
    third_of = frequency_thirds(torch.from_numpy(frequency), torch.from_numpy(has_value)).numpy()
    # A label without a value goes into the band of the next more frequent label.
    band_of = np.maximum.accumulate(np.where(third_of[order] < 0, 0, 2 - third_of[order]))
    thirds = {name: order[band_of == band] for band, name in enumerate(("head", "middle", "tail"))}
    thirds = {name: third for name, third in thirds.items() if len(third)}
    line = 0.16  # inches
    pitch = max(0.24, 0.06 + 0.1 * len(runs), line * (len(runs) + 1) / min(map(len, thirds.values())))
    figure, (axes,) = new_plot(8, max(2.8, 1.2 + pitch * len(order)), title)
    thickness = 0.8 / len(runs)
    for number, (name, values) in enumerate(runs.items()):
        places = np.arange(len(order)) + (number - (len(runs) - 1) / 2) * thickness
        axes.barh(places, 100 * values[order], 0.9 * thickness, color=COLOURS[number], label=name, zorder=2)
    start = -0.5
    for band, (third_name, third) in enumerate(thirds.items()):
        end = start + len(third)
        axes.axhspan(start, end, color=("#EDF0F3", "#FFFFFF")[band % 2], zorder=0)
        top = (start + end) / 2 - line * len(runs) / 2 / pitch
        heading = f"{third_name}, mean of {np.count_nonzero(third_of[third] >= 0)}"
        axes.text(103, top, heading, va="center", fontsize=9, color=INK, weight="bold")
        for number, (name, values) in enumerate(runs.items()):
            known = values[third][~np.isnan(values[third])]
            mean = f"{100 * known.mean():.1f}" if len(known) else "no value"
            place = top + (number + 1) * line / pitch
            axes.text(103, place, "\N{BLACK SQUARE}", va="center", fontsize=9, color=COLOURS[number])
            axes.text(106, place, f"{mean} {name}".strip(), va="center", fontsize=9, color=INK)
        start = end
    labels = [f"{classes[index]} ({frequency[index]:,.0f})" for index in order]
    axes.set_yticks(range(len(order)), labels, parse_math=False)
    axes.set(xlim=(0, 100), ylim=(len(order) - 0.5, -0.5), xlabel="average precision [%]")
    axes.set_ylabel("label (number of images)")
    axes.grid(axis="x", **GRID)
    add_legend(axes)
    return figure


def plot_training_curves(
    losses: Mapping[str, Sequence[float]],
    metrics: Mapping[str, Sequence[float]],
    epochs: Sequence[int] | None = None,
    best_epoch: int | None = None,
    title: str | None = None,
) -> "Figure":
    """Plot losses over iterations (left) and metrics over epochs (right).

    Thin lines show the losses. Thick lines show their running means over a twentieth of all iterations.

    Args:
        losses: a dictionary from the name of each loss to its values, one value per iteration.
        metrics: a dictionary from the name of each metric to its values, one value per epoch.
        epochs: the epoch of each metric value; None counts from 0, which is the model before training.
        best_epoch: epoch to mark with a vertical line; None marks none.
        title: title of the plot; None draws none.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: ``losses`` or ``metrics`` is not a dictionary of lists of numbers.
        ValueError: a dictionary or a list is empty, or a metric does not have one value per epoch.

    Example:
        >>> figure = plot_training_curves({"loss": [5.1, 4.2, 3.9, 3.8]}, {"ndcg": [0.7, 0.8, 0.9]}, best_epoch=2)
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['iteration', 'epoch (0: before training, dotted: best epoch 2)']
    """
    loss_curves, metric_curves = as_curves(losses, "losses"), as_curves(metrics, "metrics")
    if epochs is None:
        epochs = range(max(map(len, metric_curves.values())))
    for name, values in metric_curves.items():
        if len(values) != len(epochs):
            raise ValueError(f"metrics[{name!r}] must have one value per epoch ({len(epochs)}), got {len(values)}")
    figure, (left, right) = new_plot(11, 3.9, title, columns=2)
    for number, (name, values) in enumerate(loss_curves.items()):
        iterations = np.arange(1, len(values) + 1)
        window = max(1, len(values) // 20)
        style = line_style(number)
        if window > 1:
            left.plot(iterations, values, color=style["color"], alpha=0.3, linewidth=0.8)
        means = np.convolve(values, np.ones(window) / window, mode="valid")
        left.plot(iterations[window - 1 :], means, label=readable(name), **style)
    smoothed = max(map(len, loss_curves.values())) >= 40
    left.set(xlabel="iteration", ylabel="loss (strong: running mean)" if smoothed else "loss")
    for number, (name, values) in enumerate(metric_curves.items()):
        right.plot(epochs, values, marker="o", markersize=3, label=readable(name), **line_style(number))
    remarks = ["0: before training"] if 0 in epochs else []
    if best_epoch is not None:
        right.axvline(best_epoch, color=INK, linewidth=1.2, linestyle=":", zorder=1)
        remarks.append(f"dotted: best epoch {best_epoch}")
    right.set(xlabel=f"epoch ({', '.join(remarks)})" if remarks else "epoch", ylabel="metric")
    right.locator_params(axis="x", integer=True)
    for axes in (left, right):
        axes.grid(**GRID)
        axes.margins(x=0.02)
        add_legend(axes)
    return figure


def plot_precision_recall_over_ranks(
    relevance: Mapping[str, Values] | Values,
    num_relevant: Values,
    title: str | None = None,
) -> "Figure":
    """Plot the mean precision (left) and the mean recall (right) of the first 1, 2, ..., k retrieved images.

    As in the metrics, the means exclude queries without a relevant reference.

    Args:
        relevance: (queries, k) relevance of the image at each rank, as booleans or as 0 and 1; or a dictionary from
            the name of each run to such an array.
        num_relevant: (queries,) number of relevant references of each query, including those beyond rank k.
        title: title of the plot; None draws none.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: an argument is not an array of numbers.
        ValueError: the shapes differ, a value of ``relevance`` is not 0 or 1, a query has more relevant images in
            ``relevance`` than ``num_relevant``, or no query has a relevant reference.

    Example:
        >>> figure = plot_precision_recall_over_ranks([[1, 0, 1], [0, 1, 0]], [2, 4])
        >>> figure.axes[0].lines[0].get_ydata().tolist()  # in percent
        [50.0, 50.0, 50.0]
        >>> figure.axes[1].lines[0].get_ydata().tolist()
        [25.0, 37.5, 62.5]
    """
    totals = as_array(num_relevant, "num_relevant", (None,))
    runs = as_runs(relevance, "relevance", (len(totals), None))
    figure, (left, right) = new_plot(11, 3.9, title, columns=2)
    longest = max(ranked.shape[1] for ranked in runs.values())
    for number, (name, ranked) in enumerate(runs.items()):
        wrong = ranked[~np.isin(ranked, (0, 1))]
        if wrong.size:
            raise ValueError(f"relevance must hold only 0 and 1, got {wrong[0]:g}; pass gains as gains > 0")
        if not ranked.shape[1]:
            raise ValueError("relevance must hold at least one rank, got none")
        is_too_small = ~(ranked.sum(axis=1) <= totals)
        if is_too_small.any():
            query = int(is_too_small.argmax())
            raise ValueError(
                f"num_relevant must be at least the number of relevant images in relevance, got {totals[query]:g} for "
                f"query {query} with {ranked[query].sum():g} of them; count all relevant references"
            )
        if not (totals > 0).any():
            raise ValueError("num_relevant must be above 0 for at least one query, got only 0")
        found = ranked[totals > 0].cumsum(axis=1)
        ranks = np.arange(1, found.shape[1] + 1)
        style = line_style(number) | ({"marker": "o", "markersize": 3} if len(ranks) <= 30 else {})
        left.plot(ranks, 100 * (found / ranks).mean(axis=0), label=name, **style)
        right.plot(ranks, 100 * (found / totals[totals > 0, None]).mean(axis=0), label=name, **style)
    left.set(ylabel="mean precision up to the rank [%]")
    right.set(ylabel="mean recall up to the rank [%]", ylim=(0, None))
    for axes in (left, right):
        axes.set_xlabel("rank" if longest <= 100 else "rank (logarithmic)")
        if longest > 100:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlim(1, longest)
        else:
            axes.locator_params(axis="x", integer=True)
        axes.grid(**GRID)
        add_legend(axes)
    return figure


def readable(name: str) -> str:
    """Replace the underscores in the name of a metric by spaces."""
    return name.replace("_", " ")


def grid_captions(query_labels: Tensor, retrieved_labels: Tensor, classes: Sequence[str]) -> list[list[Caption]]:
    """Return one row of captions per query: its labels, then those of each retrieved image, shared labels first."""
    query_labels = check_labels(query_labels, num_classes=len(classes), name="query_labels").cpu()
    if not isinstance(retrieved_labels, Tensor):
        raise TypeError(
            f"retrieved_labels must be a torch.Tensor, got {type(retrieved_labels).__name__}; "
            "convert it with torch.as_tensor"
        )
    shape = retrieved_labels.shape
    if len(shape) != 3 or shape[0] != len(query_labels) or 0 in shape:
        raise ValueError(
            f"retrieved_labels must have the shape (queries, k, classes) with {len(query_labels)} queries and k >= 1, "
            f"got {tuple(shape)}"
        )
    flat = check_labels(retrieved_labels.flatten(0, 1), num_classes=len(classes), name="retrieved_labels")

    def lines(label_set: Tensor, colour: str, none: str | None = None) -> Caption:
        names = [str(classes[index]) for index in label_set.nonzero().flatten().tolist()]
        if not names and none is not None:
            return [(none, RED if colour == GREEN else colour)]
        return [
            (text, colour)
            for text in textwrap.wrap(", ".join(names), 17 if colour == GREEN else 20, break_on_hyphens=False)
        ]

    return [
        [lines(query, INK, "no label")]
        + [lines(label_set & query, GREEN, "no shared label") + lines(label_set & ~query, GREY) for label_set in found]
        for query, found in zip(query_labels, flat.reshape(shape).cpu(), strict=True)
    ]


def as_array(values: Values, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Convert the values to a float64 array and check its shape; None in ``shape`` accepts any length."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of numbers, got {type(values).__name__} ({error})") from error
    if len(array.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have the shape ({wanted}), got {array.shape}")
    return array


def as_runs(
    values: Mapping[str, Values] | Values, name: str, shape: tuple[int | None, ...]
) -> dict[str, NDArray[np.float64]]:
    """Convert the values to a dictionary from run to array; a single array gets the empty name."""
    runs = values if isinstance(values, Mapping) else {"": values}
    if not 0 < len(runs) <= len(COLOURS):
        raise ValueError(f"{name} must hold 1 to {len(COLOURS)} runs, got {len(runs)}; plot more runs separately")
    return {str(run): as_array(run_values, f"{name}{run and f'[{run!r}]'}", shape) for run, run_values in runs.items()}


def as_curves(values: Mapping[str, Sequence[float]], name: str) -> dict[str, NDArray[np.float64]]:
    """Convert the values to a dictionary from curve to array; no array may be empty."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} must map names to lists of numbers, got {type(values).__name__}")
    curves = {str(curve): as_array(numbers, f"{name}[{curve!r}]", (None,)) for curve, numbers in values.items()}
    if not curves or not all(map(len, curves.values())):
        raise ValueError(f"{name} must hold at least one curve, and each curve at least one value, got {dict(values)}")
    return curves


def as_picture(image: Values) -> NDArray[Any]:
    """Convert a (3, H, W) or (1, H, W) image to an (H, W, 3) array that matplotlib can draw."""
    if isinstance(image, Tensor):
        image = (image.float() if image.dtype is torch.bfloat16 else image).detach().cpu().numpy()
    array = np.asarray(image)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise TypeError(f"an image must hold uint8 or floats, got {array.dtype}; convert it to uint8")
    if array.ndim != 3 or array.shape[0] not in (1, 3) or not array.size:
        raise ValueError(
            f"an image must have the shape (3, height, width) or (1, height, width), got {array.shape}; "
            "channels come first"
        )
    if array.dtype != np.uint8 and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"a float image must be in [0, 1], got {array.min():g} to {array.max():g}; undo its normalisation first"
        )
    return np.broadcast_to(array, (3, *array.shape[1:])).transpose(1, 2, 0)
