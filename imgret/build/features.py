"""What does an index keep of a picture? Its digest: made here, and until the index is whole kept here by content."""

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
class Digest:
    """All that an index keeps of a picture's content.

    `content` is the SHA-256 of its encoded bytes, `width` and `height` are in pixels, upright; `pixels` (D,) uint8,
    `thumbnail` WebP, `embedding` (d,) float32.
    """

    content: str
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes
    embedding: npt.NDArray[np.float32]


Outcome = tuple[Entry, ImageError | str, Digest | None]
"""Of an entry, its data left out: why it cannot be used, or its content; and its digest, where that is new."""


@dataclass(frozen=True)
class Digester:
    """Makes the digests of what is not `known` by its content, the same wherever it runs; threads may share it.

    `encoder` is called when the first new picture needs it; `batch` pictures go through it at once.
    """

    encoder: Callable[[], Encoder]
    batch: int
    pixel_size: int
    known: Set[str]

    def __call__(self, entries: Sequence[Entry]) -> list[Outcome]:
        """What becomes of `entries`, in their order."""
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
            new = Digest(content, image.width, image.height, pixels, small, np.empty(0, np.float32))
            outcomes.append((found, content, new))
        if not tensors:
            return outcomes
        vectors = iter(self.encoder().embed_preprocessed(np.stack(tensors)))
        return [(e, content, new and replace(new, embedding=next(vectors))) for e, content, new in outcomes]


class Digests:
    """The digests of a build under way, in an SQLite file that commits each batch as a whole, safe from a kill.

    `known` are their contents, and those that are kept `elsewhere`. One thread adds and gets; any may read `known`.
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
            "CREATE TABLE IF NOT EXISTS digests "
            "(content TEXT PRIMARY KEY, width INT, height INT, pixels BLOB, thumbnail BLOB, embedding BLOB)"
        )
        self.known = {content for (content,) in self._database.execute("SELECT content FROM digests")}

    def add(self, digests: Iterable[Digest]) -> None:
        """Keeps them all, or none if the process is killed before this returns."""
        values = [
            (d.content, d.width, d.height, d.pixels.tobytes(), d.thumbnail, d.embedding.tobytes()) for d in digests
        ]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", values)
        self.known.update(value[0] for value in values)

    def get(self, content: str) -> Digest:
        """The digest of `content`. Raises KeyError."""
        found = self._database.execute("SELECT * FROM digests WHERE content = ?", (content,)).fetchone()
        if found is None:
            raise KeyError(content)
        _, width, height, pixels, small, embedding = found
        return Digest(
            content, width, height, np.frombuffer(pixels, np.uint8), small, np.frombuffer(embedding, np.float32)
        )

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()
