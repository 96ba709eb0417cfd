"""Does the demo hold a crowd? Visitors who mix all endpoints for minutes, and then twice as many as it can bear.

    python -m benchmarks.load [--visitors 64] [--minutes 5] [--overload 2]

Starts `imgret serve` on an index of `examples/library`. Each visitor uploads a picture, asks an endpoint, fetches a
thumbnail of its answer, and goes on without a pause; every answer is compared with the Retriever's. Prints, per
endpoint, how many were answered and the median and 95th percentile of their times; wrong answers, errors, requests
that were overtaken, memory a minute, uploads on the disk. In the overload, requests come at twice the rate that was
answered before, whether or not answers come back; those that the queue refuses are counted.
"""

import argparse
import itertools
import os
import platform
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving import demo
from imgret import ImageLibrary, Index, Retriever, build_index
from imgret.settings import EXAMPLES, Settings
from imgret.ui.examples import read_examples
from tests.raw import listen, upload

TEXTS = ("a red flower", "a bird with long legs", "something to eat", "a ship at sea")
K = 5
METHODS = ("l1", "l2", "cosine", "correlation")


class Crowd:
    """What visitors ask, what they should be answered, and what became of it."""

    def __init__(self, address: str, retriever: Retriever) -> None:
        self.address = address
        self.pictures = [example.path for example in read_examples()]
        self.expected: dict[tuple[Any, ...], list[str]] = {}
        for path in self.pictures:
            for method in METHODS:
                self.expected[method, path] = [hit.id for hit in retriever.by_pixels(path, method, K)]
            self.expected["clip", path] = [hit.id for hit in retriever.by_clip(path, k=K)]
        for text in TEXTS:
            self.expected["clip", text] = [hit.id for hit in retriever.by_clip(text=text, k=K)]
        self.times: dict[str, list[float]] = defaultdict(list)
        self.count: Counter[str] = Counter()
        self.ended: list[tuple[str, float, float]] = []
        self.lock = threading.Lock()

    def ask(self, client: httpx.Client, chance: random.Random) -> None:
        """One request of a visitor from the upload to a thumbnail."""
        name = chance.choice(
            ("/search_pixels", "/search_pixels", "/search_clip", "/search_clip", "/compare", "/library")
        )
        path, method, text = chance.choice(self.pictures), chance.choice(METHODS), chance.choice(TEXTS)
        try:
            by_text = name == "/search_clip" and chance.random() < 0.5
            file = None
            if not by_text and name != "/library":
                # A few bytes of its own after the picture: every visitor's upload is another file on the disk.
                data = path.read_bytes() + os.urandom(8)
                uploaded = upload(self.address, data, path.name, client)
                file = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
            arguments: list[Any] = {
                "/search_pixels": [file, method, K],
                "/search_clip": [file, text if by_text else None, None, 0.5, None, K],
                "/compare": [file, K],
                "/library": [],
            }[name]
            started = time.monotonic()
            answer = client.post(f"{self.address}/gradio_api/call{name}", json={"data": arguments})
            if answer.status_code == 503:
                return self._note("busy")
            kind, value = listen(self.address, name, answer.raise_for_status().json()["event_id"], client)
            ended = time.monotonic()
            if kind != "complete":
                raise RuntimeError(f"{kind}: {value}")
            answers = value if isinstance(value, list) else [value]
            if name != "/library":
                methods = (
                    ("l1", "l2", "cosine", "correlation", "clip") if name == "/compare" else (answers[0]["method"],)
                )
                asked = text if by_text else path
                right = all(
                    [hit["id"] for hit in found["hits"]] == self.expected[found_by, asked]
                    for found, found_by in zip(answers, methods, strict=True)
                )
                thumbnail = client.get(answers[0]["hits"][0]["image"]["url"])
                right = right and thumbnail.status_code == 200
            else:
                right = value["count"] > 0
            with self.lock:
                self.times[name].append(ended - started)
                self.ended.append((name, started, ended))
            self._note("right" if right else "wrong")
        except Exception as error:
            self._note(f"error: {type(error).__name__} {str(error)[:80]}")

    def _note(self, what: str) -> None:
        with self.lock:
            self.count[what] += 1

    def overtaken(self) -> float:
        """The longest that a request was asked before another one of its endpoint and answered after it, in seconds."""
        most = 0.0
        for name in self.times:
            latest = 0.0  # when the latest asked one of those that have been answered was asked
            for _, started, _ in sorted((one for one in self.ended if one[0] == name), key=lambda one: one[2]):
                most, latest = max(most, latest - started), max(latest, started)
        return most

    def report(self, title: str, seconds: float) -> None:
        """Prints what became of the requests."""
        total = sum(map(len, self.times.values()))
        print(f"\n{title}: {total} answers in {seconds:.0f} s, {total / seconds:.1f} a second; {dict(self.count)}")
        print(f"longest that one was overtaken within its endpoint: {self.overtaken():.2f} s")
        for name, times in sorted(self.times.items()):
            low, high = statistics.median(times), statistics.quantiles(times, n=20)[-1]
            print(f"  {name:15} {len(times):6} answers   p50 {low * 1000:6.0f} ms   p95 {high * 1000:6.0f} ms")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--overload", type=float, default=2, help="minutes")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder, uploads = Path(name) / "index", Path(name) / "uploads"
        build_index(ImageLibrary.load(EXAMPLES / "library"), folder, "starter").close()
        os.environ["GRADIO_TEMP_DIR"] = str(uploads)
        cache = Settings.read().cache
        index = Index.open(folder, cache=cache)
        retriever = Retriever(index)
        with demo(folder, cache) as served:
            crowd = Crowd(served.address, retriever)
            stop = time.monotonic() + options.minutes * 60
            memory: list[float] = []

            def watch(until: float) -> None:
                while time.monotonic() < until:
                    memory.append(served.resident_mb())
                    time.sleep(min(10, max(0.1, until - time.monotonic())))

            def visit(number: int) -> None:
                chance = random.Random(number)
                with httpx.Client(timeout=120) as client:
                    while time.monotonic() < stop:
                        crowd.ask(client, chance)

            started = time.monotonic()
            watcher = threading.Thread(target=watch, args=(stop,))
            watcher.start()
            with ThreadPoolExecutor(options.visitors) as pool:
                list(pool.map(visit, range(options.visitors)))
            watcher.join()
            seconds = time.monotonic() - started
            crowd.report(f"{options.visitors} visitors", seconds)
            print("resident memory, MB, every 10 s:", " ".join(f"{value:.0f}" for value in memory))
            tail = memory[-18:]
            print(f"over the last {len(tail) * 10} s: {(max(tail[-3:]) / max(tail[:3]) - 1) * 100:+.1f} %")
            files = [path for path in uploads.rglob("*") if path.is_file()]
            print(f"uploads on the disk: {len(files)} files, {sum(f.stat().st_size for f in files) / 2**20:.0f} MB")

            rate = 2 * sum(map(len, crowd.times.values())) / seconds
            crowd.times.clear(), crowd.count.clear(), crowd.ended.clear()
            numbers = itertools.count()
            until = time.monotonic() + options.overload * 60
            local = threading.local()

            def one() -> None:
                if not hasattr(local, "client"):
                    local.client, local.chance = httpx.Client(timeout=300), random.Random(next(numbers))
                crowd.ask(local.client, local.chance)

            started = time.monotonic()
            with ThreadPoolExecutor(4 * options.visitors) as pool:
                while time.monotonic() < until:
                    pool.submit(one)
                    time.sleep(1 / rate)
                pool.shutdown(cancel_futures=True)
            crowd.report(f"overload, {rate:.0f} requests a second", time.monotonic() - started)
            print(f"resident memory {served.resident_mb():.0f} MB")
            health = httpx.get(f"{served.address}/gradio_api/health", timeout=30).json()
            print(f"afterwards: {health}")
        index.close()


if __name__ == "__main__":
    main()
