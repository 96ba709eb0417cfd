"""How many made variants of photographs are found as near duplicates, and how many other pairs?

    python -m benchmarks.duplicates --photos FOLDER

For each variant, a library of photographs and their variants: a right pair is a photograph and its own variant; what is
found are all pairs within a group. The thresholds of `imgret.duplicates` are looked for on one half of the photographs,
every second one, and everything is measured on the other half. Each hash of imagededup (`pip install imagededup`) gets
the threshold that is best for it on the half that is measured: its largest recall with a precision of at least 0.99.
"""

import argparse
import io
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from imgret import duplicates
from imgret.encoders import load_encoder
from imgret.images import load_image, pixel_vector

SIDE = 64
PRECISION = 0.99


def jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return load_image(buffer.getvalue())


def cropped(image: Image.Image) -> Image.Image:
    """Without 5 % at each edge."""
    x, y = round(0.05 * image.width), round(0.05 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def framed(image: Image.Image) -> Image.Image:
    """In a dark frame, as wide as 8 % of the longer side."""
    return ImageOps.expand(image, round(0.08 * max(image.size)), fill=(32, 32, 32))


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "resized to a half": lambda image: jpeg(
        image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
    ),
    "JPEG, quality 30": lambda image: jpeg(image, 30),
    "cropped by 5 %": lambda image: jpeg(cropped(image)),
    "brightened by 20 %": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.2)),
    "in a frame of 8 %": lambda image: jpeg(framed(image)),
    "mirrored": lambda image: jpeg(ImageOps.mirror(image)),
}
"""All are stored as JPEG, of quality 90 where nothing is said."""

KINDS = {"original": lambda image: image} | VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--features", type=Path, help="an .npz file that keeps the features for the next run")
    options = parser.parse_args()
    from imagededup.methods import AHash, DHash, PHash, WHash

    photos = sorted(path for path in options.photos.iterdir() if path.is_file())
    hashers = {"phash": PHash(), "dhash": DHash(), "whash": WHash(), "ahash": AHash()}
    features = _features(photos, options.encoder, list(hashers.values()), options.features)
    chosen, measured = np.arange(0, len(photos), 2), np.arange(1, len(photos), 2)
    best, apart = _thresholds(features, chosen)
    print(
        f"On {len(chosen)} photographs: the least right pair has colours {best[0]:.2f} and details {best[1]:.2f} "
        f"(1 % below), the nearest wrong pair {apart[0]:.2f} and {apart[1]:.2f}; "
        f"the thresholds are {duplicates.LEAST_COLOURS} and {duplicates.LEAST_DETAILS}."
    )
    print(f"On the other {len(measured)}, recall at precision:")
    print("| variant | imgret | imgret, mirrored too |" + "".join(f" {name} |" for name in hashers))
    print("|---" * (3 + len(hashers)) + "|")
    seconds = {False: 0.0, True: 0.0}
    for variant in VARIANTS:
        cells = []
        for mirrored in (False, True):
            embeddings, pixels = (_both(features[name], variant, measured) for name in ("embedding", "pixels"))
            start = time.perf_counter()
            pairs = duplicates.near_pairs(embeddings, pixels, SIDE, mirrored=mirrored)
            seconds[mirrored] += time.perf_counter() - start
            cells.append(_cell(*_figures(pairs, len(measured))))
        cells += [_cell(*_best(_both(features[name], variant, measured), len(measured))) for name in hashers]
        print(f"| {variant} | " + " | ".join(cells) + " |", flush=True)
    each = 1000 / (len(VARIANTS) * 2 * len(measured))
    print(f"{seconds[False] * each:.1f} ms a picture, {seconds[True] * each:.1f} ms if mirrored ones are looked for")


Features = dict[str, dict[str, npt.NDArray[np.generic]]]


def _features(photos: list[Path], uri: str, hashers: list[object], kept: Path | None) -> Features:
    """By name and kind, the embeddings (n, d), pixel vectors (n, D) and hashes (n, 64) of all photographs."""
    names = ["embedding", "pixels", *(type(hasher).__name__.lower() for hasher in hashers)]
    found = dict(np.load(kept)) if kept is not None and kept.exists() else {}
    if not all(f"{name} {kind}" in found for name in names for kind in KINDS):
        made: dict[str, list[npt.NDArray[np.generic]]] = {f"{name} {kind}": [] for name in names for kind in KINDS}
        encoder = load_encoder(uri)
        for photo in photos:
            image = load_image(photo)
            for kind, vary in KINDS.items():
                varied = vary(image)
                if f"embedding {kind}" not in found:
                    made[f"embedding {kind}"].append(encoder.embed_images([varied])[0])
                made[f"pixels {kind}"].append(pixel_vector(varied, SIDE))
                for name, hasher in zip(names[2:], hashers, strict=True):
                    code = hasher.encode_image(image_array=np.asarray(varied))
                    made[f"{name} {kind}"].append(np.array([int(code, 16) >> bit & 1 for bit in range(64)], np.uint8))
        found = {name: np.stack(values) for name, values in made.items() if values} | found
        if kept is not None:
            np.savez(kept, **found)
    return {name: {kind: found[f"{name} {kind}"] for kind in KINDS} for name in names}


def _both(of_kind: dict[str, npt.NDArray[np.generic]], variant: str, which: npt.NDArray[np.int64]) -> npt.NDArray:
    return np.concatenate([of_kind["original"][which], of_kind[variant][which]])


def _thresholds(features: Features, which: npt.NDArray[np.int64]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Colours and details that 99 % of the right pairs reach, mirrored ones left out, and the largest of wrong ones."""
    right, wrong, count = [], [(0.0, 0.0)], len(which)
    for variant in VARIANTS:
        if variant != "mirrored":
            arrays = (_both(features[name], variant, which) for name in ("embedding", "pixels"))
            for a, b, found in duplicates.measured_pairs(*arrays, SIDE, least=(-1, -1)):
                (right if b - a == count else wrong).append(found)
    return tuple(np.quantile(right, 0.01, axis=0)), tuple(np.max(wrong, axis=0))


def _figures(pairs: npt.NDArray[np.int64], count: int) -> tuple[float, float]:
    """Recall and precision of all pairs in the groups that `pairs` (n, 2) make of 2 * `count` pictures."""
    groups = duplicates.grouped([""] * (2 * count), np.empty((0, 2), np.int64), pairs)
    grouped = [pair for group in groups for pair in combinations(group.rows, 2)]
    right = sum(b - a == count for a, b in grouped)
    return right / count, right / max(1, len(grouped))


def _best(codes: npt.NDArray[np.generic], count: int) -> tuple[float, float]:
    """Recall and precision of a hash, from the distances of all pairs, at the threshold that is best for it."""
    bits = codes.astype(np.float32)
    distances = np.rint(bits @ (1 - bits).T + (1 - bits) @ bits.T).astype(int)
    a, b = np.triu_indices(2 * count, 1)
    between, right = distances[a, b], b - a == count
    all_within = np.cumsum(np.bincount(between, minlength=65))
    right_within = np.cumsum(np.bincount(between[right], minlength=65))
    figures = [(good / count, good / max(1, every)) for good, every in zip(right_within, all_within, strict=True)]
    precise = [found for found in figures if found[1] >= PRECISION]
    return max(precise, default=max(figures, key=lambda found: found[1]))


def _cell(recall: float, precision: float) -> str:
    return f"{recall:.3f} at {precision:.3f}"


if __name__ == "__main__":
    main()
