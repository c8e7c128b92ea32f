"""Draw docs/assets/search_page.webp, the page of ``examples/search.py serve`` on synthetic scenes, in Chromium.

python docs/draw_search_page.py
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SEARCH = [sys.executable, str(ROOT / "examples" / "search.py")]
PORT = 7869


def main() -> None:
    """Train on synthetic scenes, serve their index, search without cars, and save a picture of the page."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*SEARCH, "--output", folder], check=True)
        index = ["--index", str(Path(folder) / "index")]
        server = subprocess.Popen([*SEARCH, "serve", *index, "--port", str(PORT)], stdout=subprocess.PIPE, text=True)
        try:
            server.stdout.readline()  # the server prints its address just before it listens
            draw(Path(folder) / "query" / "0.png", ROOT / "docs" / "assets" / "search_page.webp")
        finally:
            server.terminate()


def draw(query: Path, picture: Path) -> None:
    """Drop a query on the page, exclude cars, and save what the browser shows."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 760})
        page.goto(f"http://127.0.0.1:{PORT}")
        page.get_by_text("Drop an image, or click one").wait_for()
        page.set_input_files("input[type=file]", query)
        page.get_by_text(f"Nearest images of {query.name}").wait_for()
        page.get_by_label("Without labels").click()
        page.get_by_role("option", name="cars").click()
        page.get_by_text("Nearest images").click()  # closes the list of labels
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(2000)  # thumbnails load and fade in
        Image.open(io.BytesIO(page.screenshot())).save(picture, quality=80)
        browser.close()


if __name__ == "__main__":
    main()
