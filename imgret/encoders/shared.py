"""Shares one encoder between threads: queries that wait run as one batch, and their vectors are remembered."""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from imgret.encoders.base import Encoder, Pixels, Vectors

TOGETHER = 16
"""Queries that may go through a tower at once."""

REMEMBERED = 1024
"""Embeddings kept of each kind: 2 MB at 512 dimensions."""

T = TypeVar("T")


class SharedEncoder:
    """An encoder for queries: one picture or one text at a time, from any number of threads.

    A vector does not depend on what others ask meanwhile: an encoder whose answer to one row depends on its batch is
    given one row at a time.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        limit = TOGETHER if encoder.exact_in_batches else 1
        self._pictures = _MicroBatcher[Pixels](lambda rows: encoder.embed_preprocessed(np.stack(rows)), limit)
        self._texts = _MicroBatcher[str](encoder.embed_texts, limit)
        self._known_pictures, self._known_texts = _LruCache(), _LruCache()

    def image(self, image: Image.Image) -> Vectors:
        """The unit vector (d,) of an RGB picture."""
        key = (image.size, hashlib.sha256(image.tobytes()).digest())
        return self._known_pictures.get(key, lambda: self._pictures(self._encoder.preprocess(image)))

    def text(self, text: str) -> Vectors:
        """The unit vector (d,) of a text."""
        return self._known_texts.get(text, lambda: self._texts(text))


class _MicroBatcher(Generic[T]):
    """Runs what waits as one batch. Nobody waits for company: a batch is what came while the one before was running."""

    def __init__(self, run: Callable[[list[T]], Vectors], limit: int) -> None:
        self._run, self._limit = run, limit
        self._waiting: deque[tuple[T, Future[Vectors]]] = deque()
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, item: T) -> Vectors:
        answer: Future[Vectors] = Future()
        self._waiting.append((item, answer))
        self._thread.submit(self._next_batch)
        return answer.result()

    def _next_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
        if not batch:  # an earlier turn has taken what this one was meant for
            return
        try:
            vectors = self._run([item for item, _ in batch])
        except BaseException as error:
            for _, answer in batch:
                answer.set_exception(error)
            return
        for (_, answer), vector in zip(batch, vectors, strict=True):
            answer.set_result(vector)


class _LruCache:
    """The latest vectors by key; the longest unused goes first."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[Hashable, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Vectors]) -> Vectors:
        with self._lock:
            if key in self._vectors:
                self._vectors.move_to_end(key)
                return self._vectors[key]
        vector = make()
        with self._lock:
            self._vectors[key] = vector
            if len(self._vectors) > REMEMBERED:
                self._vectors.popitem(last=False)
        return vector
