"""How long does the whole road take, and how does it compare with the course's way?

    python -m benchmarks.road [--photos FOLDER] [--encoders starter ViT-B-32/random]

In processes of their own, with an empty cache: building `examples/library`, then a start that opens what was built and
answers its first query. On a folder of photographs, in one run: pictures a second through `build_index`, through its
first stage (decoding, embedding, thumbnails), and through a plain loop over the course's way, Chroma's
`OpenCLIPEmbeddingFunction` on ViT-B/32, one picture at a time; the encoder's export, once for an index, is told apart,
and beside them stands what the picture tower's session alone does, one picture at a time and in batches of 16, and what
a core takes for the rest of the first stage. Then one query by all four pixel metrics. Prints a table and a JSON line.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from imgret import ImageLibrary, Index, Retriever, build_index
from imgret.encoders import load_encoder
from imgret.images import load_image, pixel_vector, thumbnail
from imgret.metrics import METRICS
from imgret.settings import EXAMPLES

COURSE_PICTURES = 60
TOWER_PICTURES = 160
COST_PICTURES = 200
QUERY = EXAMPLES / "queries" / "tiger.webp"

FIRST_START = "from imgret.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
SECOND_START = """
import sys
from imgret import Index, Retriever
retriever = Retriever(Index.open(sys.argv[1]))
retriever.by_pixels(sys.argv[2])
retriever.by_clip(image=sys.argv[2])
"""


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def process(code: str, *arguments: str, cache: Path) -> float:
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"IMGRET_CACHE": str(cache)}
    return seconds(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))


def course_rate(files: list[Path]) -> float:
    """Pictures a second, the course's way."""
    from chromadb.utils.embedding_functions import OpenCLIPEmbeddingFunction

    embed = OpenCLIPEmbeddingFunction(model_name="ViT-B-32", checkpoint=None)
    pictures = files[:COURSE_PICTURES]
    embed([np.asarray(load_image(pictures[0]))])
    return len(pictures) / seconds(lambda: [embed([np.asarray(load_image(file))]) for file in pictures])


def build_rates(photos: Path, encoder: str, scratch: Path, cache: Path) -> dict[str, float]:
    """Seconds to build one picture, which is loading and exporting the encoder; pictures a second from there on, and
    through the tower alone.
    """
    folder = scratch / encoder.replace("/", "-")
    first = seconds(lambda: build_index(ImageLibrary.load(photos, limit=1), folder, encoder, cache=cache).close())
    library = ImageLibrary.load(photos)
    rest = (library.count or 0) - 1
    started: dict[str, float] = {}

    def progress(stage: str, done: int, total: int | None) -> None:
        started.setdefault(stage, time.perf_counter())

    rate = rest / seconds(lambda: build_index(library, folder, encoder, progress=progress, cache=cache).close())
    with closing(Index.open(folder, cache=cache)) as index:
        tower = load_encoder(encoder, exported=index.encoder_folder)
    pixels = np.stack(
        [tower.preprocess(record.image) for record in ImageLibrary.load(photos, limit=16) if record.image]
    )
    rates = {"export_s": first, "pictures_per_s": rate}
    rates["first_stage_pictures_per_s"] = rest / (started["assemble"] - started["pictures"])
    for batch in (1, len(pixels)):
        tower.embed_preprocessed(pixels[:batch])
        turns = TOWER_PICTURES // batch
        taken = seconds(
            lambda batch=batch, turns=turns: [tower.embed_preprocessed(pixels[:batch]) for _ in range(turns)]
        )
        rates[f"tower_alone_by_{batch}_per_s"] = turns * batch / taken
    return rates


def picture_costs(files: list[Path]) -> dict[str, float]:
    """Milliseconds of one core for what a build does with a picture besides embedding it: means of many, in the
    best of three rounds.
    """
    data = [file.read_bytes() for file in files[:COST_PICTURES]]
    pictures = [load_image(each) for each in data]
    preprocess = load_encoder("starter").preprocess
    parts: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
        "decode": (load_image, data),
        "encoder_input": (preprocess, pictures),
        "pixel_vector": (lambda picture: pixel_vector(picture, 64), pictures),
        "thumbnail": (thumbnail, pictures),
    }
    return {
        f"{name}_ms": 1000 * min(seconds(lambda f=f, of=of: [f(x) for x in of]) for _ in range(3)) / len(of)
        for name, (f, of) in parts.items()
    }


def four_metrics(index: Index) -> float:
    """Seconds for one query picture by all four metrics, the median of many."""
    retriever, picture = Retriever(index), load_image(QUERY)

    def ask() -> None:
        for metric in METRICS:
            retriever.by_pixels(picture, metric)

    ask()
    return statistics.median(seconds(ask) for _ in range(50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=EXAMPLES / "library", help="a folder of photographs")
    parser.add_argument("--encoders", nargs="*", default=["starter", "ViT-B-32/random"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        cache, index = scratch / "cache", scratch / "index"
        figures: dict[str, Any] = {
            "build_s": process(FIRST_START, "build", str(EXAMPLES / "library"), "--out", str(index), cache=cache),
            "second_start_to_first_clip_hit_s": process(SECOND_START, str(index), str(QUERY), cache=cache),
            "four_pixel_metrics_ms": 1000 * four_metrics(Index.open(index, cache=cache)),
        }
        files = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".webp"))
        figures |= picture_costs(files)
        figures["course_pictures_per_s"] = course = course_rate(files)
        for encoder in options.encoders:
            rates = build_rates(options.photos, encoder, scratch, cache)
            figures |= {f"{encoder}_{name}": value for name, value in rates.items()}
            figures[f"{encoder}_to_course"] = rates["pictures_per_s"] / course
            for name in ("pictures_per_s", "first_stage_pictures_per_s"):
                figures[f"{encoder}_{name}_to_tower"] = rates[name] / rates["tower_alone_by_16_per_s"]
    for name, value in figures.items():
        print(f"{name:<44} {value:10.2f}")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "road", "machine": machine, "photos": len(files)} | figures))


if __name__ == "__main__":
    main()
