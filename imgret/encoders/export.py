"""From an open_clip model to a folder for `OnnxEncoder` that is known to answer as the model does.

Nothing is used on trust: each tower is exported in fp32 and two kinds of int8, all are held against the original on
real pictures and texts, with their own preprocessing and tokenizer, and the fastest pair that passes is kept.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from imgret.encoders.base import EncoderError, Vectors
from imgret.encoders.clip import ClipEncoder
from imgret.encoders.onnx import (
    CHECK_TEXT,
    CONFIG_FILE,
    FORMAT,
    MIN_COSINE,
    OnnxEncoder,
    check_pixels,
    compute_fingerprint,
)
from imgret.encoders.towers import export_tower, ignores_padding, put_tables_beside, quantise_tower
from imgret.errors import one_line

MIN_SAMPLES = 64
MIN_TOP10 = 0.95
_TIE = 1e-6
"""Scores this close count as equal, as in the recall audit: among near duplicates, which one is tenth is rounding."""

_SAMPLE_TEXTS = [
    f"{start} {thing}"
    for start in ("a photo of a", "two", "a red", "a drawing of a", "an old", "a small", "the", "nothing but a")
    for thing in ("dog", "house by the sea", "bicycle", "flower in a vase", "child", "bowl of fruit", "bird", "train")
]

Kind = Literal["image", "text"]
Figures = dict[str, float]

_log = logging.getLogger(__name__)


def export_encoder(
    encoder: ClipEncoder, folder: Path, images: Sequence[Image.Image], texts: Sequence[str], int8: bool = True
) -> dict[str, Any]:
    """Export both towers to `folder` and hold them against the original.

    Args:
        encoder: what torch runs; it is left as it was.
        folder: made here, and only if all went well; it must not exist.
        images: pictures of the library. The more, the harder the comparison: the ten nearest of each are sought among
            all of them. Fewer than 64 are filled up with crops of themselves.
        texts: captions, or queries to be expected. Fewer than 64 are filled up with English ones of our own.
        int8: whether to try int8 at all.

    Returns:
        The figures, for a manifest: `{"pictures": n, "texts": n, "image": {...}, "text": {...}}`, where a tower has its
        "precision" ("int8-rows", "int8-blocks" or "fp32"), "cosine" (the least, to the original's vectors), "top10"
        (the share of the original's ten nearest pictures that it finds, too), "bytes", and "tried", the same by
        precision.

    Raises:
        EncoderError: a tower or a tokenizer that cannot be exported, or an export that does not answer as the original.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} is there already.")
    images, texts = _enough_pictures(images), _enough_texts(texts)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        report = _Export(encoder, partial, images, texts).best_pair(int8)
        partial.rename(folder)
    except (EncoderError, OSError):
        raise
    # torch.export, onnxscript and ONNX Runtime have no common error, and a model they cannot take is no bug of ours.
    except Exception as error:
        raise EncoderError(encoder.uri, "it cannot be exported to ONNX ({reason})", reason=one_line(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return report


class _Export:
    """An export on its way: the folder, and the vectors that the original gives for the samples."""

    def __init__(self, encoder: ClipEncoder, folder: Path, images: list[Image.Image], texts: list[str]) -> None:
        self.encoder, self.folder, self.images, self.texts = encoder, folder, images, texts
        self.reference = {"image": encoder.embed_images(images), "text": encoder.embed_texts(texts)}
        self.config: dict[str, Any] = {
            "format": FORMAT,
            "uri": encoder.uri,
            "dim": encoder.dim,
            "languages": encoder.languages,
            "preprocess": asdict(encoder.transform),
            "tokenizer": _write_tokenizer(encoder, folder),
            "trim_padding": False,
        }

    def best_pair(self, int8: bool) -> dict[str, Any]:
        """Keep the first pair of towers that passes, the fastest before the others; the report."""
        images, texts = self.image_variants(int8), self.text_variants(int8)
        original = self.reference["image"]
        tried: dict[Kind, dict[str, Figures]] = {
            "image": {p: self.compared("image", vectors, vectors) for p, vectors in images.items()},
            "text": {p: self.compared("text", vectors, original) for p, vectors in texts.items()},
        }
        for image, text in product(images, texts):
            # What a sentence finds depends on both towers, so its neighbours are sought among this picture tower's.
            figures = {"image": tried["image"][image], "text": self.compared("text", texts[text], images[image])}
            if _passes(image, figures["image"]) and _passes(text, figures["text"]):
                report: dict[str, Any] = {"pictures": len(self.images), "texts": len(self.texts)}
                report["image"] = self.keep("image", image) | figures["image"] | {"tried": tried["image"]}
                report["text"] = self.keep("text", text) | figures["text"] | {"tried": tried["text"]}
                self.finish(report)
                return report
        raise EncoderError(
            self.encoder.uri, "its ONNX export gives other vectors than the original ({tried})", tried=tried
        )

    def image_variants(self, int8: bool) -> dict[str, Vectors]:
        import torch

        sample = torch.from_numpy(np.stack([self.encoder.preprocess(image) for image in self.images[:2]]))
        export_tower(self.encoder, "image", sample, self.file("image", "fp32"))
        return self.variants("image", int8)

    def text_variants(self, int8: bool) -> dict[str, Vectors]:
        ids = self.encoder.tokenizer(["a photo of a dog", "two"])
        if ignores_padding(self.encoder):
            # Most queries are a tenth of the context long, and cost a tenth without the padding.
            self.config["trim_padding"] = True
            try:
                export_tower(self.encoder, "text", ids[:, :9].contiguous(), self.file("text", "fp32"), any_length=True)
                variants = self.variants("text", int8)
                if _least_cosine(variants["fp32"], self.reference["text"]) >= MIN_COSINE["fp32"]:
                    return variants
            except Exception as error:  # as in `export_encoder`; the tower may still be exported at its full length
                _log.info("%s: the text tower is exported at its full length (%s)", self.encoder.uri, error)
            self.config["trim_padding"] = False
        export_tower(self.encoder, "text", ids, self.file("text", "fp32"))
        return self.variants("text", int8)

    def variants(self, kind: Kind, int8: bool) -> dict[str, Vectors]:
        """The samples' vectors by precision, the fastest first."""
        targets = {precision: self.file(kind, precision) for precision in ("int8-rows", "int8-blocks")}
        quantised = int8 and quantise_tower(self.file(kind, "fp32"), targets)
        return {precision: self.vectors(kind, precision) for precision in [*(targets if quantised else []), "fp32"]}

    def vectors(self, kind: Kind, precision: str) -> Vectors:
        self.config[kind] = {"file": self.file(kind, precision).name, "precision": precision}
        self.write_config()
        exported = OnnxEncoder(self.folder)
        return exported.embed_images(self.images) if kind == "image" else exported.embed_texts(self.texts)

    def compared(self, kind: Kind, vectors: Vectors, pictures: Vectors) -> Figures:
        return compare_vectors(self.reference[kind], vectors, self.reference["image"], pictures)

    def keep(self, kind: Kind, precision: str) -> dict[str, Any]:
        """Delete the tower's other files; what the report says of the kept one."""
        for file in self.folder.glob(f"{kind}.*"):
            if not file.name.startswith(self.file(kind, precision).name):
                file.unlink()
        put_tables_beside(self.file(kind, precision))
        self.config[kind] = {"file": self.file(kind, precision).name, "precision": precision}
        return {"precision": precision, "bytes": sum(file.stat().st_size for file in self.folder.glob(f"{kind}.*"))}

    def finish(self, report: dict[str, Any]) -> None:
        """Complete encoder.json: the report, and for each tower an answer to check another machine's against."""
        self.write_config()
        exported = OnnxEncoder(self.folder)
        pixels = check_pixels(self.encoder.transform.size)
        for kind, vectors in (
            ("image", exported.embed_preprocessed(pixels)),
            ("text", exported.embed_texts([CHECK_TEXT])),
        ):
            self.config[kind]["check"] = [round(float(value), 4) for value in vectors[0]]
        self.config["report"] = report
        self.config["fingerprint"] = compute_fingerprint(self.folder, self.config)
        self.write_config()

    def file(self, kind: Kind, precision: str) -> Path:
        return self.folder / f"{kind}.{precision}.onnx"

    def write_config(self) -> None:
        (self.folder / CONFIG_FILE).write_text(json.dumps(self.config), encoding="utf-8")


def compare_vectors(reference: Vectors, vectors: Vectors, reference_pictures: Vectors, pictures: Vectors) -> Figures:
    """How a tower's `vectors` compare with the original's, `reference`: "cosine" (the least) and "top10" (the share of
    the ten nearest of `reference_pictures` that are found among `pictures`, the same ones by the other picture tower).
    """
    agreement = _top10_agreement(reference @ reference_pictures.T, vectors @ pictures.T)
    return {"cosine": round(_least_cosine(vectors, reference), 6), "top10": round(agreement, 4)}


def _write_tokenizer(encoder: ClipEncoder, folder: Path) -> dict[str, Any]:
    """Put the vocabulary into `folder`; what `load_tokenizer` needs to know of it.

    Raises:
        EncoderError: a tokenizer that needs open_clip and transformers.
    """
    from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, SimpleTokenizer, default_bpe

    tokenizer = encoder.tokenizer
    clean = getattr(getattr(tokenizer, "clean_fn", None), "__name__", "_clean_canonicalize").removeprefix("_clean_")
    if (
        isinstance(tokenizer, SimpleTokenizer)
        and tokenizer.reduction_fn is None
        and len(tokenizer.all_special_ids) == 2
    ):
        file = "merges.txt.gz"
        shutil.copyfile(default_bpe(), folder / file)
        return {"kind": "clip", "file": file, "clean": clean, "context_length": tokenizer.context_length}
    library: Any = getattr(tokenizer, "tokenizer", None)
    backend = getattr(library, "backend_tokenizer", None)
    if (
        isinstance(tokenizer, HFTokenizer | SigLipTokenizer)
        and backend is not None
        and not getattr(tokenizer, "tokenizer_mode", "")
    ):
        # transformers tells its backend how to cut and pad at each call, and the backend's file keeps it.
        tokenizer(["a"])
        file = "tokenizer.json"
        backend.save(str(folder / file))
        zeroed = library.sep_token_id if getattr(tokenizer, "strip_sep_token", False) else None
        return {"kind": "library", "file": file, "clean": clean, "pad_id": library.pad_token_id, "zeroed_id": zeroed}
    raise EncoderError(encoder.uri, "its tokenizer, {name}, cannot be exported", name=type(tokenizer).__name__)


def _enough_pictures(images: Sequence[Image.Image]) -> list[Image.Image]:
    if not images:
        raise ValueError("An export is compared with the original on real pictures; none was given.")
    enough = [image.convert("RGB") for image in images]
    while len(enough) < MIN_SAMPLES:
        image = enough[len(enough) - len(images)]
        # A tenth off two sides, and mirrored: another picture of the same kind.
        box = (0, 0, max(1, image.width * 9 // 10), max(1, image.height * 9 // 10))
        enough.append(ImageOps.mirror(image.crop(box)))
    return enough


def _enough_texts(texts: Sequence[str]) -> list[str]:
    return [*texts, *_SAMPLE_TEXTS[: max(0, MIN_SAMPLES - len(texts))]]


def _passes(precision: str, figures: Figures) -> bool:
    return figures["cosine"] >= MIN_COSINE[precision] and figures["top10"] >= MIN_TOP10


def _least_cosine(vectors: Vectors, reference: Vectors) -> float:
    """Of unit rows (n, d)."""
    return float(np.min((vectors.astype(np.float64) * reference).sum(axis=1)))


def _top10_agreement(exact: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """The share of the ten best columns in rows of `found` (n, N) that are among the best of `exact`, ties included."""
    k = min(10, exact.shape[1])
    tenth = np.sort(exact, axis=1)[:, -k, None]
    best = np.argsort(-found, axis=1)[:, :k]
    return float((np.take_along_axis(exact, best, axis=1) >= tenth - _TIE).mean())
