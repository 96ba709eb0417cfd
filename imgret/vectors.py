"""Which embeddings are nearest to a vector? One Chroma collection, and the audit of how many neighbours it misses."""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.errors import in_short
from imgret.scratch import Scratch

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

COLLECTION = "embeddings"
HNSW = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32}
FIRST_EF_SEARCH = 100
SMALL = 1000
"""Up to so many rows the search is as wide as the collection from the start: it costs next to nothing, and Chroma makes
such a graph anew at each open, not always the same one. Texts lie further from pictures than the audit's queries do.
"""
AUDIT_QUERIES, AUDIT_K, AUDIT_RECALL, AUDIT_TOLERANCE = 256, 10, 0.99, 1e-6
PROBES, PROBE_TOLERANCE = 16, 1e-4
"""A graph may miss a row or two of these, a strange or a damaged one misses all."""
_LABEL = "label"
_SYNCED = "index_metadata.pickle"


class VectorError(ValueError):
    """The collection cannot be opened or asked; the text says why."""


@dataclass(frozen=True)
class RecallAudit:
    """What share of the true `k` nearest neighbours the collection finds, and the `ef_search` that it took."""

    queries: int
    k: int
    recall: float
    ef_search: int


class VectorStore:
    """A Chroma collection of N embeddings, numbered by row.

    Opened with `open`, made with `create`; safe to ask from several threads.
    """

    def __init__(self, client: Any, scratch: Scratch | None, count: int) -> None:
        self._client, self._scratch, self._count = client, scratch, count
        self._collection = client.get_collection(COLLECTION, embedding_function=None)
        self._closing = threading.Lock()

    @classmethod
    def create(
        cls,
        folder: Path,
        embeddings: Floats,
        labels: Sequence[str | None],
        progress: Callable[[int], None] = lambda done: None,
    ) -> RecallAudit:
        """Writes `embeddings` (N, d), rows of norm 1, and their labels into a new collection in `folder`, audited.

        `ef_search` is raised, at most to N, until the audit's recall is reached; what is stored is the setting that the
        returned audit was measured with. `progress` hears the number of rows written. Raises VectorError.
        """
        try:
            return cls._created(folder, embeddings, labels, progress)
        except VectorError:
            raise
        except Exception as error:  # Chroma's, SQLite's and the disk's
            raise VectorError(f"The embeddings cannot be stored in {folder} ({in_short(error)}).") from error

    @classmethod
    def _created(
        cls, folder: Path, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> RecallAudit:
        client = _client(folder)
        ef_search = len(embeddings) if FIRST_EF_SEARCH < len(embeddings) <= SMALL else FIRST_EF_SEARCH
        collection = client.create_collection(
            COLLECTION, embedding_function=None, configuration={"hnsw": HNSW | {"ef_search": ef_search}}
        )
        step = min(client.get_max_batch_size(), 1000)
        for start in range(0, len(embeddings), step):
            part = embeddings[start : start + step]
            metadatas = [None if label is None else {_LABEL: label} for label in labels[start : start + len(part)]]
            collection.add(
                ids=[str(row) for row in range(start, start + len(part))],
                embeddings=np.asarray(part),
                metadatas=metadatas,
            )
            progress(start + len(part))
        client.close()
        while True:
            store = cls(_client(folder), None, len(embeddings))
            audit = store.audit(embeddings, ef_search)
            if audit.recall >= AUDIT_RECALL or ef_search >= len(embeddings):
                store.close()
                return audit
            ef_search = min(2 * ef_search, len(embeddings))
            # A changed ef_search counts only for clients opened after it, hence the new store each round.
            store._collection.modify(configuration={"hnsw": {"ef_search": ef_search}})
            store.close()

    @classmethod
    def open(cls, folder: Path, cache: Path, embeddings: Floats) -> "VectorStore":
        """The collection in `folder`, which is not written to; it must be that of `embeddings` (N, d).

        Chroma changes its SQLite file by being opened, so it is given a working copy below `cache` that lives as long
        as this store: that file copied, the vectors linked. An emptied or damaged one it opens, too, and answers
        wrongly: so half of some rows have to find themselves first. Raises VectorError.
        """
        scratch = Scratch(cache, "chroma")
        copy = scratch.folder / "db"
        try:
            _working_copy(folder, copy)
            store = cls(_client(copy), scratch, len(embeddings))
            if (found := store._collection.count()) != len(embeddings):
                raise ValueError(f"there are {found} instead of {len(embeddings)}")
            probes = np.linspace(0, len(embeddings) - 1, PROBES, dtype=np.int64)
            nearest = np.concatenate([store.query(embeddings[row], 1) for row in probes])
            if np.mean((embeddings[nearest] * embeddings[probes]).sum(axis=1) > 1 - PROBE_TOLERANCE) < 0.5:
                raise ValueError("its rows do not find themselves")
            return store
        except Exception as error:
            scratch.close()
            raise VectorError(
                f"The embeddings in {folder} cannot be opened ({in_short(error)}); build the index anew."
            ) from error

    def query(self, vector: Floats, k: int, labels: Sequence[str] | None = None) -> Rows:
        """Rows of the `k` nearest to `vector` (d,), nearest first, only those labelled with one of `labels` if given.

        At most (k,) int64.
        """
        where = None if labels is None else {_LABEL: {"$in": list(labels)}}
        try:
            found = self._collection.query(
                query_embeddings=[np.asarray(vector, dtype=np.float32)], n_results=k, where=where, include=[]
            )
        except Exception as error:
            raise VectorError(f"The embeddings cannot be searched ({in_short(error)}).") from error
        names = found["ids"][0]
        rows = np.array([int(name) if name.isdecimal() else -1 for name in names], dtype=np.int64)
        short = labels is None and len(rows) < min(k, self._count)
        if short or len(np.unique(rows)) < len(rows) or (rows < 0).any() or (rows >= self._count).any():
            raise VectorError("The embeddings cannot be searched (rows are missing or unknown); build it anew.")
        return rows

    def audit(self, embeddings: Floats, ef_search: int) -> RecallAudit:
        """Recall@10 of this collection against exact search over `embeddings` (N, d), the rows it was made from.

        A hit counts if its exact score is at least the exact tenth score less 1e-6. Half of the queries are rows of the
        library, half lie between two of them, as the embedding of a picture from elsewhere does.
        """
        count = len(embeddings)
        if count == 0:
            return RecallAudit(0, AUDIT_K, 1.0, ef_search)
        draw = np.random.default_rng(0)
        first, second = draw.integers(count, size=(2, AUDIT_QUERIES))
        second[: AUDIT_QUERIES // 2] = first[: AUDIT_QUERIES // 2]
        queries = np.asarray(embeddings[first]) + np.asarray(embeddings[second])
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        k = min(AUDIT_K, count)
        tenth = np.sort(_best_scores(queries, embeddings, k), axis=1)[:, 0]
        hits = 0
        for query, least in zip(queries, tenth, strict=True):
            rows = self.query(query, k)
            hits += int((np.asarray(embeddings[rows]) @ query >= least - AUDIT_TOLERANCE).sum())
        return RecallAudit(AUDIT_QUERIES, AUDIT_K, hits / (AUDIT_QUERIES * k), ef_search)

    def close(self) -> None:
        """Lets go of the files; the store cannot be asked any more."""
        with self._closing:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._scratch is not None:
                self._scratch.close()


def _working_copy(folder: Path, copy: Path) -> None:
    copy.mkdir()
    for path in folder.iterdir():
        if not path.is_dir():
            shutil.copyfile(path, copy / path.name)
        elif (path / _SYNCED).exists():
            (copy / path.name).symlink_to(path.resolve(), target_is_directory=True)
        else:
            # Below 1,000 rows Chroma has not written its graph yet: it makes these files anew at the first query.
            shutil.copytree(path, copy / path.name)


def _client(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


def _best_scores(queries: Floats, embeddings: Floats, k: int) -> Floats:
    """The k best scores of each query, unordered, over blocks of rows. (Q, k)."""
    best = np.full((len(queries), 0), 0, dtype=np.float32)
    for start in range(0, len(embeddings), 16384):
        scores = np.hstack([best, queries @ np.asarray(embeddings[start : start + 16384]).T])
        best = -np.partition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
    return best
