"""What has a build already worked out? The digests of pictures by content, safe from a kill at any moment."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


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


class Digests:
    """The digests of a build under way, in an SQLite file that commits each batch as a whole.

    One thread adds and gets; `in` may be asked from any.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.DatabaseError:  # not a database, or a broken one: all of it can be made again
            path.unlink()
            self._open(path)

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS digests "
            "(content TEXT PRIMARY KEY, width INT, height INT, pixels BLOB, thumbnail BLOB, embedding BLOB)"
        )
        self._contents = {content for (content,) in self._database.execute("SELECT content FROM digests")}

    def __contains__(self, content: str) -> bool:
        return content in self._contents

    def add(self, digests: Iterable[Digest]) -> None:
        """Keeps them all, or none if the process is killed before this returns."""
        values = [
            (d.content, d.width, d.height, d.pixels.tobytes(), d.thumbnail, d.embedding.tobytes()) for d in digests
        ]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", values)
        self._contents.update(value[0] for value in values)

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
