"""How long is it to the first picture of a folder, and how much memory, beside `datasets` and an earlier release?

    python -m benchmarks.library [--counts 545 50000 1000000] [--before COMMIT] [--minutes 10]

Class folders of tiny pictures, a thousand each (hard links to one file a class), with and without a metadata.csv. Each
reader runs in a process of its own, after the folder was listed once: seconds to the first entry, seconds for all, and
the most memory, imports included. Nothing is decoded. `datasets` is measured as a stream and, as it does by default,
with an Arrow copy in a cache that starts empty. A reader is stopped after so many minutes: a dash stands for what it
did not reach, and its memory is what it took until then. COMMIT is read from this repository's history; without git
that row is left out. Prints a table and a JSON line.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

BEFORE = "9e1b6a9"
A_CLASS = 1000
TIMED = """
import json, os, resource, signal, sys, time
{imports}
first = whole = count = None
def tell(*_):
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([first, whole, memory, count]), flush=True)
    os._exit(0)
signal.signal(signal.SIGALRM, tell)
signal.alarm(int(sys.argv[2]))
started = time.perf_counter()
rows = iter({rows})
next(rows)
first = time.perf_counter() - started
count = 1 + sum(1 for _ in rows)
whole = time.perf_counter() - started
tell()
"""
OURS = TIMED.format(imports="import imgret.library as library", rows="library.ImageLibrary.load(sys.argv[1]).entries()")
THEIRS = 'datasets.load_dataset("imagefolder", data_dir=sys.argv[1], split="train"{}).cast_column("image", undecoded)'
DATASETS = "import datasets; datasets.disable_progress_bars(); undecoded = datasets.Image(decode=False)"
READERS = {
    "this release": OURS,
    "before": OURS,
    "datasets, streamed": TIMED.format(imports=DATASETS, rows=THEIRS.format(", streaming=True")),
    "datasets": TIMED.format(imports=DATASETS, rows=THEIRS.format("")),
}


class Figures(NamedTuple):
    """Seconds, megabytes and a number of entries; None for what was not reached in time."""

    first: float | None
    whole: float | None
    memory: float
    count: int | None


def make(folder: Path, count: int, *, with_metadata: bool) -> None:
    """`count` pictures in class folders."""
    folder.mkdir()
    lines = ["file_name,text"]
    for first in range(0, count, A_CLASS):
        label = folder / f"class{first // A_CLASS:04}"
        label.mkdir()
        original = label / "0.png"
        Image.new("RGB", (2, 2), (first // A_CLASS % 256, 0, 0)).save(original)
        for number in range(1, min(A_CLASS, count - first)):
            os.link(original, label / f"{number}.png")
        lines += [f"{label.name}/{number}.png,number {number}" for number in range(min(A_CLASS, count - first))]
    if with_metadata:
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def measure(code: str, folder: Path, cache: Path, package: Path | None, minutes: float) -> Figures:
    """Seconds to the first entry, seconds for all, MB, and how many there were; None for what was not reached."""
    names = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    if package is not None:
        names["PYTHONPATH"] = str(package)
    command = [sys.executable, "-c", code, str(folder), str(round(minutes * 60))]
    printed = subprocess.run(command, env=names, check=True, capture_output=True, text=True, cwd=cache).stdout
    return Figures(*json.loads(printed.splitlines()[-1]))


def row(name: str, values: Figures, own: Figures) -> str:
    """A line of the table."""
    seconds = "".join(f"{'-' if value is None else f'{value:.3f}':>10}" for value in (values.first, values.whole))
    ratio = "-" if values.first is None or own.first is None else f"{values.first / own.first:.2f}"
    return f"{name:<48}{seconds}{values.memory:>8.0f}{ratio:>14}{values.memory / own.memory:>11.2f}"


def earlier(commit: str, into: Path) -> Path | None:
    """The package as it was at a commit, or None."""
    archive = subprocess.run(["git", "archive", commit, "imgret"], capture_output=True, check=False)
    if archive.returncode != 0:
        return None
    subprocess.run(["tar", "-x", "-C", str(into)], input=archive.stdout, check=True)
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[545, 50_000])
    parser.add_argument("--before", default=BEFORE)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    found: dict[str, Figures] = {}
    print(f"{'':<48}{'first, s':>10}{'all, s':>10}{'MB':>8}{'first, ratio':>14}{'MB, ratio':>11}")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "before").mkdir()
        before = earlier(options.before, root / "before")
        here = Path(__file__).resolve().parent.parent
        for count in options.counts:
            for with_metadata in (False, True):
                name = f"{count} files{', metadata.csv' if with_metadata else ''}"
                folder = root / name.replace(" ", "-")
                make(folder, count, with_metadata=with_metadata)
                assert sum(len(files) for *_, files in os.walk(folder)) == count + with_metadata
                for reader, code in READERS.items():
                    if reader == "before" and before is None:
                        continue
                    package = before if reader == "before" else here
                    with tempfile.TemporaryDirectory(dir=root) as cache:
                        values = measure(code, folder, Path(cache), package, options.minutes)
                    assert values.count in (count, None), f"{reader} read {values.count} of {count}"
                    found[f"{name}, {reader}"] = values
                    print(row(f"{name}, {reader}", values, found[f"{name}, this release"]), flush=True)
                shutil.rmtree(folder)
    print(json.dumps({name: values._asdict() for name, values in found.items()}))


if __name__ == "__main__":
    main()
