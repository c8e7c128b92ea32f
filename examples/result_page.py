"""A page of search results in one HTML file, which needs no network."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from channel_files import preview, read_channels
from PIL import Image

from pml_macl.datasets.image_files import load_image

THUMBNAIL = 256  # longest side in pixels
TINY = 64
STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { max-width: 70rem; margin: 1rem auto; padding: 0 1rem; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem; padding: 0; }
li { list-style: none; }
figure { margin: 0; }
img { width: 100%; max-width: 16rem; aspect-ratio: 1; object-fit: contain; background: #8883; }
figcaption { font-size: 0.85rem; overflow-wrap: anywhere; }
.label { display: inline-block; border: 1px solid #8888; border-radius: 0.6rem; padding: 0 0.4rem; margin: 0.1rem; }
.shared { background: #2a78; border-color: #2a7; font-weight: 600; }
"""


@dataclass(frozen=True)
class Found:
    """One result: its image file, its distance, and the names of its labels."""

    path: Path
    distance: float
    labels: Sequence[str]


def result_page(
    query: Path,
    query_labels: Sequence[str],
    predicted: Sequence[tuple[str, float]],
    results: Sequence[Found],
    filters: str,
    channels: int | None = None,
) -> str:
    """The HTML of a page with a query and its results.

    Args:
        query: the image file of the query.
        query_labels: labels of the query; results that have them too show them highlighted.
        predicted: names and scores of the labels that are predicted for the query, best first.
        results: the nearest images, nearest first.
        filters: the label filters in words, or an empty string.
        channels: number of channels of the images; None means RGB images.
    """
    scores = "".join(f'<span class="label">{html.escape(name)} {score:.0%}</span>' for name, score in predicted)
    items = "\n".join(
        f"<li>{figure(found, position, query_labels, channels)}</li>" for position, found in enumerate(results, 1)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Search results for {html.escape(query.name)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Search results</h1>
<figure>{picture(query, thumbnail(query, channels))}<figcaption>Query: {html.escape(query.name)}</figcaption></figure>
{f"<p>Predicted labels: {scores}</p>" if predicted else ""}
{f"<p>{html.escape(filters)}</p>" if filters else ""}
<ol>
{items}
</ol>
{"" if results else "<p>No image passes the filters.</p>"}
</body>
</html>
"""


def figure(found: Found, position: int, query_labels: Sequence[str], channels: int | None) -> str:
    """The HTML of one result."""
    labels = "".join(
        f'<span class="label{" shared" * (name in query_labels)}">{html.escape(name)}</span>' for name in found.labels
    )
    caption = f"{position}. {html.escape(found.path.name)}<br>distance {found.distance:.3f}<br>{labels}"
    shown = picture(found.path, thumbnail_or_blank(found.path, channels))
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def picture(path: Path, image: Image.Image) -> str:
    """The HTML of a thumbnail, with the image's bytes inside."""
    content = io.BytesIO()
    image.save(content, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return f'<img src="{source}" alt="{html.escape(path.name)}">'


def thumbnail_or_blank(path: Path, channels: int | None) -> Image.Image:
    """The thumbnail of a result, or a grey square if its file is gone or broken: the other results are still shown."""
    try:
        return thumbnail(path, channels)
    except (OSError, ValueError):
        return Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#888888")


def thumbnail(path: Path, channels: int | None) -> Image.Image:
    """The image with its longest side at ``THUMBNAIL`` pixels or below; a tiny image is enlarged without blur."""
    if channels is None:
        image = load_image(path)
    else:
        pixels = preview(read_channels(path, channels)).mul(255).round().byte()
        image = Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
    if max(image.size) <= TINY:
        factor = THUMBNAIL // max(image.size)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image
