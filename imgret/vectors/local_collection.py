"""A collection in Chroma's embedded store, opened from a working copy, so that the index folder stays unchanged."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from imgret.errors import one_line
from imgret.files.tempdir import TempFolder
from imgret.vectors import base
from imgret.vectors.base import Floats, VectorError
from imgret.vectors.hnsw_check import METADATA, check_graph

DATABASE, COLLECTION = "chroma.sqlite3", "embeddings"


class LocalCollection:
    """The Chroma collection in an index folder."""

    def __init__(self, client: Any, temp: TempFolder | None = None) -> None:
        self._client, self._temp = client, temp
        self.collection = client.get_collection(COLLECTION, embedding_function=None)
        self._closing = threading.Lock()

    def nearest(self, vectors: list[Floats], k: int, where: Any) -> list[list[str]]:
        try:
            found = self.collection.query(query_embeddings=vectors, n_results=k, where=where, include=[])
        except Exception as error:
            raise VectorError("The embeddings cannot be searched ({reason}).", reason=one_line(error)) from error
        return list(found["ids"])

    def close(self) -> None:
        with self._closing:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._temp is not None:
                self._temp.close()


def working_copy(folder: Path, copy: Path) -> None:
    copy.mkdir()
    for path in folder.iterdir():
        if not path.is_dir():
            shutil.copyfile(path, copy / path.name)
        elif not (path / METADATA).exists() or not _linked(path, copy / path.name):
            # Below 1,000 rows Chroma has not written its graph yet: it makes these files anew at the first query.
            shutil.copytree(path, copy / path.name)


def _linked(folder: Path, link: Path) -> bool:
    """Makes `link` lead to `folder`, if this system lets its user do so; Windows asks for a right that few have."""
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except OSError:
        return False
    return True


def check(copy: Path, dim: int) -> None:
    """Raises ValueError for files that would crash Chroma, which trusts the vector width in its database."""
    with closing(sqlite3.connect(copy / DATABASE)) as database:
        widths = database.execute("SELECT dimension FROM collections WHERE dimension IS NOT NULL").fetchall()
        lengths = database.execute("SELECT DISTINCT length(vector) FROM embeddings_queue WHERE vector IS NOT NULL")
        if set(widths) != {(dim,)} or not {(4 * dim,)}.issuperset(lengths):
            raise ValueError(f"they are not {dim} numbers each")
    for path in copy.iterdir():
        if (path / METADATA).exists():
            check_graph(path, dim, base.HNSW["max_neighbors"])


def warm() -> None:
    """Imports Chroma now, so that the first collection does not wait for it."""
    import chromadb.config  # noqa: F401


def client_of(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
