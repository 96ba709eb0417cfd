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

COMPARED, ON_A_PHONE = "?tab=compare&example=tiger.webp", "?tab=pixels&example=sportscar3.webp"
PICTURES = (
    ("demo.webp", f"{COMPARED}&lang=en", (1280, 1490)),
    ("demo-vi.webp", f"{COMPARED}&lang=vi", (1280, 1490)),
    ("phone.webp", f"{ON_A_PHONE}&lang=en", (390, 844)),
    ("phone-vi.webp", f"{ON_A_PHONE}&lang=vi", (390, 844)),
)
WAIT = 300
PAINTED = """() => Promise.all([...document.querySelectorAll('.thumbnail-item img')].map((image) => {
  image.loading = 'eager';
  return image.decode();
}))"""


def main() -> None:
    """Starts app.py, opens an example in the tab that compares, and one on a phone, and keeps what a visitor sees."""
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
            for name, address, (width, height) in PICTURES:
                page = browser.new_page(viewport={"width": width, "height": height}, has_touch=width < 500)
                page.goto(f"http://127.0.0.1:{port}/{address}")
                hits = page.locator("#compare-clip, #pixel-hits").locator(".thumbnail-item img").filter(visible=True)
                hits.first.wait_for(timeout=WAIT * 1000)
                page.wait_for_load_state("networkidle")
                page.evaluate(PAINTED)
                Image.open(io.BytesIO(page.screenshot())).save(EXAMPLES / name, quality=80, method=6)
                page.close()
    finally:
        app.terminate()


if __name__ == "__main__":
    main()
