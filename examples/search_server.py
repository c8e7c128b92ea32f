"""The web page of ``search.py serve``, made with Gradio. It runs on this machine and loads nothing from other hosts."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from archive import Archive
from result_page import thumbnail, thumbnail_or_blank

try:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
    import gradio as gr
except ImportError as error:
    raise ImportError('the search page needs Gradio; install it with: pip install -e ".[serve]"') from error

MAX_RESULTS = 60
THIS_HOST = (b"127.0.0.1", b"localhost")
# Gradio's page names fonts, scripts and pictures of other hosts. This header forbids the browser to load them.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
STYLE = """
footer { display: none !important; }
.gradio-container { max-width: 80rem !important; margin: auto; }
.query img { width: 100%; height: 100%; object-fit: contain; }
.found .grid-wrap { max-height: none !important; }
@media (max-width: 40rem) { .found .grid-container { grid-template-columns: repeat(2, 1fr) !important; } }
.found .thumbnail-item { aspect-ratio: auto; height: auto; display: flex; flex-direction: column; }
.found .thumbnail-item img { aspect-ratio: 1; object-fit: contain; }
.found .caption-label { position: static; max-width: none; border: 0; white-space: normal; text-align: left; }
"""


class OnlyThisHost:
    """ASGI middleware that adds ``POLICY`` to each response.

    It also refuses requests under another host's name and those that a page of another host makes. Without this, a web
    site could search the archive through the browser of its visitor.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        headers = dict(scope.get("headers", ()))
        addresses = [b"//" + headers.get(b"host", b""), headers.get(b"origin", b"//localhost")]
        if scope["type"] != "lifespan" and any(urlsplit(address).hostname not in THIS_HOST for address in addresses):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This page answers only its own machine."})
        else:
            await self.app(scope, receive, send_with_policy)


def serve_page(archive: Archive, port: int) -> None:
    """Serve the page on 127.0.0.1 until Ctrl-C.

    Args:
        archive: the archive to search.
        port: the port.
    """
    with tempfile.TemporaryDirectory() as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # dropped images and thumbnails, removed at the end
        page = make_page(archive)
        print(f"search page: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
        page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            css=STYLE,
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            app_kwargs={"middleware": [(OnlyThisHost, (), {})]},
        )


def make_page(archive: Archive) -> gr.Blocks:
    """The page: a query, label filters and predicted labels at the left, images at the right."""

    def show(query: str | None, having: list[str], lacking: list[str], k: int) -> list[Any]:
        """The new content of ``shown``: for a query its nearest images, otherwise images of the archive."""
        try:
            if query is None:
                ids = archive.browse(k, having, lacking)
                captions = [", ".join(archive.labels_of(image_id)) for image_id in ids]
                paths, scores = [archive.images / image_id for image_id in ids], {}
                status = f"{len(archive.model)} images. Drop an image, or click one to search with it."
            else:
                answer = archive.search(Path(query), k, having, lacking)
                captions = [f"{found.distance:.3f} {caption(found.labels, answer.labels)}" for found in answer.results]
                paths, scores = [found.path for found in answer.results], dict(answer.predicted)
                status = f"Nearest images of {Path(query).name}, with distance."
                status += " ✓ marks labels of the query." * has_labels
            images = [
                (thumbnail_or_blank(path, archive.channels), text) for path, text in zip(paths, captions, strict=True)
            ]
            status = status if images else "No image passes the filters."
        except (OSError, ValueError) as error:
            folder = "" if query is None else f"{Path(query).parent}{os.sep}"  # for a dropped image a temporary one
            query, images, paths, scores, status = None, [], [], {}, str(error).replace(folder, "")
        files, label = [str(path) for path in paths], gr.Label(scores, visible=bool(scores))
        return [query, status, gr.Gallery(images, selected_index=None), files, label]

    def search_with_clicked(event: gr.SelectData, paths: list[str], *filters: Any) -> list[Any]:
        path = paths[event.index]
        answer = show(path, *filters)
        return [None if answer[0] is None else thumbnail(Path(path), archive.channels), *answer]

    def dropped(file: Any) -> str | None:
        """The path of a dropped file. Gradio would decode it here and hide why that failed; load_image says why."""
        if file is None:
            return None
        if not Path(file.path).resolve().is_relative_to(Path(image.GRADIO_CACHE).resolve()):
            raise gr.Error("Drop an image on the page; other files cannot be searched with.", print_exception=False)
        return str(file.path)

    has_labels = archive.model.labels is not None
    with gr.Blocks(title="Image search", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        query, paths = gr.State(None), gr.State([])
        gr.Markdown("# Image search")
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                image = gr.Image(
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    label="Query",
                    height=260,
                    elem_classes="query",
                )
                image.preprocess = dropped
                having = gr.Dropdown(archive.classes, multiselect=True, label="With labels", visible=has_labels)
                lacking = gr.Dropdown(archive.classes, multiselect=True, label="Without labels", visible=has_labels)
                k = gr.Slider(1, MAX_RESULTS, 12, step=1, label="Number of images")
                scores = gr.Label(label="Predicted labels", show_heading=False, visible=False)
            with gr.Column(scale=3, min_width=320):
                status = gr.Markdown()
                gallery = gr.Gallery(
                    show_label=False,
                    columns=4,
                    height="auto",
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    elem_classes="found",
                )
        filters, shown = [having, lacking, k], [query, status, gallery, paths, scores]
        page.load(show, [query, *filters], shown)
        image.upload(show, [image, *filters], shown)
        image.clear(lambda *filters: show(None, *filters), filters, shown)
        gr.on([having.change, lacking.change, k.release], show, [query, *filters], shown)
        gallery.select(search_with_clicked, [paths, *filters], [image, *shown])
    return page


def caption(labels: Sequence[str], query_labels: Sequence[str]) -> str:
    """The labels of a result, those of the query first and with a tick."""
    shared = [f"✓\N{NO-BREAK SPACE}{name}" for name in labels if name in query_labels]
    return ", ".join(shared + [name for name in labels if name not in query_labels])
