"""What does a fuzzer find in pictures, manifests, records and queries that nobody thought of?

    python -m tests.fuzz --minutes 60 [--only pictures]

Each target runs in a process of its own, guided by coverage where `atheris` is installed (it is not among the
requirements: 129 MB), else by the mutations here. What ends otherwise than in an answer or one of our errors is kept,
with its bytes, in `--found`, and this ends with 1.
"""

import argparse
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Target = Callable[[bytes], None]
SLOW = 10
"""Seconds for one input that count as a finding."""


def pictures(work: Path) -> tuple[Target, list[bytes]]:
    from imgret.images import ImageError, load_image, pixel_vector, thumbnail
    from tests import corpus

    def take(data: bytes) -> None:
        try:
            image = load_image(data)
        except ImageError:
            return
        assert image.mode == "RGB"
        pixel_vector(image, 16)
        thumbnail(image)

    return take, [make() for make in corpus.seeds().values()]


def _small_index(work: Path) -> Path:
    from imgret import ImageLibrary, build_index
    from imgret.settings import Settings
    from tests import corpus

    library = work / "library"
    for number in range(3):
        path = library / f"label {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(corpus.encoded(corpus.picture(40 + number), "PNG"))
    build_index(
        ImageLibrary.load(library), work / "index", "starter", pixel_size=8, cache=Settings.read().cache
    ).close()
    return work / "index"


def _of_index(work: Path, name: str) -> tuple[Target, list[bytes]]:
    """An index one of whose files is what the fuzzer wants; its size is what the manifest says."""
    from imgret import Index, InvalidIndexError

    folder = _small_index(work)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    path = folder / "manifest.json" if name == "manifest.json" else folder / manifest["data"] / name
    seed = path.read_bytes()

    def take(data: bytes) -> None:
        path.unlink()  # what is mapped must not change
        path.write_bytes(data)
        if name != "manifest.json":
            manifest["files"][f"{manifest['data']}/{name}"]["size"] = len(data)
            (folder / "manifest.json").write_text(json.dumps(manifest))
        try:
            index = Index.open(folder)
            for row in range(len(index)):
                index.record(row)
                index.thumbnail(row)
            index.close()
        except InvalidIndexError:
            return

    return take, [seed]


def manifests(work: Path) -> tuple[Target, list[bytes]]:
    return _of_index(work, "manifest.json")


def records(work: Path) -> tuple[Target, list[bytes]]:
    return _of_index(work, "records.arrow")


def queries(work: Path) -> tuple[Target, list[bytes]]:
    from imgret import Index, Retriever

    folder = _small_index(work)
    retriever = Retriever(Index.open(folder, cache=work / "cache"), cache=work / "cache")

    def take(data: bytes) -> None:
        text, _, rest = data.decode("utf-8", "surrogateescape").partition("|")
        kind, _, rest = rest.partition("|")
        try:
            value = json.loads(rest)
        except (ValueError, RecursionError):
            value = rest
        try:
            hits = retriever.by_clip(text=text, **{_argument(kind): value})
        except ValueError as error:
            if not type(error).__module__.startswith("imgret"):
                raise
            return
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))

    return take, [b"a bird|k|3", b'a bird|labels|["label 1"]', b"a|text_weight|0.5", "con mèo|negative|a dog".encode()]


def _argument(kind: str) -> str:
    return kind if kind in ("k", "labels", "text_weight", "negative", "like") else "k"


TARGETS: dict[str, Callable[[Path], tuple[Target, list[bytes]]]] = {
    "pictures": pictures,
    "manifests": manifests,
    "records": records,
    "queries": queries,
}


def mutated(seed: bytes, draw: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(draw.choice((1, 2, 4, 16))):
        at = draw.randrange(len(data) + 1)
        step = draw.randrange(4)
        if step == 0:
            data[at : at + draw.randrange(1, 9)] = draw.randbytes(draw.randrange(9))
        elif step == 1 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif step == 2:
            data[at : at + 4] = draw.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
        else:
            other = draw.randrange(len(data) + 1)
            data[at:at] = data[other : other + draw.randrange(64)]
    return bytes(data)


def run(name: str, seconds: float, found: Path) -> int:
    """One target in this process, for so long; the inputs that were tried are counted on standard output."""
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("atheris") is not None:
            return _guided(name, seconds, found, Path(folder))
        target, seeds = TARGETS[name](Path(folder))
        draw, until, tried = random.Random(time.time_ns()), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            data = mutated(draw.choice(seeds), draw)
            (found / f"{name}-now").write_bytes(data)  # there is nobody to write it down after a crash
            begun = time.monotonic()
            target(data)
            assert time.monotonic() - begun < SLOW, f"{time.monotonic() - begun:.1f} s"
            tried += 1
        (found / f"{name}-now").unlink(missing_ok=True)
        print(f"{name}: {tried:,} inputs")
    return 0


def _guided(name: str, seconds: float, found: Path, folder: Path) -> int:
    import atheris  # type: ignore[import-not-found]

    # numba compiles the functions of imgret.pixels.sketches, and knows nothing of what atheris puts into them.
    with atheris.instrument_imports(include=["PIL", "imgret"], exclude=["imgret.pixels.sketches"]):
        target, seeds = TARGETS[name](folder)
    start = folder / "seeds"
    start.mkdir()
    for number, seed in enumerate(seeds):
        (start / str(number)).write_bytes(seed)
    limits = [f"-max_total_time={int(seconds)}", f"-timeout={SLOW}", "-rss_limit_mb=2000", "-max_len=20000"]
    kept = [f"-artifact_prefix={found}/{name}-", "-print_final_stats=1", "-verbosity=0", str(start)]
    atheris.Setup([sys.argv[0], *limits, *kept], target)
    atheris.Fuzz()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--only", choices=TARGETS)
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.found.mkdir(parents=True, exist_ok=True)
    if options.alone:
        return run(options.only, 60 * options.minutes, options.found)
    names = [options.only] if options.only else list(TARGETS)
    failed = []
    for name in names:
        share = ["--minutes", str(options.minutes / len(names)), "--found", str(options.found)]
        command = [sys.executable, "-m", "tests.fuzz", "--alone", "--only", name, *share]
        if subprocess.run(command).returncode != 0:
            failed.append(name)
    left = sorted(path.name for path in options.found.iterdir())
    if not left:
        shutil.rmtree(options.found)
    print(f"findings: {', '.join(failed + left) or 'none'}")
    return int(bool(failed or left))


if __name__ == "__main__":
    sys.exit(main())
