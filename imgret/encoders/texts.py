"""The vectors of many texts, each embedded once, on all cores."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imgret.encoders.base import Encoder, Vectors

_BATCH = 16


class TextEmbeddings:
    """The vectors of texts by one encoder, which is loaded for the first text."""

    def __init__(self, encoder: Callable[[], Encoder]) -> None:
        self._encoder = encoder
        self._vectors: dict[str, Vectors] = {}

    def add(self, texts: Iterable[str], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Embeds those of `texts` that are new; calls back with (done, total) of them. Raises EncoderError."""
        # The texts of a batch are padded to the longest one. Sorted by length, they take two thirds of the time.
        new = sorted(set(texts).difference(self._vectors), key=lambda text: (len(text), text))
        if not new:
            return
        batches = [new[start : start + _BATCH] for start in range(0, len(new), _BATCH)]
        embed = self._encoder().embed_texts
        progress(0, len(new))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for number, vectors in enumerate(pool.map(embed, batches), start=1):
                self._vectors.update(zip(batches[number - 1], vectors, strict=True))
                progress(min(number * _BATCH, len(new)), len(new))

    def of(self, texts: Sequence[str]) -> Vectors:
        """The unit vectors of `texts`, in their order: float32 (n, d). Raises EncoderError."""
        self.add(texts)
        return np.stack([self._vectors[text] for text in texts])
