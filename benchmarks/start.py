"""How soon does the demo answer after its process was started, and how much memory does it hold?

    python -m benchmarks.start [--encoders starter ViT-B-32/random] [--library FOLDER] [--rounds 3]

Builds an index of the library for each encoder, then starts `imgret serve` on it, in turns with the index's
exported encoder and with the original in torch. From the start of the process: the first page; the first answer of
`/search_pixels`; in a start of its own, the first of `/search_clip` by a picture; resident memory, after a text and
the pixel metrics, too. Medians.
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

from gradio_client import Client, handle_file

from benchmarks.serving import EXPORTED, TORCH, Demo, demo
from imgret import ImageLibrary, build_index
from imgret.settings import EXAMPLES

QUERY = str(EXAMPLES / "queries" / "tiger.webp")


def two_starts(index: Path, cache: Path, code: str) -> dict[str, float]:
    with demo(index, cache, code) as served:
        ask(served, "/search_pixels", image=handle_file(QUERY))
        found = {"page_s": served.page_s, "pixels_s": served.age()}
    with demo(index, cache, code) as served:
        ask(served, "/search_clip", image=handle_file(QUERY))
        found["clip_s"] = served.age()
        ask(served, "/search_clip", text="a red flower")
        ask(served, "/search_pixels", image=handle_file(QUERY))
        return found | {"resident_MB": served.resident_mb()}


def ask(served: Demo, endpoint: str, **query: Any) -> None:
    Client(served.address, verbose=False).predict(**query, api_name=endpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="*", default=["starter", "ViT-B-32/random"])
    parser.add_argument("--library", default=str(EXAMPLES / "library"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for encoder in options.encoders:
            index, cache = Path(folder, encoder.replace("/", "-")), Path(folder, "cache")
            built = build_index(ImageLibrary.load(options.library), index, encoder, cache=cache)
            export = built.manifest.encoder.export
            towers = {tower: export[tower]["precision"] for tower in ("image", "text")}
            built.close()
            ways = {"exported": EXPORTED, "torch": TORCH}
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, code in ways.items():
                    runs[way].append(two_starts(index, cache, code))
            figures = {
                way: {name: statistics.median(run[name] for run in found) for name in found[0]}
                for way, found in runs.items()
            }
            print(f"\nexported: {towers}\n{encoder}" + "".join(f"{name:>14}" for name in figures["torch"]))
            for way, row in figures.items():
                print(f"{way:<{len(encoder)}}" + "".join(f"{value:14.2f}" for value in row.values()))
            ratios = {name: round(value / figures["torch"][name], 2) for name, value in figures["exported"].items()}
            machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
            line = {
                "benchmark": "start",
                "machine": machine,
                "encoder": encoder,
                "towers": towers,
                **figures,
                "exported to torch": ratios,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
