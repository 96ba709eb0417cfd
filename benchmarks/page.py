"""How long from opening the page to its first hits, and from a click on an example to the last thumbnail painted?

    python -m benchmarks.page [--encoder starter] [--rounds 5] [--visits 10]

Starts `imgret serve` on an index of `examples/library` and clicks its examples in a headless Chromium, in the tab of
the basic metrics and in that of CLIP, warm: each once before. A click's time ends with the frame after all new
thumbnails are decoded. Before that, new visitors with an empty cache open the page: until the first hits are painted,
in the browser's clock, which starts with the navigation. Prints medians and the largest, the bytes that such a visitor
is sent, and the bytes of the thumbnails of a result of 20.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

from benchmarks.serving import demo
from imgret import ImageLibrary, build_index
from imgret.settings import EXAMPLES
from imgret.ui.examples import read_examples
from tests.browser import open_browser

CLICK = """async ([hits, number]) => {
  const shown = () => [...document.querySelectorAll(`#${hits} .thumbnail-item img`)];
  const before = shown().map((image) => image.src).join();
  const frame = () => new Promise(requestAnimationFrame);
  const started = performance.now();
  document.querySelectorAll('#example-gallery .thumbnail-item')[number].click();
  for (;;) {
    await frame();
    const now = shown();
    if (!now.length || now.map((image) => image.src).join() === before) continue;
    now.forEach((image) => { image.loading = 'eager'; });
    await Promise.all(now.map((image) => image.decode()));
    await frame();
    return performance.now() - started;
  }
}"""

FIRST_HITS = """async () => {
  for (;;) {
    await new Promise(requestAnimationFrame);
    const shown = [...document.querySelectorAll('#pixel-hits .thumbnail-item img')].slice(0, 4);
    if (!shown.length) continue;
    shown.forEach((image) => { image.loading = 'eager'; });
    await Promise.all(shown.map((image) => image.decode()));
    await new Promise(requestAnimationFrame);
    const sent = performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'));
    return [performance.now(), sent.reduce((sum, one) => sum + one.transferSize, 0)];
  }
}"""


def visit(browser: Any, address: str) -> tuple[float, float]:
    """The milliseconds until the first hits are painted, and the bytes that were sent, for a new visitor."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address, wait_until="commit")
    milliseconds, sent = page.evaluate(FIRST_HITS)
    page.close()
    return milliseconds, sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--visits", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    examples = range(len(read_examples()))
    with tempfile.TemporaryDirectory() as folder:
        index, cache = Path(folder, "index"), Path(folder, "cache")
        build_index(ImageLibrary.load(EXAMPLES / "library"), index, options.encoder, cache=cache).close()
        with demo(index, cache) as served, open_browser() as browser:
            visit(browser, served.address)
            visits = [visit(browser, served.address) for _ in range(options.visits)]
            times, sent = zip(*visits, strict=True)
            figures: dict[str, Any] = {
                "first_hits_median_ms": statistics.median(times),
                "first_hits_most_ms": max(times),
                "first_page_KB": statistics.median(sent) / 1000,
            }
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            for tab, hits in (("pixels", "pixel-hits"), ("clip", "clip-hits")):
                page.goto(f"{served.address}/?tab={tab}&example=tiger.webp&k=20")
                page.locator(f"#{hits} .thumbnail-item img").nth(19).wait_for(timeout=120_000)
                for number in examples:
                    page.evaluate(CLICK, [hits, number])
                times = [page.evaluate(CLICK, [hits, number]) for _ in range(options.rounds) for number in examples]
                figures[f"{tab}_median_ms"], figures[f"{tab}_most_ms"] = statistics.median(times), max(times)
            sources = page.locator("#clip-hits .thumbnail-item img").evaluate_all("all => all.map((one) => one.src)")
            figures["thumbnails_of_20_KB"] = sum(len(page.request.get(source).body()) for source in sources) / 1000
    for name, value in figures.items():
        print(f"{name:<24}{value:10.0f}")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "page", "machine": machine, "encoder": options.encoder} | figures))


if __name__ == "__main__":
    main()
