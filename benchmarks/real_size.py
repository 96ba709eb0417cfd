"""The whole road at real sizes: which step grows faster than the number of pictures?

    python -m benchmarks.real_size --cifar FOLDER_OF_CIFAR10 [--photos FOLDER_OF_PHOTOGRAPHS]
        [--sources hub folder crops] [--sizes 6000 60000] [--steps build page queries evaluate duplicates publish fetch]
        [--work FOLDER] [--minutes 60]

Sources: `hub`, CIFAR-10's train and test pictures as one split of a data set on a Hub on loopback, read by the clients
of the real one; `folder`, the same pictures as files in class folders; `crops`, files of crops of photographs with
labels and captions in a metadata.csv. The encoder is `starter`; pixel vectors of 32 px, of 64 for crops.

Each step is a process of its own: the build, with the time of each stage; `imgret serve` up to its first page and its
first answer; one query by each method, the first and the median of eight; `imgret evaluate`; the search for duplicates;
publishing to the loopback Hub and fetching from there with an empty cache. Prints a Markdown table: seconds; seconds of
the processors, which other work on the machine changes little; the most
memory that was resident, mapped files included; the most of its own (anonymous, looked at ten times a second). A step
that takes longer than `--minutes` is stopped, and said to be cut. With `--work`, indexes stay there, and steps can be
measured again; a folder's build into the index of the Hub's data set takes the features of equal pictures from there.
"""

import argparse
import csv
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.serving import demo, memory_mb
from imgret.images import load_image
from imgret.settings import EXAMPLES
from tests.hub import Hub

STEPS = ("build", "page", "queries", "evaluate", "duplicates", "publish", "fetch")
DATA_SET, WRITER = "someone/cifar10", "can-write"
QUERY = str(EXAMPLES / "queries" / "tiger.webp")
CARD = """---
configs:
- config_name: plain_text
  data_files: [{{split: train, path: "plain_text/*"}}]
dataset_info:
  config_name: plain_text
  features:
  - {{name: img, dtype: image}}
  - name: label
    dtype: {{class_label: {{names: {names}}}}}
---
"""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

BUILD = """
import json, sys
from benchmarks.stages import Stages
from imgret import ImageLibrary, build_index
source, folder, size, pixel_size = sys.argv[1:]
stages = Stages()
build_index(ImageLibrary.load(source, limit=int(size)), folder, "starter", int(pixel_size), progress=stages).close()
print(json.dumps(stages.ended()))
"""
QUERIES = """
import json, sys, time
from pathlib import Path
from statistics import median
from imgret import Index, Retriever
from imgret.images import load_image
from imgret.metrics import METRICS
pictures, found = [load_image(path) for path in sorted(Path(sys.argv[2]).glob("*.webp"))[:8]], {}
def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
def times(name, asked):
    taken = [seconds(one) for one in asked]
    found[name + ", first"], found[name + ", median"] = taken[0], median(taken)
started = time.perf_counter()
retriever = Retriever(Index.open(sys.argv[1]))
found["opening"] = time.perf_counter() - started
for metric in METRICS:
    times(metric, [lambda picture=picture: retriever.by_pixels(picture, metric) for picture in pictures])
times("clip", [lambda picture=picture: retriever.by_clip(image=picture) for picture in pictures])
texts = ["a dog", "a red car", "a ship at sea", "a bird"]
times("clip by text", [lambda text=text: retriever.by_clip(text=text) for text in texts])
print(json.dumps(found))
"""
DUPLICATES = """
import json, sys
from imgret import Index
from imgret.duplicates import find_duplicates
print(json.dumps({"groups": len(find_duplicates(Index.open(sys.argv[1])))}))
"""
FETCH = "import sys; from imgret.hub import fetch; fetch(sys.argv[1], lambda manifest: None)"
CLI = ("-m", "imgret")


@dataclass(frozen=True)
class Figures:
    """What a step took: seconds, MB resident at most, MB of its own at most, seconds of the processors; None where it
    was cut or is a part.
    """

    seconds: float | None
    resident: float | None = None
    own: float | None = None
    note: str = ""
    processor: float | None = None
    parts: dict[str, float] = field(default_factory=dict)


class Memory:
    """The most memory of a process, looked at ten times a second."""

    def __init__(self, pid: int) -> None:
        self.resident = self.own = 0.0
        self._pid, self._ended = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.own = max(self.own, memory_mb(self._pid, "RssAnon"))
                self.resident = max(self.resident, memory_mb(self._pid, "VmHWM"))
            except (OSError, StopIteration):  # it has ended
                return

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def run(arguments: tuple[str, ...], environment: dict[str, str], limit: float) -> Figures:
    """A step in a process of its own; what it prints as JSON in its last line are its parts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    memory = Memory(process.pid)
    try:
        printed, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        memory.end()
        return Figures(None, memory.resident, memory.own, f"cut after {limit:.0f} s")
    seconds = time.perf_counter() - started
    memory.end()
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}: {errors[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = printed.strip().rpartition("\n")[2]
    parts = json.loads(last) if last.startswith("{") else {}
    return Figures(seconds, memory.resident, memory.own, parts=parts, processor=processor)


def page(index: Path, cache: Path) -> Figures:
    """`imgret serve`: from the start of its process to its first page, its first pixel hits and its first CLIP hits."""
    with demo(index, cache) as served:
        memory = Memory(served.pid)
        client = Client(served.address, verbose=False)
        parts = {"first page": served.page_s}
        client.predict(handle_file(QUERY), api_name="/search_pixels")
        parts["first pixel hits"] = served.age()
        client.predict(handle_file(QUERY), api_name="/search_clip")
        parts["first CLIP hits"] = served.age()
        memory.end()
    return Figures(parts["first CLIP hits"], memory.resident, memory.own, parts=parts)


def cifar(data: Path) -> Iterator[tuple[bytes, str]]:
    """The encoded pictures and the names of their classes, train before test."""
    for table in sorted(data.rglob("*.parquet"), reverse=True):
        for batch in pq.ParquetFile(table).iter_batches(1000):
            for row in batch.to_pylist():
                yield row["img"]["bytes"], CLASSES[row["label"]]


def write_mirror(data: Path, folder: Path) -> None:
    """CIFAR-10 as a data set of one split; its files are those of `data`."""
    (folder / "plain_text").mkdir(parents=True)
    for number, table in enumerate(sorted(data.rglob("*.parquet"), reverse=True)):
        (folder / "plain_text" / f"{number}-{table.name}").symlink_to(table.resolve())
    (folder / "README.md").write_text(CARD.format(names=json.dumps(dict(enumerate(CLASSES)))), encoding="utf-8")


def write_files(data: Path, folder: Path, count: int) -> None:
    """The first `count` pictures of CIFAR-10 as files in class folders."""
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
    for number, (picture, label) in enumerate(islice(cifar(data), count)):
        (folder / label / f"{number:05}.jpg").write_bytes(picture)


def write_crops(photos: Path, folder: Path, count: int) -> None:
    """`count` crops of the photographs, of a third to all of their sides, 96 x 96 pixels, half of them mirrored."""
    folder.mkdir(parents=True)
    files = sorted(path for path in photos.iterdir() if path.is_file())
    lines = io.StringIO()
    table = csv.writer(lines)
    table.writerow(["file_name", "label", "caption"])
    chance = np.random.default_rng(0)
    for number, file in enumerate(files):
        picture = load_image(file)
        picture.thumbnail((384, 384))
        name = file.stem.partition("_")[2].replace("_", " ").lower() or file.stem
        for crop in range(number, count, len(files)):
            share = chance.uniform(0.33, 1)
            width, height = (max(1, int(share * side)) for side in picture.size)
            left, top = (int(chance.uniform(0, 1 - share) * side) for side in picture.size)
            part = picture.resize((96, 96), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
            mirrored = bool(chance.random() < 0.5)
            if mirrored:
                part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            part.save(folder / f"{crop:06}.jpg", quality=85)
            where = f"{'upper' if top < height / 4 else 'lower'} {'left' if left < width / 4 else 'right'}"
            caption = f"{name}, {share:.0%} of the picture, {where}{', mirrored' if mirrored else ''}"
            table.writerow([f"{crop:06}.jpg", name, caption])
    (folder / "metadata.csv").write_text(lines.getvalue(), encoding="utf-8")


def row(source: str, size: int, step: str, figures: Figures) -> None:
    """A line of the table, and a line for each part."""
    seconds = figures.note if figures.seconds is None else f"{figures.seconds:.2f}"
    rest = (figures.processor, figures.resident, figures.own)
    columns = " | ".join("" if value is None else f"{value:.0f}" for value in rest)
    print(f"| {source} | {size} | {step} | {seconds} | {columns} |")
    for name, value in figures.parts.items():
        print(f"| {source} | {size} | {step}: {name} | {value:.3f} | | | |")
    sys.stdout.flush()


def on_disk(folder: Path) -> dict[str, float]:
    """MB of the index, and of the files and folders of its data."""
    found: dict[str, float] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts
            name = part[1] if len(part) > 1 else part[0]
            found[name] = found.get(name, 0) + path.stat().st_size / 1e6
    return dict(sorted(found.items(), key=lambda item: -item[1])[:6])


def measure(options: argparse.Namespace, work: Path, hub: Hub, source: str, size: int) -> None:
    """The rows of one source and size."""
    index, library = work / f"{'crops' if source == 'crops' else 'cifar'}-{size}", work / f"{source}-{size}-files"
    cache, repo = work / "cache", f"someone/{index.name}"
    limit = 60 * options.minutes
    makers: dict[str, Callable[[Path, int], None]] = {
        "folder": partial(write_files, options.cifar),
        "crops": partial(write_crops, options.photos),
    }
    if source in makers and not library.exists() and "build" in options.steps:
        makers[source](library, size)

    def environment(name: str) -> dict[str, str]:
        home = tempfile.mkdtemp(prefix=f"{name}-", dir=work)
        return os.environ | hub.environment(home, WRITER) | {"IMGRET_CACHE": str(cache), "PYTHONWARNINGS": "ignore"}

    def build() -> Figures:
        given = DATA_SET if source == "hub" else str(library)
        pixel_size = "64" if source == "crops" else "32"
        return run(("-c", BUILD, given, str(index), str(size), pixel_size), environment("build"), limit)

    steps: dict[str, Callable[[], Figures]] = {
        "build": build,
        "page": lambda: page(index, cache),
        "queries": lambda: run(("-c", QUERIES, str(index), str(EXAMPLES / "queries")), environment("queries"), limit),
        "evaluate": lambda: run((*CLI, "evaluate", str(index)), environment("evaluate"), limit),
        "duplicates": lambda: run(("-c", DUPLICATES, str(index)), environment("duplicates"), limit),
        "publish": lambda: run(
            (*CLI, "publish", str(index), repo, "--create", "--license", "unknown"), environment("publish"), limit
        ),
        "fetch": lambda: run(("-c", FETCH, repo), environment("fetch"), limit),
    }
    for step in options.steps:
        row(source, size, step, steps[step]())
        if step == "build":
            row(source, size, "MB on disk", Figures(sum(on_disk(index).values()), parts=on_disk(index)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as the Hub has it: parquet with img and label")
    parser.add_argument("--photos", type=Path, help="a folder of photographs, for crops")
    parser.add_argument("--sources", nargs="+", choices=["hub", "folder", "crops"], default=["hub", "folder"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[6000, 60_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS])
    parser.add_argument("--work", type=Path, help="keep indexes and files here")
    parser.add_argument("--minutes", type=float, default=60, help="the most that a step may take")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"benchmark": "real_size", "machine": machine, "load": os.getloadavg()}), end="\n\n")
    print(
        "| source | pictures | step | seconds | of the processors | MB resident | MB of its own |\n"
        "|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary, Hub() as hub:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if options.cifar:
            write_mirror(options.cifar, Path(temporary, "mirror"))
            hub.add("datasets", DATA_SET, Path(temporary, "mirror"))
        for size in options.sizes:
            for source in options.sources:
                measure(options, work, hub, source, size)
    print("\n" + json.dumps({"load at the end": os.getloadavg()}))


if __name__ == "__main__":
    main()
