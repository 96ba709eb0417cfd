"""Which pictures is the embedded library made of, and how are they made?

From Debian's package `tuxpaint-stamps-default` (CREDITS.md says which version and which licence), unpacked:

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python examples/make_library.py stamps

This makes `library/` and `queries/` beside this file anew, each with a `metadata.csv`. It needs Pillow, numpy and
`rsvg-convert` (`apt-get install librsvg2-bin`); the same versions of the three make the same bytes.
"""

import csv
import io
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

SIDE = 256  # px, of a finished picture at most
MARGIN = 1.08  # side of the white square for one pixel of the drawing's longer side
QUALITY = 90  # WebP; 40 dB and 3.4 MB in all, where 80 gives 37 dB and 2.3 MB, 95 gives 41 dB and 4.4 MB
SMALLEST = 80  # px, longer side; no stamp is enlarged, so a smaller one would blur in a gallery
FAINTEST = 4.0  # mean distance from white, of 255; below it there is hardly anything to see on a white page
NEAREST = 0.16  # difference of two stamps of one folder as a share of their ink; below it they are variants

LEFT_OUT = (
    "symbols/*",  # letters, coins, chess men, shapes
    "town/flags/*", "town/roadsigns/*", "*/trainSign",
    "people/body_parts/*",  # wigs, moustaches and single eyes, meant to be stuck on a face
    "vehicles/emergency/sedan_police",  # emblems to put on another stamp
    "military/*", "seasonal/halloween/grave-*",  # the graves are photographs of real ones
    "*_mirror",
)  # fmt: skip

QUERIES = (
    "animals/birds/tucan", "animals/fish/butterflyfish", "animals/insects/cartoon/monarchbutterfly",
    "animals/mammals/cats/tiger", "animals/mammals/dogs/dog", "clothes/hats/sombrero", "food/fruit/Strawberry2",
    "hobbies/music/string/guitar_classical", "plants/flowers/anemone_red", "plants/trees/holm_oak",
    "space/planets/6_saturn", "town/houses/cartoon/windmill", "vehicles/auto/sportscar3", "vehicles/flight/planes/747",
    "vehicles/locomotive/cartoon/toy_train", "vehicles/ship/sail_boat2",
)  # fmt: skip

Stamp = tuple[Image.Image, str, str]  # picture, English caption, Vietnamese caption ("" where there is none)


def read_picture(file: Path) -> Image.Image | None:
    """The stamp on a white square, at most SIDE px; None if it is too small, too faint or written with a font."""
    source: Path | io.BytesIO = file
    if file.suffix == ".svg":
        if b"<text" in file.read_bytes():  # its look depends on the fonts of the machine
            return None
        command = ["rsvg-convert", "--width=1024", "--height=1024", "--keep-aspect-ratio", str(file)]
        source = io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)
    stamp = Image.open(source).convert("RGBA")
    white = Image.new("RGBA", stamp.size, "white")
    flat = Image.alpha_composite(white, stamp).convert("RGB")
    ink = ImageChops.difference(flat, white.convert("RGB")).convert("L")
    box = ink.point([255 * (level > 8) for level in range(256)]).getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    side = round(MARGIN * max(width, height))
    square = Image.new("RGB", (side, side), "white")
    square.paste(flat.crop(box), ((side - width) // 2, (side - height) // 2))
    square.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return square if (255.0 - np.asarray(square)).mean() >= FAINTEST else None


def choose(stamps: Path) -> dict[str, Stamp]:
    """The stamps by name (path without suffix), in the order of the names; of two variants the first stays."""
    files: dict[str, Path] = {}
    for file in sorted(stamps.rglob("*.png")) + sorted(stamps.rglob("*.svg")):  # where both exist, the SVG is sharper
        files[file.relative_to(stamps).with_suffix("").as_posix()] = file
    chosen: dict[str, Stamp] = {}
    seen: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for name, file in sorted(files.items()):
        text = file.with_suffix(".txt")
        if not text.exists() or any(fnmatch(name, pattern) for pattern in LEFT_OUT):
            continue
        if (picture := read_picture(file)) is None:
            continue
        ink = 255.0 - np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS))
        neighbours = seen[name.rpartition("/")[0]]
        if any(np.abs(ink - other).sum() < NEAREST * (ink.sum() + other.sum()) / 2 for other in neighbours):
            continue
        neighbours.append(ink)
        lines = [" ".join(line.split()) for line in unicodedata.normalize("NFC", text.read_text("utf-8")).splitlines()]
        vietnamese = [line.removeprefix("vi.utf8=").strip() for line in lines if line.startswith("vi.utf8=")]
        chosen[name] = picture, lines[0], next(iter(vietnamese), "")
    return chosen


def write(folder: Path, paths: dict[str, str], chosen: dict[str, Stamp]) -> None:
    """Write the pictures `paths` (name -> path in the folder) and their metadata.csv, and print the counts."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = [("file_name", "label", "caption", "caption_vi")]
    for name, path in paths.items():
        picture, english, vietnamese = chosen[name]
        path = path.replace("_train", "Train")  # `datasets` takes a "train" between separators for the name of a split
        rows.append((path, "/".join(name.split("/")[:-1][:2]), english, vietnamese))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / path, quality=QUALITY, method=6)
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    sizes, labels = [file.stat().st_size for file in folder.rglob("*.webp")], Counter(row[1] for row in rows[1:])
    print(f"{folder.name}: {len(sizes)} pictures, {sum(sizes):,} bytes, {len(labels)} labels", end="")
    print(f" ({sum(n > 1 for n in labels.values())} with 2+), {sum(not row[3] for row in rows)} without caption_vi")


if __name__ == "__main__":
    here, chosen = Path(__file__).resolve().parent, choose(Path(sys.argv[1]) / "usr/share/tuxpaint/stamps")
    write(here / "library", {name: f"{name}.webp" for name in chosen if name not in QUERIES}, chosen)
    write(here / "queries", {name: f"{name.rpartition('/')[2]}.webp" for name in QUERIES}, chosen)
