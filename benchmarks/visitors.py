"""What do visitors gain when they ask at the same time? 32 CLIP queries one after the other, and all at once.

    python -m benchmarks.visitors [--encoder starter] [--visitors 32]

Against `imgret serve` over HTTP, with `gradio_client` (thumbnails are not downloaded); each round asks for pictures
that no round before asked for, as the demo remembers embeddings. Prints queries a second either way, the ratio, and
how far the scores of what was asked together differ from those of the same query alone.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.serving import demo
from imgret import ImageLibrary, Index, Retriever, build_index
from imgret.images import load_image
from imgret.settings import EXAMPLES

ROUNDS = 6


def crops(folder: Path, count: int) -> list[str]:
    """`count` pictures that differ from each other and from the library's, in files."""
    files = sorted((EXAMPLES / "library").rglob("*.webp"))
    made = []
    for number in range(count):
        picture = load_image(files[number % len(files)])
        border = 1 + number // len(files) + number % 7
        path = folder / f"{number}.png"
        picture.crop((border, border, picture.width - border, picture.height - border)).save(path)
        made.append(str(path))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--visitors", type=int, default=32)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        index, cache = Path(folder, "index"), Path(folder, "cache")
        build_index(ImageLibrary.load(EXAMPLES / "library"), index, options.encoder, cache=cache).close()
        (pictures := Path(folder, "pictures")).mkdir()
        queries = crops(pictures, options.visitors * (2 * ROUNDS + 1))
        with demo(index, cache) as served, ThreadPoolExecutor(options.visitors) as visitors:
            client = Client(served.address, verbose=False, download_files=False)

            def ask(query: str) -> dict[str, Any]:
                answer: dict[str, Any] = client.predict(image=handle_file(query), api_name="/search_clip")
                return answer

            def queries_per_s(chosen: list[str], together: bool) -> tuple[float, list[dict[str, Any]]]:
                started = time.perf_counter()
                answers = list((visitors.map if together else map)(ask, chosen))
                return len(chosen) / (time.perf_counter() - started), answers

            queries_per_s(queries[: options.visitors], together=True)
            rates: dict[bool, list[float]] = {False: [], True: []}
            asked: dict[str, dict[str, Any]] = {}
            for turn in range(2 * ROUNDS):
                start = options.visitors * (turn + 1)
                chosen, together = queries[start : start + options.visitors], bool(turn % 2)
                rate, answers = queries_per_s(chosen, together)
                rates[together].append(rate)
                if together:
                    asked |= dict(zip(chosen, answers, strict=True))
        retriever = Retriever(Index.open(index, cache=cache), cache=cache)
        furthest = same = 0.0
        for query, answer in asked.items():
            alone = retriever.by_clip(Image.open(query))
            scores = {hit.id: hit.score for hit in alone}
            found = {hit["id"]: hit["score"] for hit in answer["hits"]}
            same += len(scores.keys() & found.keys()) / len(scores) / len(asked)
            furthest = max([furthest, *(abs(found[id] - score) for id, score in scores.items() if id in found)])
        retriever.index.close()
    one, many = (statistics.median(rates[together]) for together in (False, True))
    print(
        f"{one:.1f} queries a second one after the other, {many:.1f} with {options.visitors} at once: {many / one:.2f}"
    )
    print(
        f"scores differ by at most {furthest:.1e} from those of the query alone; {same:.1%} of the top 10 are the same"
    )
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    figures = {"alone_per_s": one, "together_per_s": many, "ratio": many / one, "furthest": furthest, "same": same}
    print(json.dumps({"benchmark": "visitors", "machine": machine, "encoder": options.encoder, **figures}))


if __name__ == "__main__":
    main()
