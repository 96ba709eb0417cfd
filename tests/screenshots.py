"""Makes the README's picture of the demo, from the demo: `make screenshots`."""

import io
import os
import subprocess
import sys
import time
import urllib.request

from PIL import Image

from tests.browser import open_browser
from tests.conftest import EXAMPLES, ROOT, free_port

TARGET = EXAMPLES / "demo.webp"
EXAMPLE = 3
WAIT = 300


def main() -> None:
    """Starts app.py, clicks an example, and keeps what a visitor then sees of both tabs, one above the other."""
    port = free_port()
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment)
    try:
        for _ in range(WAIT):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        with open_browser() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"http://127.0.0.1:{port}")
            page.get_by_text("pictures from").wait_for(timeout=WAIT * 1000)
            page.locator("#example-gallery .thumbnail-item").nth(EXAMPLE).click()
            shots = []
            for tab, hits in (("Basic metrics", "#pixel-hits"), ("CLIP search", "#clip-hits")):
                page.get_by_role("tab", name=tab).click()
                page.locator(f"{hits} .thumbnail-item img").first.wait_for()
                page.wait_for_load_state("networkidle")
                shots.append(Image.open(io.BytesIO(page.screenshot())))
    finally:
        app.terminate()
    both = Image.new("RGB", (shots[0].width, sum(shot.height for shot in shots)), "white")
    for number, shot in enumerate(shots):
        both.paste(shot, (0, number * shot.height))
    both.save(TARGET, quality=85, method=6)


if __name__ == "__main__":
    main()
