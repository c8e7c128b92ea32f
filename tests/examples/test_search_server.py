"""The search page of examples/search.py, driven in a real Chromium."""

import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import search
from archive import Archive
from archives import write_untrained_run

from pml_macl.datasets import SyntheticScenes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SEARCH = Path(search.__file__)
# Starts search.py, and prints every address that is not this machine's and that the process connects to or looks up.
WATCHED = """
import runpy, socket, sys
connect, lookup = socket.socket.connect, socket.getaddrinfo
def check(host):
    if host not in ("127.0.0.1", "::1", "localhost", None, "0.0.0.0", ""):
        print("FOREIGN HOST", host, flush=True)
def watched_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        check(address[0])
    return connect(self, address)
def watched_lookup(host, *args, **kwargs):
    check(host)
    return lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = watched_connect, watched_lookup
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rsplit("/", 1)[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 scenes with labels, indexed with random weights, and a scene that is not among them."""
    folder = tmp_path_factory.mktemp("archive")
    scenes = SyntheticScenes(60, seed=0)
    search.write_archive(scenes, folder)
    search.write_images(SyntheticScenes(1, seed=1), folder / "query")
    write_untrained_run(folder / "run", scenes.classes)
    data = ["--images", str(folder / "images"), "--labels", str(folder / "labels.csv")]
    search.main(["index", "--run", str(folder / "run"), *data, "--index", str(folder / "index")])
    return folder


def test_browsing_shows_images_that_pass_the_filters(folder):
    archive = Archive(folder / "index")
    labels, classes = archive.model.labels, archive.classes
    passing = {archive.model.ids[row] for row in range(60) if labels[row, 0] and not labels[row, 1]}
    assert set(archive.browse(60, [classes[0]], [classes[1]])) == passing
    shown = archive.browse(7, [], [])
    assert len(set(shown)) == 7
    assert (shown[0], shown[-1]) == (archive.model.ids[0], archive.model.ids[-1])
    assert archive.browse(7, [classes[0]], [classes[0]]) == []


def test_the_command_names_its_extra_without_gradio(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "search_server", raising=False)
    with pytest.raises(SystemExit, match=r'needs Gradio; install it with: pip install -e "\.\[serve\]"'):
        search.main(["serve", "--index", str(folder / "index")])


@pytest.fixture(scope="module")
def server(folder):
    """The address of a running page, and a function that returns what the process has printed."""
    pytest.importorskip("gradio", reason="the search page needs Gradio (extra serve)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", WATCHED, str(SEARCH), "serve", "--index", str(folder / "index")]
    with (folder / "printed.txt").open("w") as printed:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},  # dropped images, which stay if the process is terminated
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(address, timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "printed.txt").read_text()
                time.sleep(0.25)
        else:
            pytest.fail("the server did not start within 120 s")
        yield address, (folder / "printed.txt").read_text
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def page(server):
    """The search page in a new browser; it fails the test for any request to another host."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server[0])
        yield page
        browser.close()
    foreign = [url for url in requests if not url.startswith((server[0], "data:", "blob:"))]
    assert foreign == []
    assert "FOREIGN HOST" not in server[1]()


def wait_for_results(page, captions):
    """Wait until the grid, which is drawn after its message, shows these captions, or as many if it is a number."""
    expect = importlib.import_module("playwright.sync_api").expect
    shown = page.locator(".found .caption-label")
    if isinstance(captions, int):
        expect(shown).to_have_count(captions, timeout=60_000)
    else:
        expect(shown).to_contain_text(captions, timeout=60_000)


def distances(results):
    return [f"{found.distance:.3f}" for found in results]


def drop(page, path):
    """Drop a file on the page's field for the query."""
    content = list(path.read_bytes())
    transfer = page.evaluate_handle(
        """([content, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], name, {type: "image/png"}));
            return transfer;
        }""",
        [content, path.name],
    )
    page.locator(".query button").first.dispatch_event("drop", {"dataTransfer": transfer})


def test_drop_filter_and_click(page, folder):
    archive = Archive(folder / "index")
    page.get_by_text("60 images. Drop an image, or click one").wait_for()
    wait_for_results(page, 12)

    drop(page, folder / "query" / "0.png")
    page.get_by_text("Nearest images of 0.png").wait_for()
    expected = archive.search(folder / "query" / "0.png", 12, [], [])
    wait_for_results(page, distances(expected.results))
    assert page.get_by_text(expected.predicted[0][0]).count()

    label = archive.classes[0]
    page.get_by_label("Without labels").click()
    page.get_by_role("option", name=label).click()
    expected = archive.search(folder / "query" / "0.png", 12, [], [label]).results
    wait_for_results(page, distances(expected))
    shown = page.locator(".found .caption-label").all_inner_texts()
    assert not any(label in re.split(r", |\s", text) for text in shown)

    clicked = expected[1].path
    page.locator(".found .thumbnail-item").nth(1).click()
    page.get_by_text(f"Nearest images of {clicked.name}").wait_for()
    expected = archive.search(clicked, 12, [], [label]).results
    assert clicked not in [found.path for found in expected]
    wait_for_results(page, distances(expected))


def test_a_file_that_is_no_image_gives_a_message(page, folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    drop(page, broken)
    page.get_by_text("cannot decode image broken.png").wait_for()
    wait_for_results(page, 0)
    page.get_by_label("Remove Image").click()
    drop(page, folder / "query" / "0.png")  # the page goes on
    page.get_by_text("Nearest images of 0.png").wait_for()


def test_files_of_the_machine_are_not_served(server, folder):
    for path in ("/etc/passwd", folder / "images" / "0.png", folder / "index" / "best.pth"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(f"{server[0]}/gradio_api/file={path}")


def test_only_a_dropped_file_can_be_the_query(server, folder):
    """A program that sends a path cannot learn what an image that was not dropped shows, or whether it exists."""
    with urllib.request.urlopen(f"{server[0]}/config") as response:
        events = json.load(response)["dependencies"]
    (name,) = (event["api_name"] for event in events if event["targets"][0][1] == "upload")
    for path in (folder / "query" / "0.png", folder / "query" / "none.png"):
        content = json.dumps({"data": [{"path": str(path)}, [], [], 3]}).encode()
        call, kind = f"{server[0]}/gradio_api/call/{name}", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(call, content, kind)) as response:
            answer = f"{call}/{json.load(response)['event_id']}"
        with urllib.request.urlopen(answer, timeout=15) as response:
            assert "Drop an image on the page" in response.read().decode()


@pytest.mark.parametrize("header", ["Host", "Origin"])
def test_pages_of_other_hosts_get_no_answer(server, header):
    for address in ("evil.example", "127.0.0.1.evil.example"):
        value = f"http://{address}" if header == "Origin" else address
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(server[0], headers={header: value}))


def test_the_browser_may_load_from_this_host_only(server):
    with urllib.request.urlopen(server[0]) as response:
        assert response.headers["content-security-policy"].startswith("default-src 'self'")


def test_a_folder_without_an_index_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"error: --index .* holds no index; make one with: "):
        search.main(["serve", "--index", str(tmp_path), "--port", "0"])


def test_a_port_in_use_is_one_line(server, folder):
    port = server[0].rsplit(":", 1)[1]
    with pytest.raises(SystemExit, match=f"error: --port {port} is not free .*; choose another port"):
        search.main(["serve", "--index", str(folder / "index"), "--port", port])
