"""An encoder in ONNX at work: ONNX Runtime, Pillow, numpy and a tokenizer; no torch, no open_clip, no transformers.

`export.py`, or `make_starter.py` for the starter, wrote the folder and held it against the original. Its files (a tower
over 2 GB has a second one, and so has an exported one with a large vocabulary, for it to be mapped):

    encoder.json           read first: URI, dimension, languages, preprocessing, tokenizer, report, fingerprint
    image.int8-rows.onnx   pixels (n, 3, H, W) float32 to vectors (n, d) float32 of norm 1
    text.int8-rows.onnx    ids (n, length) int64 to vectors (n, d) float32 of norm 1
    tokenizer.json         or merges.txt.gz, for CLIP's own tokenizer, or tokenizer.model, for sentencepiece

Instead of "int8-rows" a tower's name may say another of the precisions in `MIN_COSINE`.
"""

import ctypes
import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from imgret.encoders.base import Encoder, EncoderError, Pixels, Vectors
from imgret.encoders.preprocess import Preprocess
from imgret.encoders.tokens import Ids, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    import onnxruntime

CONFIG_FILE = "encoder.json"
FORMAT = 4
"""1 had no 4-bit and no fp16 towers, 2 no "int8-rows", 3 no tokenizer for sentencepiece."""
CHECK_TEXT = "a photo of a dog"

MAX_SIDE, MAX_TOKENS = 1024, 4096
"""More than any encoder takes, and no more memory than there is: what encoder.json says may be wrong, or a lie."""

MIN_COSINE = {
    "int8-rows": 0.99,
    "int8": 0.99,
    "int8-blocks": 0.999,
    "int4-blocks": 0.999,
    "fp16": 0.9995,
    "fp32": 0.9999,
}
"""By precision, the least cosine of a vector to what it should be: at export the original's, later the export's own.

"int8-rows" and "int8", which earlier versions exported, multiply in 8 bits; the others multiply in float32 what the
file keeps in fewer bits.
"""

_NO_PART_OF_FINGERPRINT = ("fingerprint", "licences", "report")


class OnnxEncoder(Encoder):
    """The encoder in a folder of towers; they are opened on first use and held.

    Attributes:
        folder: where its towers are.
        config: what encoder.json says; `config["report"]` has the figures of the comparison with the original.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """The encoder in `folder`. `threads`: how many one call of a tower may use; default, one for each core.

        Raises:
            EncoderError: the folder holds no export, a damaged one, or one of a newer release.
        """
        try:
            self.config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            if self.config["format"] > FORMAT:
                raise EncoderError(
                    self.config["uri"], "{folder} was exported by a newer release of imgret", folder=folder
                )
            self.uri, self.dim = self.config["uri"], self.config["dim"]
            self.languages = tuple(self.config["languages"])
            self.report = self.config.get("report")
            self._transform = Preprocess.from_config(self.config["preprocess"])
            if not all(1 <= side <= MAX_SIDE for side in self._transform.size):
                raise ValueError(f"its pictures are {self._transform.size}")
            for kind in {"image", "text"} & self.config.keys():
                if self.config[kind]["precision"] not in MIN_COSINE:
                    raise ValueError(f"its {kind} tower has the precision {self.config[kind]['precision']!r:.40}")
            for part in {"image", "text", "tokenizer"} & self.config.keys():  # at export, a tower may come later
                if Path(self.config[part]["file"]).name != self.config[part]["file"]:
                    raise ValueError(f"{self.config[part]['file']} lies outside of its folder")
            if not 1 <= self.config["tokenizer"].get("context_length", 1) <= MAX_TOKENS:
                raise ValueError(f"its texts have {self.config['tokenizer']['context_length']} tokens")
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, EncoderError):
                raise
            raise EncoderError(
                str(folder), "its {name} cannot be read ({error})", name=CONFIG_FILE, error=error
            ) from error
        self.folder: Path = folder
        self._threads = threads or _cores()
        self._opening = threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the towers, the tokenizer and the preprocessing; read from encoder.json where that has one."""
        return str(self.config.get("fingerprint") or compute_fingerprint(self.folder, self.config))

    @property
    def exact_in_batches(self) -> bool:
        # Dynamic quantisation, of earlier versions, scales the activations of a whole batch by its largest.
        return all(self.config[kind]["precision"] != "int8" for kind in {"image", "text"} & self.config.keys())

    @property
    def picture_files(self) -> list[Path]:
        """The files that embedding pictures takes, in a folder of the same kind elsewhere."""
        return [self.folder / CONFIG_FILE, *self.folder.glob("image.*")]

    def preprocess(self, image: Image.Image) -> Pixels:
        return self._transform(image)

    def warm(self) -> None:
        """Open both towers now, so that the first query does not wait for it."""
        self.embed_preprocessed(check_pixels(self._transform.size))
        self.embed_texts([CHECK_TEXT])

    def _picture_vectors(self, pixels: Pixels) -> Vectors:
        with self._opening:
            session = self._image_session
        return _run(session, pixels)

    def _text_vectors(self, texts: Sequence[str]) -> Vectors:
        with self._opening:
            session = self._text_session
        return _run(session, self._ids(texts))

    def cut_after(self, text: str) -> int | None:
        return self._tokenizer.cut_after(text)

    def _ids(self, texts: Sequence[str]) -> Ids:
        ids = self._tokenizer(texts)
        return without_padding(ids, self._tokenizer.pad_id) if self.config["trim_padding"] else ids

    @cached_property
    def _image_session(self) -> "onnxruntime.InferenceSession":
        return self._session("image", check_pixels(self._transform.size))

    @cached_property
    def _text_session(self) -> "onnxruntime.InferenceSession":
        return self._session("text", self._ids([CHECK_TEXT]))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            return load_tokenizer(self.folder, self.config["tokenizer"])
        except Exception as error:  # both libraries of tokenizers raise plain ones
            raise EncoderError(
                self.uri, "its tokenizer in {folder} cannot be read ({error})", folder=self.folder, error=error
            ) from error

    def _session(self, kind: str, known: Pixels | Ids) -> "onnxruntime.InferenceSession":
        """A tower, once it has answered a known question as it did where it was exported."""
        tower = self.config[kind]
        try:
            session = open_session(self.folder / tower["file"], self._threads)
            (answer,) = _run(session, known)
            _give_back_memory()
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise EncoderError(
                self.uri, "its tower in {folder} cannot be opened ({error})", folder=self.folder, error=error
            ) from error
        # Processors differ: without VNNI, int8 products can saturate, and nothing but the vectors would tell.
        if "check" in tower and not float(answer @ np.asarray(tower["check"])) >= MIN_COSINE[tower["precision"]]:
            raise EncoderError(
                self.uri,
                "its {precision} {kind} tower gives other vectors here than where it was exported",
                precision=tower["precision"],
                kind=kind,
            )
        return session


def compute_fingerprint(folder: Path, config: Mapping[str, Any]) -> str:
    """A hash of all that decides the vectors of the encoder in `folder`, whose encoder.json says `config`."""
    said = {key: value for key, value in config.items() if key not in _NO_PART_OF_FINGERPRINT}
    found = hashlib.sha256(json.dumps(said, sort_keys=True, default=list).encode())
    for path in sorted(folder.iterdir()):
        if path.suffix in (".onnx", ".data", ".json", ".gz", ".model") and path.name != CONFIG_FILE:
            with path.open("rb") as file:
                found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def open_session(path: Path, threads: int) -> "onnxruntime.InferenceSession":
    """A tower on the CPU. Sessions are thread-safe."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that waits must not burn the core that decodes the next picture.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _cores() -> int:
    """The cores that this process may use; on macOS and Windows all there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _give_back_memory() -> None:
    """Opening a tower takes twice its size for a moment, which glibc would keep: 57 MB with the `starter`."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)


def check_pixels(size: tuple[int, int]) -> Pixels:
    """A picture tower's input (1, 3, H, W), the same everywhere: waves in the range of preprocessed pixels."""
    return np.sin(np.arange(3 * size[0] * size[1], dtype=np.float32) / 7).reshape(1, 3, *size)


def without_padding(ids: Ids, pad_id: int) -> Ids:
    """The columns up to the longest text's end and one more: an end token that doubles as padding must stay."""
    used = np.flatnonzero((ids != pad_id).any(axis=0))
    return ids[:, : int(used[-1]) + 2 if used.size else 2]


def _run(session: "onnxruntime.InferenceSession", batch: Pixels | Ids) -> Vectors:
    (vectors,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(batch)})
    return np.asarray(vectors, dtype=np.float32)
