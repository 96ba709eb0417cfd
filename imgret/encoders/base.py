"""What every encoder does, whatever runs it: pictures and texts become unit vectors in one space, a batch at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.errors import ImgretError, Sentence

Vectors = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.float32]

_Items = TypeVar("_Items", Sequence[Any], Pixels)

TEXT_CHARACTERS = 5_000
"""What is left of a longer text: more than any tower reads, and a tokenizer's time grows with the square of a word."""

BATCH_SIZE = 32
"""Pictures or texts that go through a tower at once: enough to fill the cores, few enough for a large model in 2 GB."""


class EncoderError(ImgretError):
    """An encoder that cannot be loaded, exported or trusted; one sentence that names it."""

    def __init__(self, uri: str, reason: str, /, **values: object) -> None:
        """`reason` is a part of a sentence, with `str.format` fields for `values`."""
        hint = "" if uri == "starter" else Sentence('; the encoder "starter" works offline')
        super().__init__(
            'The encoder "{uri}" cannot be used here: {reason}{hint}.',
            uri=uri,
            reason=Sentence(reason, **values),
            hint=hint,
        )


class Encoder(ABC):
    """A picture tower and a text tower whose vectors can be compared by their dot product, the cosine similarity.

    Attributes:
        uri: what `load_encoder` was asked for.
        dim: d, the length of a vector.
        device: where it runs, "cpu" or "cuda".
        report: how an exported encoder compares with its original; None for an original.
        languages: codes of the languages that the text tower is declared to read; ("*",) for one trained on about a
            hundred, () where nothing is declared.
        fingerprint: a hash of all that decides its vectors; None where that is not known, as for what torch runs.
        folder: where its towers lie in a form that an index may carry; None where they do not.
    """

    uri: str
    dim: int
    languages: tuple[str, ...]
    device: str = "cpu"
    report: Mapping[str, Any] | None = None
    folder: Path | None = None

    @property
    def fingerprint(self) -> str | None:
        return None

    @property
    def exact_in_batches(self) -> bool:
        """Whether its towers give a row the same vector, but for rounding, whatever else is in its batch; if not, each
        row is embedded alone."""
        return True

    @abstractmethod
    def preprocess(self, image: Image.Image) -> Pixels:
        """A picture of any mode and size as the picture tower's input, float32 (3, H, W). Threads may share it."""

    @abstractmethod
    def _picture_vectors(self, pixels: Pixels) -> Vectors:
        """One batch (n, 3, H, W) through the picture tower: float32 (n, d), of any norm."""

    @abstractmethod
    def _text_vectors(self, texts: Sequence[str]) -> Vectors:
        """One batch of texts through the text tower: float32 (n, d), of any norm."""

    def cut_after(self, text: str) -> int | None:
        """After how many tokens of `text` the text tower stops reading; None if it reads them all, or nobody knows."""
        return None

    def embed_preprocessed(self, pixels: Pixels) -> Vectors:
        """What `preprocess` made, stacked to (n, 3, H, W), as unit vectors: float32 (n, d), in the same order.

        Raises:
            EncoderError: the model answers with something that has no direction (NaN, infinity or all zeros).
        """
        return self._unit_rows([self._picture_vectors(batch) for batch in self._batches(pixels)])

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Pictures of any mode and size as unit vectors: float32 (n, d), in the same order.

        Raises as `embed_preprocessed` does.
        """
        # A batch is preprocessed only when its turn comes: n pictures at 224 px are 0.6 MB each as float32.
        batches = (np.stack([self.preprocess(image) for image in batch]) for batch in self._batches(images))
        return self._unit_rows([self._picture_vectors(batch) for batch in batches])

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts as unit vectors: float32 (n, d), in the same order.

        A text longer than the tower reads is cut at the end, as in training. Raises as `embed_preprocessed` does.
        """
        shortened = [text[:TEXT_CHARACTERS] for text in texts]
        return self._unit_rows([self._text_vectors(batch) for batch in self._batches(shortened)])

    def _batches(self, items: _Items) -> Iterator[_Items]:
        size = BATCH_SIZE if self.exact_in_batches else 1
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def _unit_rows(self, parts: list[Vectors]) -> Vectors:
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *parts])
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise EncoderError(self.uri, "its weights give vectors that are not finite or have no length")
        return np.asarray(rows / norms, dtype=np.float32)
