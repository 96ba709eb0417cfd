"""Makes the READMEs' pictures of the demo, from the demo: `make screenshots`."""

import io
import os
import subprocess
import sys
import time
import urllib.request

from PIL import Image

from tests.browser import open_browser
from tests.conftest import EXAMPLES, ROOT, free_port

TARGETS = {"en": EXAMPLES / "demo.webp", "vi": EXAMPLES / "demo-vi.webp"}
HEIGHT = 1490
EXAMPLE = "tiger.webp"
WAIT = 300


def main() -> None:
    """Starts app.py, opens an example in the tab that compares, and keeps what a visitor then sees."""
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
            for language, target in TARGETS.items():
                page = browser.new_page(viewport={"width": 1280, "height": HEIGHT})
                page.goto(f"http://127.0.0.1:{port}/?tab=compare&example={EXAMPLE}&lang={language}")
                page.locator("#compare-clip .thumbnail-item img").first.wait_for(timeout=WAIT * 1000)
                page.wait_for_load_state("networkidle")
                Image.open(io.BytesIO(page.screenshot())).save(target, quality=80, method=6)
                page.close()
    finally:
        app.terminate()


if __name__ == "__main__":
    main()
