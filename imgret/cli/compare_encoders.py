"""`imgret compare-encoders`: the figures of several encoders over one library, in one table."""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from imgret.cli.shared import Commands, ProgressBar
from imgret.errors import ImgretError

QUERIES = 20
"""How many pictures and texts are timed, one by one."""


def add(commands: Commands) -> None:
    command = commands.add_parser("compare-encoders", help="measure several encoders over one library")
    command.set_defaults(run=run)
    command.add_argument("source", metavar="LIBRARY", help="as SOURCE of build")
    command.add_argument("encoders", metavar="ENCODER", nargs="+", help="short names or URIs, as of build")
    command.add_argument("--split", metavar="S", help="the split of a data set; train by default")
    command.add_argument("--limit", metavar="N", type=int, help="only the first N pictures")
    command.add_argument("--json", action="store_true")


def run(options: argparse.Namespace) -> None:
    from imgret.library import ImageLibrary

    if repeated := {one for one in options.encoders if options.encoders.count(one) > 1}:
        raise ImgretError("{encoder} is named twice; each encoder is measured once.", encoder=min(repeated))
    library = ImageLibrary.load(options.source, options.split, limit=options.limit)
    with tempfile.TemporaryDirectory() as folder, ProgressBar() as progress:
        found = {
            encoder: _measure(library, encoder, Path(folder, str(number)), progress)
            for number, encoder in enumerate(options.encoders)
        }
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
        return
    columns = list(dict.fromkeys(name for figures in found.values() for name in figures))
    width = max(len(encoder) for encoder in found) + 2
    print(f"{'':<{width}}" + "".join(f"{column:>{len(column) + 3}}" for column in columns))
    for encoder, figures in found.items():
        values = ("" if figures.get(column) is None else f"{figures[column]:.4g}" for column in columns)
        print(f"{encoder:<{width}}" + "".join(f"{v:>{len(c) + 3}}" for v, c in zip(values, columns, strict=True)))


def _measure(library: Any, encoder: str, folder: Path, progress: Any) -> dict[str, float]:
    """Builds an index with `encoder` in `folder`; returns its quality, its milliseconds a query and its megabytes."""
    from imgret.build import build_index
    from imgret.images import load_image
    from imgret.search import Retriever
    from imgret.settings import Settings

    cache = Settings.read().cache
    started = time.perf_counter()
    index = build_index(library, folder, encoder, 16, progress=progress, cache=cache)
    seconds = time.perf_counter() - started
    evaluation: Any = index.evaluation or {"methods": {}, "captions": None}
    figures = {f"clip {name}": value for name, value in evaluation["methods"].get("clip", {}).items()}
    by_language = evaluation.get("captions_by_language") or {"captions": evaluation["captions"] or {}}
    figures |= {f"{name} recall@10": values["recall@10"] for name, values in by_language.items() if values}
    towers = Retriever(index).encoder
    rows = range(0, len(index), max(1, len(index) // QUERIES))
    pictures = [load_image(index.thumbnail(row)) for row in rows]
    texts = [index.record(row).caption or index.record(row).label or "a picture" for row in rows]
    towers.embed_images(pictures[:1])  # opens the tower
    towers.embed_texts(texts[:1])
    figures["ms a picture"] = _milliseconds(towers.embed_images, pictures)
    figures["ms a text"] = _milliseconds(towers.embed_texts, texts)
    if index.encoder_folder is not None:
        figures["MB"] = sum(path.stat().st_size for path in index.encoder_folder.iterdir()) / 1e6
    figures["build s"] = seconds
    index.close()
    return figures


def _milliseconds(embed: Any, items: list[Any]) -> float:
    """The median time of one of `items`."""
    times = []
    for item in items:
        started = time.perf_counter()
        embed([item])
        times.append((time.perf_counter() - started) * 1000)
    return sorted(times)[len(times) // 2]
