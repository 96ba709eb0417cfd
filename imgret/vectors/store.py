"""`VectorStore`: nearest neighbours from one Chroma collection, and the audit of its recall."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from imgret.errors import one_line
from imgret.files.tempdir import TempFolder
from imgret.vectors.base import (
    AUDIT_RECALL,
    BATCH,
    LABEL,
    FilterAudit,
    Floats,
    RecallAudit,
    Rows,
    VectorError,
    batch_of,
    creation_options,
    first_ef_search,
)
from imgret.vectors.local_collection import COLLECTION, LocalCollection, check, client_of, working_copy
from imgret.vectors.server import ChromaServer
from imgret.vectors.server_collection import BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS, DRAFT, ServerCollection

AUDIT_QUERIES, AUDIT_K, AUDIT_TOLERANCE = 256, 10, 1e-6
_BLOCK, _TOGETHER = 16384, 32
PROBES, PROBE_TOLERANCE = 16, 1e-4
"""A good graph may miss one or two of these rows; a damaged one misses all."""


class VectorStore:
    """A Chroma collection of N embeddings, numbered by row.

    Opened with `open`, made with `create`; on a server with `connect` and `write`. Safe to ask from several threads.
    """

    def __init__(self, source: LocalCollection | ServerCollection, count: int) -> None:
        self._source, self._count = source, count

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
        returned audit was measured with. `progress` gets the number of rows written. Raises VectorError.
        """
        try:
            return cls._created(folder, embeddings, labels, progress)
        except VectorError:
            raise
        except Exception as error:  # Chroma's, SQLite's and the disk's
            raise VectorError(
                "The embeddings cannot be stored in {folder} ({reason}).", folder=folder, reason=one_line(error)
            ) from error

    @classmethod
    def _created(
        cls, folder: Path, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> RecallAudit:
        client = client_of(folder)
        ef_search = first_ef_search(len(embeddings))
        collection = client.create_collection(COLLECTION, **creation_options(ef_search))
        step = min(client.get_max_batch_size(), BATCH)
        for first in range(0, len(embeddings), step):
            rows = np.arange(first, min(first + step, len(embeddings)))
            collection.add(**batch_of(rows, embeddings, labels))
            progress(first + len(rows))
        client.close()
        while True:
            source = LocalCollection(client_of(folder))
            audit = cls(source, len(embeddings)).audit(embeddings, ef_search)
            if audit.recall >= AUDIT_RECALL or ef_search >= len(embeddings):
                source.close()
                return audit
            ef_search = min(2 * ef_search, len(embeddings))
            # A changed ef_search counts only for clients opened after it, hence the new one each round.
            source.collection.modify(configuration={"hnsw": {"ef_search": ef_search}})
            source.close()

    @classmethod
    def open(cls, folder: Path, cache: Path, embeddings: Floats) -> "VectorStore":
        """The collection in `folder`, which is not written to; it must be that of `embeddings` (N, d).

        Chroma writes to its SQLite file when it opens it, so it gets a working copy below `cache`, with that file
        copied and the vectors linked; `close` removes the copy. Chroma also opens damaged collections, and crashes on
        forged ones: hence the files are checked first, and then half of 16 sample rows have to find themselves. Raises
        VectorError.
        """
        try:
            temp = TempFolder(cache, "chroma")
        except OSError as error:
            raise VectorError(
                "The folder {cache} cannot be written ({reason}); set IMGRET_CACHE to one that can.",
                cache=cache,
                reason=error.strerror,
            ) from None
        copy = temp.folder / "db"
        try:
            try:
                working_copy(folder, copy)
                check(copy, embeddings.shape[1])
                source = LocalCollection(client_of(copy), temp)
                found = source.collection.count()
            except Exception as error:  # Chroma's, SQLite's and the disk's
                raise _unopened(folder, one_line(error)) from error
            store = cls(source, len(embeddings))
            if found != len(embeddings):
                raise _unopened(folder, f"there are {found} instead of {len(embeddings)}")
            probes = np.linspace(0, len(embeddings) - 1, PROBES, dtype=np.int64)
            nearest = np.concatenate([store.query(embeddings[row], 1) for row in probes])
            if np.mean((embeddings[nearest] * embeddings[probes]).sum(axis=1) > 1 - PROBE_TOLERANCE) < 0.5:
                raise _unopened(folder, "its rows do not find themselves")
            return store
        except BaseException:
            temp.close()
            raise

    @classmethod
    def connect(cls, server: ChromaServer, name: str, count: int) -> "VectorStore":
        """The collection `name` of `count` rows on `server`, which is asked for it by the first query, and anew by each
        that finds it gone.
        """
        return cls(ServerCollection(server, name, count), count)

    @classmethod
    def write(
        cls,
        server: ChromaServer,
        name: str,
        owner: str,
        embeddings: Floats,
        labels: Sequence[str | None],
        progress: Callable[[int], None] = lambda done: None,
    ) -> RecallAudit:
        """`create` on a server, in the collection `name`, unless it is there.

        A new collection is a draft until it is counted and audited; then it gets its name. A draft always holds the
        first rows, without a gap. So a later call goes on where one was cut off, and two calls at once write the same
        rows. `owner` is noted for `drop`. Raises VectorError.
        """
        limits = len(embeddings), BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS
        with (
            closing(ServerCollection(server, name, *limits)) as final,
            closing(ServerCollection(server, name + DRAFT, *limits)) as draft,
        ):
            if not final.is_there(embeddings.shape[1]):
                draft.create(owner, embeddings, labels, progress)
                audit = draft.tune_ef_search(partial(cls(draft, len(embeddings)).audit, embeddings))
                if draft.rename(name):
                    final.add_owner(owner)
                    return audit
            final.add_owner(owner)
            return final.tune_ef_search(partial(cls(final, len(embeddings)).audit, embeddings))

    def query(self, vector: Floats, k: int, labels: Sequence[str] | None = None) -> Rows:
        """Rows of the `k` nearest to `vector` (d,), nearest first, only those labelled with one of `labels` if given.

        At most (k,) int64.
        """
        (rows,) = self._query([np.asarray(vector, dtype=np.float32)], k, labels)
        return rows

    def _query(self, vectors: list[Floats], k: int, labels: Sequence[str] | None) -> list[Rows]:
        """`query` for several vectors, of which each takes a sixth of the time."""
        where = None if labels is None else {LABEL: {"$in": list(labels)}}
        named = self._source.nearest(vectors, k, where)
        found = [
            np.array([int(name) if name.isdecimal() else -1 for name in names[:k]], dtype=np.int64) for names in named
        ]
        least = min(k, self._count) if labels is None else 0
        unknown = any((rows < 0).any() or (rows >= self._count).any() for rows in found)
        if len(found) < len(vectors) or unknown or any(len(np.unique(rows)) < max(least, len(rows)) for rows in found):
            raise VectorError("The embeddings cannot be searched (rows are missing or unknown); build it anew.")
        return found

    def audit(self, embeddings: Floats, ef_search: int) -> RecallAudit:
        """Recall@10 of this collection against exact search over `embeddings` (N, d), the rows it was made from.

        A hit counts if its exact score is at least the exact tenth score less 1e-6. Half of the queries are rows of the
        library, half lie between two of them, as the embedding of a picture from elsewhere does.
        """
        if len(embeddings) == 0:
            return RecallAudit(0, AUDIT_K, 1.0, ef_search)
        return RecallAudit(AUDIT_QUERIES, AUDIT_K, self._recall(embeddings, embeddings), ef_search)

    def audit_filter(
        self, embeddings: Floats, rows: Rows, labels: tuple[str, ...], texts: Sequence[str] | None = None
    ) -> FilterAudit:
        """`audit` among the `rows` that have one of `labels`, by the same queries; the k-th score counts where there
        are fewer than ten. `texts` are the labels as the collection has them, where that is otherwise.
        """
        recall = self._recall(embeddings, embeddings[rows], texts or labels)
        return FilterAudit(labels, len(rows), AUDIT_QUERIES, min(AUDIT_K, len(rows)), recall)

    def _recall(self, embeddings: Floats, among: Floats, labels: Sequence[str] | None = None) -> float:
        """The share of the exact nearest neighbours that the collection finds. `among` (n, d) are the embeddings that
        may be found: all of them, or those with one of `labels`.
        """
        draw = np.random.default_rng(0)
        first, second = draw.integers(len(embeddings), size=(2, AUDIT_QUERIES))
        second[: AUDIT_QUERIES // 2] = first[: AUDIT_QUERIES // 2]
        queries = np.asarray(embeddings[first]) + np.asarray(embeddings[second])
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        k = min(AUDIT_K, len(among))
        tenth = np.sort(_best_scores(queries, among, k), axis=1)[:, 0]
        hits = 0
        for start in range(0, AUDIT_QUERIES, _TOGETHER):
            some = slice(start, start + _TOGETHER)
            for rows, query, least in zip(
                self._query(list(queries[some]), k, labels), queries[some], tenth[some], strict=True
            ):
                hits += int((np.asarray(embeddings[rows]) @ query >= least - AUDIT_TOLERANCE).sum())
        return hits / (AUDIT_QUERIES * k)

    def close(self) -> None:
        """Closes the files or the connection. The store cannot be used any more."""
        self._source.close()


def _unopened(folder: Path, reason: str) -> VectorError:
    return VectorError(
        "The embeddings in {folder} cannot be opened ({reason}); build the index anew.", folder=folder, reason=reason
    )


def nearest_among(embeddings: Floats, rows: Rows, vector: Floats, k: int) -> Rows:
    """Those of `rows`, in their order, that may be the `k` nearest to `vector` (d,): up to rounding."""
    blocks = (embeddings[rows[start : start + _BLOCK]] @ vector for start in range(0, len(rows), _BLOCK))
    scores = np.concatenate([*blocks])
    least = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    # A sum of d products of unit vectors is off by at most d / 2 float32 steps (Higham 2002, section 3.1).
    return rows[~(scores < least - 2 * len(vector) * np.finfo(np.float32).eps)]  # NaN, too


def _best_scores(queries: Floats, embeddings: Floats, k: int) -> Floats:
    """The k best scores of each query, unordered, over blocks of rows. (Q, k)."""
    best = np.full((len(queries), 0), 0, dtype=np.float32)
    for start in range(0, len(embeddings), _BLOCK):
        scores = np.hstack([best, queries @ np.asarray(embeddings[start : start + _BLOCK]).T])
        best = -np.partition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
    return best
