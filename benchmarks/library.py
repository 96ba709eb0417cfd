"""How long is it to the first picture of a folder, and how much memory, beside `datasets` and an earlier release?

    python -m benchmarks.library [--counts 545 50000 1000000] [--before COMMIT]

Class folders of tiny pictures, a thousand each (hard links to one file a class), with and without a metadata.csv. Each
reader runs in a process of its own, once to warm the system's cache of the listing and once measured: seconds to the
first entry, seconds for all, and the most memory, imports included. Nothing is decoded. `datasets` is measured as a
stream and, as it does by default, with an Arrow copy in a cache that starts empty. COMMIT is read from this
repository's history; without git that row is left out. Prints a table and a JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

BEFORE = "9e1b6a9"
A_CLASS = 1000
TIMED = """
import resource, sys, time
{imports}
started = time.perf_counter()
rows = iter({rows})
next(rows)
first = time.perf_counter() - started
count = 1 + sum(1 for _ in rows)
print(first, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, count)
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


def measure(code: str, folder: Path, cache: Path, package: Path | None) -> list[float]:
    """Seconds to the first entry, seconds for all, MB, and how many there were."""
    names = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    if package is not None:
        names["PYTHONPATH"] = str(package)
    command = [sys.executable, "-c", code, str(folder)]
    printed = subprocess.run(command, env=names, check=True, capture_output=True, text=True, cwd=cache).stdout
    return [float(word) for word in printed.split()]


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
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    print(f"{'':<44}{'first, s':>10}{'all, s':>10}{'MB':>8}{'first, ratio':>14}{'MB, ratio':>11}")
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
                for reader, code in READERS.items():
                    if reader == "before" and before is None:
                        continue
                    package = before if reader == "before" else here
                    for turn in range(2):
                        cache = root / f"cache-{count}-{with_metadata}-{reader}-{turn}".replace(" ", "-")
                        cache.mkdir()
                        values = measure(code, folder, cache, package)
                    assert values[3] == count, f"{reader} read {values[3]} of {count}"
                    found[f"{name}, {reader}"] = values
                    own = found[f"{name}, this release"]
                    print(
                        f"{name + ', ' + reader:<44}{values[0]:>10.3f}{values[1]:>10.3f}{values[2]:>8.0f}"
                        f"{values[0] / own[0]:>14.2f}{values[2] / own[2]:>11.2f}",
                        flush=True,
                    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
