"""Finds or makes the encoder that a build embeds with, and that its index will contain."""

import os
import shutil
import threading
from itertools import islice
from pathlib import Path

from PIL import Image

from imgret.build.errors import BuildError
from imgret.encoders import Encoder, EncoderError, can_export, export_encoder, load_encoder, ready_towers
from imgret.images import ImageError, load_image
from imgret.index import Index
from imgret.library import ImageLibrary
from imgret.manifest import EncoderInfo

BATCH = 16
"""How many pictures torch embeds at once."""
ONNX_BATCH = 8
"""The same for ONNX, where each core embeds its own batch: more gain nothing and leave a core idle at the end."""
EXPORT_SAMPLES, EXPORT_STRIDE = 64, 50
"""How many pictures the exported encoder is compared with the original on, and their largest distance in rows."""


class BuildEncoder:
    """The encoder of a build, loaded for the first new picture.

    It is the encoder in ONNX that the index will contain, so that queries and pictures go through the same towers. It
    is taken from the first of these that there is: the towers that the given encoder comes with, those of the old
    index, those of a build that was cut off, and a new export in `folder`. On a GPU torch embeds the pictures. An
    encoder of another kind is used as it is.
    """

    def __init__(self, given: str | Encoder, library: ImageLibrary, folder: Path, old: Index | None) -> None:
        self._given, self._library, self._folder, self._old = given, library, folder, old
        self._encoder: Encoder | None = None
        self._error: EncoderError | None = None
        self._lock = threading.Lock()
        self.batch = ONNX_BATCH if self._runs_exported else BATCH

    def load(self) -> Encoder:
        """The encoder, loaded once. Raises EncoderError."""
        with self._lock:
            if self._error is not None:  # the other workers ask too, and must not repeat a download that failed
                raise self._error
            if self._encoder is None:
                try:
                    self._encoder = self._make()
                except EncoderError as error:
                    self._error = error
                    raise
            return self._encoder

    @property
    def exported(self) -> Path | None:
        """The folder of the encoder in ONNX, if there is one."""
        if self._ready is not None:
            return self._ready
        if not self._folder.exists() and self._old is not None and self._old.encoder_folder is not None:
            link_tree(self._old.encoder_folder, self._folder)
        return self._folder if self._folder.exists() else None

    def info(self) -> EncoderInfo:
        """What the manifest says of the encoder."""
        if self._encoder is None and self._old is not None:
            return self._old.manifest.encoder
        encoder = self.load()
        kept = encoder if self.exported is None else self._open_exported()
        return EncoderInfo(encoder.uri, encoder.dim, tuple(encoder.languages), kept.report, kept.fingerprint)

    @property
    def _runs_exported(self) -> bool:
        given = self._given
        return isinstance(given, str) or self._ready is not None or (can_export(given) and given.device == "cpu")

    @property
    def _ready(self) -> Path | None:
        """The folder of the towers that the encoder comes with, if it does."""
        return ready_towers(self._given) if isinstance(self._given, str) else self._given.folder

    def _make(self) -> Encoder:
        if isinstance(self._given, str):
            if self.exported is not None:
                return self._open_exported()
            encoder = load_encoder(self._given)
        else:
            encoder = self._given
        if can_export(encoder) and self.exported is None:
            export_encoder(encoder, self._folder, *_samples(self._library))
        return self._open_exported() if self._runs_exported and self.exported is not None else encoder

    def _open_exported(self) -> Encoder:
        uri = self._given if isinstance(self._given, str) else self._given.uri
        return load_encoder(uri, exported=self.exported, threads=1)


def _samples(library: ImageLibrary) -> tuple[list[Image.Image], list[str]]:
    """Samples of pictures and texts, spread over the library as far as that needs no complete read of it."""
    stride = min(max(1, (library.count or 0) // EXPORT_SAMPLES), EXPORT_STRIDE)
    images, texts = [], []
    for entry in islice(library.entries(), 0, EXPORT_SAMPLES * stride, stride):
        try:
            images.append(load_image(entry.read()))
        except ImageError:
            continue
        text = entry.caption or entry.label
        if text:
            texts.append(text)
    if not images:
        raise BuildError("{source} has no picture that can be used among its first.", source=library.source)
    return images, list(dict.fromkeys(texts))


def link_tree(source: Path, target: Path) -> None:
    """Copies a folder of read-only files, by hard links where the file system allows."""

    def link(file: str, copy: str) -> str:
        try:
            os.link(file, copy)
        except OSError:
            shutil.copyfile(file, copy)
        return copy

    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=link)
    try:
        partial.rename(target)
    except OSError:  # another process was first with the same content
        shutil.rmtree(partial)
