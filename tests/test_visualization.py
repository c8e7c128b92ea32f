import io
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from pml_macl import plot_style, visualization
from pml_macl.datasets import SyntheticScenes
from pml_macl.visualization import (
    GREEN,
    GREY,
    INK,
    RED,
    plot_label_average_precision,
    plot_precision_recall_over_ranks,
    plot_retrieval_grid,
    plot_training_curves,
)

CLASSES = ["ship", "trees", "water"]
QUERY_LABELS = torch.tensor([[1, 0, 1], [0, 0, 0]]).bool()
RETRIEVED_LABELS = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]]).bool()
LOSSES = {"loss": [3.0, 2.0, 1.0]}
METRICS = {"ndcg": [0.7, 0.8], "precision_at_1": [0.9, 0.95]}


@pytest.fixture
def images(generator):
    return torch.rand(2, 3, 8, 8, generator=generator), torch.rand(2, 2, 3, 8, 8, generator=generator)


def plot_grid(images, **changes):
    query_images, retrieved_images = images
    arguments = {
        "query_images": query_images,
        "query_labels": QUERY_LABELS,
        "retrieved_images": retrieved_images,
        "retrieved_labels": RETRIEVED_LABELS,
        "classes": CLASSES,
    }
    return plot_retrieval_grid(**{**arguments, **changes})


def drawn(figure):
    """Draw the figure and return its pixels; pytest turns a warning into an error."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    return np.asarray(Image.open(file).convert("RGB"))


def texts(parent):
    return [text.get_text() for text in parent.texts]


def frames(figure):
    return [to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in figure.axes]


def assert_nothing_overlaps_or_leaves(figure, artists):
    figure.draw_without_rendering()
    boxes = [artist.get_window_extent() for artist in artists]
    for number, box in enumerate(boxes):
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= figure.bbox.width + 1
        assert box.y1 <= figure.bbox.height + 1
        for other in boxes[number + 1 :]:
            assert not box.padded(-1).overlaps(other.padded(-1))


def test_grid_marks_shared_labels(images):
    figure = plot_grid(images, title="Nearest images")
    assert texts(figure)[:9] == [
        "Nearest images",
        "ship, water",
        "ship",
        "trees",
        "no shared label",
        "trees",
        "no label",
        "no shared label",
        "ship",
    ]
    assert [frames(figure)[index] for index in (1, 2, 4, 5)] == [GREEN, RED, RED, RED]
    spines = [axes.spines["left"] for axes in figure.axes]
    assert [spine.get_linestyle() == "-" for spine in spines] == [True, True, False, True, False, False]
    assert [to_hex(text.get_color()).upper() for text in figure.texts[1:6]] == [INK, GREEN, GREY, RED, GREY]
    assert [axes.get_title() for axes in figure.axes] == ["query", "rank 1", "rank 2", "", "", ""]
    pixels = drawn(figure)
    assert (pixels == (0, 0x9E, 0x73)).all(axis=-1).any()
    assert (pixels == (0xD5, 0x5E, 0)).all(axis=-1).any()


def test_grid_shows_the_images(images):
    query_images, retrieved_images = images
    figure = plot_grid(images)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    expected = [query_images[0], *retrieved_images[0], query_images[1], *retrieved_images[1]]
    for picture, image in zip(shown, expected, strict=True):
        assert np.allclose(picture, image.permute(1, 2, 0))


def test_grid_of_images_of_different_kinds(images):
    query_images = [np.zeros((3, 5, 9), np.uint8), torch.zeros(1, 20, 4)]
    assert drawn(plot_grid(images, query_images=query_images, retrieved_images=[list(row) for row in images[1]])).size


def test_grid_of_real_size_is_legible():
    scenes = SyntheticScenes(num_images=80, seed=3)
    images = torch.stack([image for image, _ in scenes])
    order = scenes.labels.sum(dim=1).argsort(descending=True)  # the longest captions
    queries, nearest = order[:4], order[:24].reshape(4, 6)
    figure = plot_retrieval_grid(
        images[queries], scenes.labels[queries], images[nearest], scenes.labels[nearest], scenes.classes, "Title"
    )
    pictures = list(figure.axes)
    assert_nothing_overlaps_or_leaves(figure, figure.texts)
    assert_nothing_overlaps_or_leaves(figure, pictures)


def test_grid_with_labels_that_look_like_formulas(images):
    classes = ["$x_", r"\frac$", "a very long label name that needs several lines"]
    figure = plot_grid(images, classes=classes)
    assert "$x_" in texts(figure)
    drawn(figure)
    drawn(plot_label_average_precision([0.1, 0.2, 0.3], [3, 2, 1], ["$a_$", *classes[1:]]))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query_labels": [[1, 0, 1]]}, TypeError, "query_labels must be a multi-hot torch.Tensor"),
        (
            {"query_labels": QUERY_LABELS[:, :2]},
            ValueError,
            r"query_labels must have one column per class \(3\), got 2",
        ),
        ({"query_labels": QUERY_LABELS * 2}, ValueError, "query_labels must hold only 0 and 1, got 2"),
        ({"query_labels": QUERY_LABELS[:1]}, ValueError, r"with 1 queries and k >= 1, got \(2, 2, 3\)"),
        ({"retrieved_labels": [[[1]]]}, TypeError, r"retrieved_labels must be a torch.Tensor, got list"),
        ({"retrieved_labels": RETRIEVED_LABELS[0]}, ValueError, r"must have the shape \(queries, k, classes\)"),
        ({"retrieved_labels": RETRIEVED_LABELS[:, :0]}, ValueError, r"k >= 1, got \(2, 0, 3\)"),
        (
            {"retrieved_labels": RETRIEVED_LABELS[:, :1]},
            ValueError,
            r"2 queries with 1 .* each\), got 2 queries with \[2, 2\] retrieved",
        ),
        ({"retrieved_labels": RETRIEVED_LABELS * 0.5}, ValueError, "retrieved_labels must hold only 0 and 1, got 0.5"),
        (
            {"query_images": torch.zeros(3, 3, 8, 8)},
            ValueError,
            "query_images and retrieved_images must hold one",
        ),
        ({"query_images": torch.zeros(2, 8, 8)}, ValueError, r"an image must have the shape .*, got \(8, 8\)"),
        ({"query_images": torch.zeros(2, 8, 8, 3)}, ValueError, r"an image must have the shape .*, got \(8, 8, 3\)"),
        ({"query_images": torch.zeros(2, 3, 0, 8)}, ValueError, r"an image must have the shape .*, got \(3, 0, 8\)"),
        ({"query_images": torch.full((2, 3, 8, 8), -2.0)}, ValueError, "got -2 to -2; undo its normalisation first"),
        ({"query_images": torch.full((2, 3, 8, 8), torch.nan)}, ValueError, "a float image must be in"),
        ({"query_images": torch.zeros(2, 3, 8, 8).long()}, TypeError, "an image must hold uint8 or floats, got int64"),
    ],
)
def test_grid_refuses_bad_input(images, changes, error, message):
    with pytest.raises(error, match=message):
        plot_grid(images, **changes)


def test_label_bars_are_ordered_by_frequency():
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, torch.nan])
    figure = plot_label_average_precision(values, torch.tensor([5, 9, 5, 7, 1, 2, 0]), list("abcdefg"))
    axes = figure.axes[0]
    assert [label.get_text()[0] for label in axes.get_yticklabels()] == list("bdcafeg")
    widths = [bar.get_width() for bars in axes.containers for bar in bars]
    assert widths == pytest.approx([20, 40, 30, 10, 60, 50, np.nan], nan_ok=True)
    assert [text for text in texts(axes) if text != "\N{BLACK SQUARE}"] == [
        "head, mean of 2",
        "30.0",
        "middle, mean of 2",
        "20.0",
        "tail, mean of 2",
        "55.0",
    ]
    assert axes.get_legend() is None
    drawn(figure)


@pytest.mark.parametrize(("num_labels", "num_runs"), [(1, 1), (2, 2), (3, 8), (17, 2), (17, 4)])
def test_label_bars_of_several_runs_are_legible(num_labels, num_runs):
    rng = np.random.default_rng(0)
    runs = {f"run {number}": rng.random(num_labels) for number in range(num_runs)}
    names = [f"label {number}" for number in range(num_labels)]
    figure = plot_label_average_precision(runs, rng.integers(0, 1000, num_labels), names, title="A title")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(runs)
    bars = [list(container) for container in axes.containers]
    assert len({bar[0].get_facecolor() for bar in bars}) == num_runs
    for row in range(num_labels):  # the bars of a label lie around its name, in the order of the runs, without overlaps
        centers = [bar[row].get_y() + bar[row].get_height() / 2 for bar in bars]
        assert np.mean(centers) == pytest.approx(axes.get_yticks()[row])
        assert all(one[row].get_y() + one[row].get_height() <= two[row].get_y() for one, two in pairwise(bars))
    bands = [patch for patch in axes.patches if all(patch not in bar for bar in bars)]
    figure.draw_without_rendering()
    pixels = abs(axes.transData.transform([(0, 1)]) - axes.transData.transform([(0, 0)]))[0, 1]  # per label
    assert sum(band.get_window_extent().height for band in bands) / pixels == pytest.approx(num_labels)
    axes.legend_.set_in_layout(True)
    artists = [*axes.texts, *axes.get_yticklabels(), axes.legend_, *figure.texts, axes.xaxis.label]
    assert_nothing_overlaps_or_leaves(figure, artists)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.5], [1, 2], ["a", "b"]), ValueError, r"average_precision must have the shape \(2\), got \(1,\)"),
        (
            ({"x": [0.5, 0.5], "y": 0.5}, [1, 2], ["a", "b"]),
            ValueError,
            r"average_precision\['y'\] must have the shape",
        ),
        (([0.5, 50], [1, 2], ["a", "b"]), ValueError, r"every value of average_precision must be in \[0, 1\], got 50"),
        (
            ({"x": [0.5, -1]}, [1, 2], ["a", "b"]),
            ValueError,
            r"average_precision\['x'\] must be in \[0, 1\], got -1",
        ),
        (([0.5, "x"], [1, 2], ["a", "b"]), TypeError, "average_precision must be an array of numbers, got list"),
        (({}, [1, 2], ["a", "b"]), ValueError, "must hold 1 to 8 runs, got 0"),
        (({str(i): [0.5] for i in range(9)}, [1], ["a"]), ValueError, "must hold 1 to 8 runs, got 9"),
        (([0.5, 0.5], [1, 2, 3], ["a", "b"]), ValueError, r"counts must have the shape \(2\), got \(3,\)"),
        (([0.5, 0.5], [1, -2], ["a", "b"]), ValueError, "every value of counts must be >= 0, got -2"),
        (([0.5, 0.5], [1, float("nan")], ["a", "b"]), ValueError, "every value of counts must be >= 0, got nan"),
        (([], [], []), ValueError, "classes must name at least one label"),
    ],
)
def test_label_bars_refuse_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        plot_label_average_precision(*arguments)


def test_training_curves_show_the_numbers():
    figure = plot_training_curves(LOSSES, METRICS, epochs=[1, 3], best_epoch=3, title="Training")
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == LOSSES["loss"]
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert [line.get_ydata().tolist() for line in right.lines[:2]] == list(METRICS.values())
    assert list(right.lines[0].get_xdata()) == [1, 3]
    assert list(right.lines[2].get_xdata()) == [3, 3]
    assert right.get_xlabel() == "epoch (dotted: best epoch 3)"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["ndcg", "precision at 1"]
    drawn(figure)


def test_long_losses_get_a_running_mean():
    losses = torch.arange(100.0).tolist()
    figure = plot_training_curves({"loss": losses}, METRICS)
    raw, mean = figure.axes[0].lines
    assert raw.get_ydata().tolist() == losses
    assert mean.get_xdata().tolist() == list(range(5, 101))
    assert mean.get_ydata()[0] == pytest.approx(np.mean(losses[:5]))


def test_training_curves_with_many_metrics_are_legible():
    metrics = {f"label_mean_average_precision_{number}": [0.1 * number, 0.5] for number in range(6)}
    figure = plot_training_curves({"total_loss": [1.0], "metric_loss": [2.0]}, metrics, title="A title")
    left, right = figure.axes
    artists = [left.legend_, right.legend_, *figure.texts, left.xaxis.label, right.xaxis.label, right.yaxis.label]
    assert_nothing_overlaps_or_leaves(figure, artists)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"losses": [1.0]}, TypeError, "losses must map names to lists of numbers, got list"),
        ({"losses": {}}, ValueError, "losses must hold at least one curve"),
        ({"losses": {"loss": []}}, ValueError, "and each curve at least one value, got {'loss': \\[\\]}"),
        ({"losses": {"loss": 3.0}}, ValueError, r"losses\['loss'\] must have the shape \(any\), got \(\)"),
        ({"losses": {"loss": ["a"]}}, TypeError, r"losses\['loss'\] must be an array of numbers"),
        ({"metrics": None}, TypeError, "metrics must map names to lists of numbers, got NoneType"),
        ({"metrics": {}}, ValueError, "metrics must hold at least one curve"),
        (
            {"metrics": {"a": [1], "b": [1, 2]}},
            ValueError,
            r"metrics\['a'\] must have one value per epoch .2., got",
        ),
        ({"epochs": [1]}, ValueError, r"metrics\['ndcg'\] must have one value per epoch \(1\), got 2"),
    ],
)
def test_training_curves_refuse_bad_input(changes, error, message):
    with pytest.raises(error, match=message):
        plot_training_curves(**{"losses": LOSSES, "metrics": METRICS, **changes})


def test_precision_and_recall_equal_a_naive_loop(generator):
    relevance = torch.rand(9, 7, generator=generator) < 0.4
    relevance[3] = False
    total = relevance.sum(dim=1) + torch.randint(0, 4, (9,), generator=generator)
    total[3] = 0  # left out
    figure = plot_precision_recall_over_ranks({"ours": relevance, "none": relevance & False}, total)
    for rank in range(1, 8):
        found = [(row[:rank].sum().item(), count.item()) for row, count in zip(relevance, total, strict=True) if count]
        precision = 100 * np.mean([hits / rank for hits, _ in found])
        recall = 100 * np.mean([hits / count for hits, count in found])
        assert figure.axes[0].lines[0].get_ydata()[rank - 1] == pytest.approx(precision)
        assert figure.axes[1].lines[0].get_ydata()[rank - 1] == pytest.approx(recall)
    assert not figure.axes[0].lines[1].get_ydata().any()
    drawn(figure)


def test_runs_can_have_different_numbers_of_ranks():
    relevance = torch.ones(2, 200)
    figure = plot_precision_recall_over_ranks({"long": relevance, "short": relevance[:, :5]}, [200, 300], title="Title")
    assert figure.axes[0].get_xscale() == "log"
    assert len(figure.axes[0].lines[1].get_xdata()) == 5
    drawn(figure)


@pytest.mark.parametrize(
    ("relevance", "num_relevant", "error", "message"),
    [
        ([[1, 0]], [1, 1], ValueError, r"relevance must have the shape \(2, any\), got \(1, 2\)"),
        ([1, 0], [1, 1], ValueError, r"relevance must have the shape \(2, any\), got \(2,\)"),
        ([[1, 0]], 1, ValueError, r"num_relevant must have the shape \(any\), got \(\)"),
        ([[2, 0]], [2], ValueError, "relevance must hold only 0 and 1, got 2; pass gains as gains > 0"),
        ([[float("nan"), 0]], [2], ValueError, "relevance must hold only 0 and 1, got nan"),
        ([[]], [2], ValueError, "at least one rank, got none"),
        ([[1, 0], [1, 1]], [1, 1], ValueError, "num_relevant must be at least .*, got 1 for query 1 with 2 of them"),
        ([[0, 0]], [float("nan")], ValueError, "num_relevant must be at least .*, got nan for query 0 with 0"),
        ([[0, 0]], [0], ValueError, "num_relevant must be above 0 for at least one query, got only 0"),
        ({}, [1], ValueError, "relevance must hold 1 to 8 runs, got 0"),
        ([["a"]], [1], TypeError, "relevance must be an array of numbers"),
    ],
)
def test_precision_and_recall_refuse_bad_input(relevance, num_relevant, error, message):
    with pytest.raises(error, match=message):
        plot_precision_recall_over_ranks(relevance, num_relevant)


def test_the_style_of_the_plots_can_be_imported_from_here():
    names = {name for name in vars(plot_style) if not name.startswith("_")} - {"TYPE_CHECKING", "Any"}
    assert {"COLOURS", "LINE_STYLES", "add_legend", "line_style", "new_plot"} <= names
    assert all(getattr(visualization, name) is getattr(plot_style, name) for name in names)


def test_line_styles_differ():
    styles = [plot_style.line_style(number) for number in range(8)]
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 8


def test_matplotlib_is_optional_and_its_state_stays_untouched():
    program = """
import sys, matplotlib
from pml_macl.visualization import plot_training_curves
def settings():  # reading the backend would import pyplot
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
plot_training_curves({"loss": [1]}, {"ndcg": [1]}).savefig(sys.stdout.buffer)
assert before == settings()
assert "matplotlib.pyplot" not in sys.modules
sys.modules["matplotlib.figure"] = None
try:
    plot_training_curves({"loss": [1]}, {"ndcg": [1]})
except ImportError as error:
    assert "pip install matplotlib" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
