"""Extracts what an index keeps of each picture, and caches it on disk by content until the index is complete."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgret.encoders import Encoder
from imgret.images import ImageError, load_image, pixel_vector, thumbnail
from imgret.library import Entry


@dataclass(frozen=True)
class ImageFeatures:
    """What an index keeps of one picture.

    `content` is the SHA-256 of its encoded bytes, `width` and `height` are in pixels, upright; `pixels` (D,) uint8,
    `thumbnail` WebP, `embedding` (d,) float32.
    """

    content: str
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes
    embedding: npt.NDArray[np.float32]


Outcome = tuple[Entry, ImageError | str, ImageFeatures | None]
"""An entry without its data; its content hash, or why it cannot be used; and its features, if they are new."""


@dataclass(frozen=True)
class FeatureExtractor:
    """Extracts the features of pictures whose content is not `known`. Safe to share between threads.

    `encoder` loads the encoder, and is called for the first new picture. `batch` pictures are embedded at once.
    """

    encoder: Callable[[], Encoder]
    batch: int
    pixel_size: int
    known: Set[str]

    def __call__(self, entries: Sequence[Entry]) -> list[Outcome]:
        """The outcome of each entry, in their order."""
        batches = (entries[start : start + self.batch] for start in range(0, len(entries), self.batch))
        return [outcome for batch in batches for outcome in self._together(batch)]

    def _together(self, entries: Sequence[Entry]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        tensors = []
        for entry in entries:
            found = replace(entry, data=None)
            try:
                data = entry.read()
                content = hashlib.sha256(data).hexdigest()
                if content in self.known:
                    outcomes.append((found, content, None))
                    continue
                image = load_image(data)
            except ImageError as error:
                outcomes.append((found, error, None))
                continue
            tensors.append(self.encoder().preprocess(image))
            pixels, small = pixel_vector(image, self.pixel_size), thumbnail(image)
            new = ImageFeatures(content, image.width, image.height, pixels, small, np.empty(0, np.float32))
            outcomes.append((found, content, new))
        if not tensors:
            return outcomes
        vectors = iter(self.encoder().embed_preprocessed(np.stack(tensors)))
        return [(e, content, new and replace(new, embedding=next(vectors))) for e, content, new in outcomes]


class FeatureCache:
    """The features that a build has extracted so far, in an SQLite file that commits whole batches and survives a kill.

    `known` holds their content hashes, and those of features that are `elsewhere`. Only one thread may call `add` and
    `get`; any thread may read `known`.
    """

    def __init__(self, path: Path, elsewhere: Iterable[str] = ()) -> None:
        try:
            self._open(path)
        except sqlite3.DatabaseError:  # not a database, or a broken one: all of it can be made again
            path.unlink()
            self._open(path)
        self.known.update(elsewhere)

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS features "
            "(content TEXT PRIMARY KEY, width INT, height INT, pixels BLOB, thumbnail BLOB, embedding BLOB)"
        )
        self.known = {content for (content,) in self._database.execute("SELECT content FROM features")}

    def add(self, features: Iterable[ImageFeatures]) -> None:
        """Keeps them all, or none if the process is killed before this returns."""
        values = [
            (one.content, one.width, one.height, one.pixels.tobytes(), one.thumbnail, one.embedding.tobytes())
            for one in features
        ]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?, ?, ?)", values)
        self.known.update(value[0] for value in values)

    def get(self, content: str) -> ImageFeatures:
        """The features of the picture with this content hash. Raises KeyError."""
        found = self._database.execute("SELECT * FROM features WHERE content = ?", (content,)).fetchone()
        if found is None:
            raise KeyError(content)
        _, width, height, pixels, small, embedding = found
        return ImageFeatures(
            content, width, height, np.frombuffer(pixels, np.uint8), small, np.frombuffer(embedding, np.float32)
        )

    def close(self) -> None:
        """Closes the file."""
        self._database.close()
