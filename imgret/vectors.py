"""Which embeddings are nearest to a vector? One Chroma collection, and the audit of how many neighbours it misses.

The collection lies in the index folder, in Chroma's embedded store, or on a Chroma server under the name of what it
holds. On a server it is written under another name, is counted and audited there, and gets its own name last: whoever
finds a collection finds the whole of it. What a library that grew lacks there is added to the collection that it had:
its vectors are named after what they are of, so that others may be among them, which a reader passes over.
"""

import hashlib
import json
import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from imgret.errors import in_short
from imgret.graph import METADATA, check_graph
from imgret.scratch import Scratch

if TYPE_CHECKING:
    from imgret.settings import Settings

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

DATABASE, COLLECTION = "chroma.sqlite3", "embeddings"
HNSW: dict[str, Any] = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32}
FIRST_EF_SEARCH = 100
SMALL = 1000
"""Up to so many rows the search is as wide as the collection from the start: it costs next to nothing, and Chroma makes
such a graph anew at each open, not always the same one. Texts lie further from pictures than the audit's queries do.
"""
AUDIT_QUERIES, AUDIT_K, AUDIT_RECALL, AUDIT_TOLERANCE = 256, 10, 0.99, 1e-6
BATCH = 1000
MAX_STRANGE = 0.25
"""How much of a library may be new to a collection on a server, or of no more use there, for it to be written to."""
PROBES, PROBE_TOLERANCE = 16, 1e-4
"""A graph may miss a row or two of these, a strange or a damaged one misses all."""

ANSWER_SECONDS, PATIENCE_SECONDS = 10.0, 4.0
"""How long a server may take to answer a query, and how long one that is away is asked again: a restart takes less."""
BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS = 120.0, 60.0
PROBE_SECONDS = 5.0
CLOUD = "api.trychroma.com"

REOPENED_SECONDS = 60.0
"""How long a reader may not notice that rows of its index were dropped, or that those of others are among them."""

_NO_KEYS = np.empty(0, np.uint64)
_LABEL = "label"
_MARK, _DRAFT = "imgret", "-draft"
_NOTED = 100
"""How many indexes of one collection are kept in mind."""
_AWAY = (429, 502, 503, 504)
"""What a proxy answers while the server behind it restarts."""


class VectorError(ValueError):
    """The collection cannot be opened, asked or written; the text says why."""


@dataclass(frozen=True)
class RecallAudit:
    """What share of the true `k` nearest neighbours the collection finds, and the `ef_search` that it took."""

    queries: int
    k: int
    recall: float
    ef_search: int


@dataclass(frozen=True)
class ChromaServer:
    """A Chroma server: its address, and the token that it or a proxy before it asks for, which is never shown.

    At Chroma Cloud's address, https://api.trychroma.com, the token is an API key, and Chroma's own variables
    CHROMA_API_KEY, CHROMA_TENANT and CHROMA_DATABASE say what is not given. Raises VectorError for an address that is
    none.
    """

    url: str
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url.strip())
            whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            whole = None
        if whole and "@" in parts.netloc:
            raise VectorError(
                f"The address of the Chroma server at {parts.hostname} has a name or a password in it; "
                "leave it out and set IMGRET_CHROMA_TOKEN."
            )
        if not whole or parts.query or parts.fragment:
            raise VectorError(
                f"{self.url.rpartition('@')[2]!r} is not the address of a Chroma server, which is http:// or https://, "
                "a host, a port and a path if it has them, such as http://127.0.0.1:8000."
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise VectorError(
                "The token of the Chroma server has characters that no token has; set IMGRET_CHROMA_TOKEN anew."
            )
        object.__setattr__(self, "url", self.url.strip().rstrip("/"))

    @classmethod
    def of(cls, settings: "Settings") -> "ChromaServer | None":
        """The server that the settings name, None where it is the embedded store. Raises VectorError."""
        if settings.chroma_url is None:
            return None
        token = settings.chroma_token.get_secret_value().strip() if settings.chroma_token else None
        return cls(settings.chroma_url, token)


def collection_of(content: str) -> str:
    """The name, on any server, of the collection for an index whose data hash to `content`."""
    return f"imgret-{content}"


def keys_of(contents: Iterable[str], labels: Sequence[str | None]) -> Keys:
    """What the vectors of pictures are called on a server, by their content's hash and label, whatever else is in the
    library: (N,) uint64, no two the same, but for a chance of one in ten million where there are a million.
    """
    hashes = (
        hashlib.blake2b(ascii(pair).encode(), digest_size=8).digest() for pair in zip(contents, labels, strict=True)
    )
    keys = np.frombuffer(b"".join(hashes), np.uint64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # The same picture twice is two rows: the second one of a kind gets a key further on.
    firsts = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    repeats = np.arange(len(keys)) - np.repeat(firsts, np.diff(firsts, append=len(keys)))
    found = np.empty_like(keys)
    found[order] = ordered + repeats.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return found


def _hash_of(keys: Keys) -> str:
    """What stands for rows with these keys, in any order."""
    return hashlib.blake2b(np.sort(keys).tobytes(), digest_size=8).hexdigest()


class VectorStore:
    """A Chroma collection of N embeddings, numbered by row.

    Opened with `open`, made with `create`; on a server with `connect` and `write`. Safe to ask from several threads.
    """

    def __init__(self, source: "_Embedded | _Served", count: int, keys: Keys | None = None) -> None:
        """`keys`: what the rows are called in the collection, if not by their number; others may be in it then."""
        self._source, self._count = source, count
        self._order = None if keys is None else np.argsort(keys)
        self._keys = None if keys is None else keys[self._order]

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
        ef_search = _first_ef_search(len(embeddings))
        collection = client.create_collection(COLLECTION, **_made(ef_search))
        step = min(client.get_max_batch_size(), BATCH)
        for first in range(0, len(embeddings), step):
            rows = np.arange(first, min(first + step, len(embeddings)))
            collection.add(**_batch(rows, _names(rows), embeddings, labels))
            progress(first + len(rows))
        client.close()
        while True:
            source = _Embedded(_client(folder))
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

        Chroma changes its SQLite file by being opened, so it is given a working copy below `cache` that lives as long
        as this store: that file copied, the vectors linked. An emptied or damaged one it opens, too, and answers
        wrongly: so half of some rows have to find themselves first. One made to end the process that opens it is not
        opened. Raises VectorError.
        """
        scratch = Scratch(cache, "chroma")
        copy = scratch.folder / "db"
        try:
            _working_copy(folder, copy)
            _check(copy, embeddings.shape[1])
            source = _Embedded(_client(copy), scratch)
            store = cls(source, len(embeddings))
            if (found := source.collection.count()) != len(embeddings):
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

    @classmethod
    def connect(cls, server: ChromaServer, name: str, keys: Keys) -> "VectorStore":
        """The rows called `keys` (N,) in the collection `name` on `server`, which is asked for it by the first query,
        and anew by each that finds it gone.
        """
        return cls(_Served(server, name, keys), len(keys), keys)

    @classmethod
    def write(
        cls,
        server: ChromaServer,
        name: str,
        owner: str,
        keys: Keys,
        embeddings: Floats,
        labels: Sequence[str | None],
        progress: Callable[[int], None] = lambda done: None,
    ) -> RecallAudit:
        """`create` on a server, in the collection `name`, with the rows called `keys` (N,); what a collection that is
        there lacks is added to it.

        A new one gets that name once it is counted and audited. Until then it is a draft, whose rows are the first ones
        at any moment: a later call goes on where one was cut off, and two at once write the same rows. `owner` is added
        to those that `drop` asks. Raises VectorError.
        """
        final, draft = (
            _Served(server, called, keys, BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)
            for called in (name, name + _DRAFT)
        )
        try:
            if not final.is_there(embeddings.shape[1]):
                draft.fill(owner, embeddings, labels, progress)
                audit = draft.widened(embeddings)
                if draft.rename(name):
                    final.note(owner)
                    return audit
            final.complete(owner, embeddings, labels, progress)
            return final.widened(embeddings)
        finally:
            final.close()
            draft.close()

    def query(self, vector: Floats, k: int, labels: Sequence[str] | None = None) -> Rows:
        """Rows of the `k` nearest to `vector` (d,), nearest first, only those labelled with one of `labels` if given.

        At most (k,) int64.
        """
        where = None if labels is None else {_LABEL: {"$in": list(labels)}}
        wanted, asked = min(k, self._count), k
        while True:
            names = self._source.nearest([np.asarray(vector, dtype=np.float32)], asked, where)
            rows = self._rows_of(names)[:k]
            if len(rows) >= wanted or len(names) < asked:
                break
            asked *= 2  # what another index has in the collection stood among them
        short = labels is None and len(rows) < wanted
        if short or len(np.unique(rows)) < len(rows) or (rows < 0).any() or (rows >= self._count).any():
            raise VectorError("The embeddings cannot be searched (rows are missing or unknown); build it anew.")
        return rows

    def _rows_of(self, names: list[str]) -> Rows:
        """The rows called so; without those that are of another index."""
        if self._keys is None or self._order is None:
            return np.array([int(name) if name.isdecimal() else -1 for name in names], dtype=np.int64)
        keys = _keys(names)
        at = np.minimum(np.searchsorted(self._keys, keys), self._count - 1)
        return np.asarray(self._order[at[self._keys[at] == keys]], dtype=np.int64)

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
        """Lets go of the files or the connection; the store cannot be asked any more."""
        self._source.close()


def reach(server: ChromaServer) -> None:
    """Raises VectorError if `server` does not answer."""
    asked = _Served(server, "")
    try:
        asked.ask(lambda client: client.heartbeat())
    finally:
        asked.close()


def can_grow(server: ChromaServer, name: str, old: Keys, new: Keys) -> bool:
    """Whether the rows called `new` should be written to the collection `name`, where `old` are, rather than to a new
    one: not where too many are new, or too many that were written there are of no more use. Raises VectorError.
    """
    if len(new) <= SMALL:  # anew in a second
        return False
    asked = _Served(server, name, old, BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)
    try:
        mark = asked.mark()
    finally:
        asked.close()
    if mark is None or _hash_of(old) not in mark.indexes:
        return False
    stay = int(np.isin(new, old).sum())
    return max(len(new), mark.written) - stay <= MAX_STRANGE * len(new)


def drop(server: ChromaServer, owner: str, keep: str, keys: Keys) -> int:
    """Drops what `owner` wrote on `server`, whole or cut off, besides the rows called `keys` in the collection `keep`;
    how many collections and rows that were.

    What others wrote, too, stays for them. Raises VectorError.
    """
    asked = _Served(server, keep, keys, BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)

    def request(client: Any) -> int:
        dropped = 0
        for collection in _every_collection(client):
            mark = _Mark.of(collection)
            if mark is None or owner not in mark.owners or collection.name == keep:
                continue
            others = tuple(other for other in mark.owners if other != owner)
            if others:
                collection.modify(metadata=replace(mark, owners=others).as_metadata())
            else:
                client.delete_collection(collection.name)
                dropped += 1
        return dropped

    try:
        return asked.ask(request) + asked.drop_others(owner)
    finally:
        asked.close()


@dataclass(frozen=True)
class _Mark:
    """What imgret notes in the metadata of a collection on a server.

    Its width; for whom it is; the `ef_search` it was made with, which the server keeps until it is restarted; which
    sets of keys are whole in it, the latest ones; how many rows were ever written to it.
    """

    dim: int
    owners: tuple[str, ...]
    ef_search: int = 0
    indexes: tuple[str, ...] = ()
    written: int = 0

    def as_metadata(self) -> dict[str, str]:
        return {_MARK: json.dumps(asdict(self))}

    @classmethod
    def of(cls, collection: Any) -> "_Mark | None":
        try:
            values = json.loads((collection.metadata or {})[_MARK])
            return cls(**values | {"owners": tuple(values["owners"]), "indexes": tuple(values.get("indexes", ()))})
        except (KeyError, TypeError, ValueError):
            return None


class _Embedded:
    """The collection in a folder."""

    def __init__(self, client: Any, scratch: Scratch | None = None) -> None:
        self._client, self._scratch = client, scratch
        self.collection = client.get_collection(COLLECTION, embedding_function=None)
        self._closing = threading.Lock()

    def nearest(self, vectors: list[Floats], k: int, where: Any) -> list[str]:
        try:
            found = self.collection.query(query_embeddings=vectors, n_results=k, where=where, include=[])
        except Exception as error:
            raise VectorError(f"The embeddings cannot be searched ({in_short(error)}).") from error
        return list(found["ids"][0])

    def close(self) -> None:
        with self._closing:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._scratch is not None:
                self._scratch.close()


@dataclass(frozen=True)
class _Open:
    """A collection on a server; how many neighbours to ask it for at least, and whether other indexes are in it.

    A server keeps the `ef_search` that it first opened a collection with; to ask for more neighbours widens the search
    alike, and costs 4 microseconds each.
    """

    collection: Any
    width: int
    shared: bool
    at: float = field(default_factory=time.monotonic)


class _Served:
    """The collection `name` on a server.

    Connected to when first asked; each request is bounded in time, and repeated while the server is away.
    """

    def __init__(
        self,
        server: ChromaServer,
        name: str,
        keys: Keys = _NO_KEYS,
        seconds: float | None = None,
        patience: float | None = None,
    ) -> None:
        self._server, self._name, self._keys, self._count = server, name, keys, len(keys)
        self._index = _hash_of(keys)
        self._seconds = ANSWER_SECONDS if seconds is None else seconds
        self._patience = PATIENCE_SECONDS if patience is None else patience
        self._client: Any = None
        self._found: _Open | None = None

    def ask(self, request: Callable[[Any], T]) -> T:
        """What `request` gets from the client. Raises VectorError."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

        patient = Retrying(
            retry=retry_if_exception(_is_away),
            stop=stop_after_delay(self._patience),
            wait=wait_exponential(0.1, max=1),
            reraise=True,
        )
        try:
            return patient(_within, self._seconds, lambda: request(self._connected()))
        except VectorError:
            raise
        except Exception as error:
            raise VectorError(self._told(error)) from error

    def nearest(self, vectors: list[Floats], k: int, where: Any) -> list[str]:
        from chromadb.errors import NotFoundError

        def request(client: Any) -> list[str]:
            known = self._found
            opened = self._opened(client)
            asked = max(2 * k if opened.shared else k, opened.width)
            try:
                found = opened.collection.query(query_embeddings=vectors, n_results=asked, where=where, include=[])
            except NotFoundError:
                if known is None:
                    raise
                self._found = None  # dropped, and perhaps written anew
                return request(client)
            return list(found["ids"][0])

        return self.ask(request)

    def mark(self) -> _Mark | None:
        """What is noted in the collection, None where there is none of imgret's."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> _Mark | None:
            try:
                return _Mark.of(client.get_collection(self._name, embedding_function=None))
            except NotFoundError:
                return None

        return self.ask(request)

    def is_there(self, dim: int) -> bool:
        """Whether the collection is; one that cannot take these rows is dropped."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> bool:
            try:
                mark = self._mark_of(client.get_collection(self._name, embedding_function=None))
            except NotFoundError:
                return False
            if mark.indexes and mark.dim == dim:
                return True
            client.delete_collection(self._name)
            return False

        return self.ask(request)

    def fill(
        self, owner: str, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> None:
        """Writes what the collection lacks at its end, made if it is not there."""
        count, dim = embeddings.shape
        ef_search = _served_ef_search(count)
        made = _Mark(dim, (owner,), ef_search, (self._index,), count)

        def begin(client: Any) -> tuple[Any, int]:
            collection = client.get_or_create_collection(self._name, **_made(ef_search), metadata=made.as_metadata())
            there, mark = int(collection.count()), self._mark_of(collection)
            if there > count or (mark.dim, mark.indexes) != (dim, made.indexes):
                client.delete_collection(self._name)
                return begin(client)
            self._note(collection, owner)
            return collection, there

        collection, there = self.ask(begin)
        self._add(collection, np.arange(there, count), embeddings, labels, progress)
        if (written := self.ask(lambda _: int(collection.count()))) != count:
            raise VectorError(self._unlike(f"it holds {written} vectors instead of {count}"))
        self._found = _Open(collection, 0, False)

    def complete(
        self, owner: str, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> None:
        """Adds what the collection lacks, among rows of other indexes."""
        self.note(owner)  # first: what is added is not dropped by another owner then
        collection = self.ask(self._get)
        lacking = self._lacking(collection, np.arange(self._count))
        added = len(lacking)
        while len(lacking):  # a second time if another build dropped them at the same moment
            self._add(collection, lacking, embeddings, labels, progress)
            lacking = self._lacking(collection, lacking)
        self.note(owner, self._index, added)

    def _lacking(self, collection: Any, rows: Rows) -> Rows:
        there: list[str] = []
        for first in range(0, len(rows), BATCH):
            names = _names(self._keys[rows[first : first + BATCH]])
            there += self.ask(lambda _, names=names: collection.get(ids=names, include=[])["ids"])  # type: ignore[misc]
        return rows[~np.isin(self._keys[rows], _keys(there))]

    def _add(
        self,
        collection: Any,
        rows: Rows,
        embeddings: Floats,
        labels: Sequence[str | None],
        progress: Callable[[int], None],
    ) -> None:
        step = self.ask(lambda client: min(client.get_max_batch_size(), BATCH))
        done = self._count - len(rows)
        for part in (rows[first : first + step] for first in range(0, len(rows), step)):
            # Not `add`: what is repeated may have been written already.
            batch = _batch(part, _names(self._keys[part]), embeddings, labels)
            self.ask(lambda _, batch=batch: collection.upsert(**batch))  # type: ignore[misc]
            done += len(part)
            progress(done)

    def drop_others(self, owner: str) -> int:
        """Removes the rows that are not of this index, if it is nobody's but the owner's; how many they were."""

        def begin(client: Any) -> Any:
            collection = self._get(client)
            mark = self._mark_of(collection)
            if mark.owners != (owner,):
                return None
            collection.modify(metadata=replace(mark, indexes=(self._index,)).as_metadata())
            return collection

        collection, others = self.ask(begin), []
        if collection is None:
            return 0
        page = 10 * BATCH
        for first in range(0, self.ask(lambda _: int(collection.count())), page):
            names = self.ask(lambda _, first=first: collection.get(limit=page, offset=first, include=[])["ids"])  # type: ignore[misc]
            others += _names(np.setdiff1d(_keys(names), self._keys))
        for first in range(0, len(others), BATCH):
            self.ask(lambda _, first=first: collection.delete(ids=others[first : first + BATCH]))  # type: ignore[misc]
        return len(others)

    def widened(self, embeddings: Floats) -> RecallAudit:
        """The audit of the collection, whose search is widened until it is passed."""
        found = self.ask(self._opened)
        ef_search = found.width or min(self._mark_of(found.collection).ef_search, self._count)
        store = VectorStore(self, self._count, self._keys)
        while True:
            audit = store.audit(embeddings, ef_search)
            if audit.recall >= AUDIT_RECALL or ef_search >= self._count:
                return audit
            ef_search = min(2 * ef_search, self._count)
            self._found = replace(found, width=ef_search)
            changed = {"hnsw": {"ef_search": ef_search}}
            self.ask(lambda _, changed=changed: found.collection.modify(configuration=changed))  # type: ignore[misc]

    def rename(self, name: str) -> bool:
        """Gives the filled collection its own name, unless another build was first; whether it did."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> bool:
            try:
                collection = client.get_collection(self._name, embedding_function=None)
            except NotFoundError:  # it has its name already, by another build that wrote the same rows into it
                return False
            try:
                client.get_collection(name, embedding_function=None)
            except NotFoundError:
                collection.modify(name=name)
                return True
            client.delete_collection(self._name)
            return False

        return self.ask(request)

    def note(self, owner: str, index: str | None = None, added: int = 0) -> None:
        """Notes in the collection that it is for `owner`, too, and which index is whole in it, after how many rows."""
        self.ask(lambda client: self._note(self._get(client), owner, index, added))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        # Without a lock, which all would wait for while the server does not answer; the last of two clients stays.
        if self._client is None:
            self._client = _http_client(self._server, self._seconds)
        return self._client

    def _get(self, client: Any) -> Any:
        collection = client.get_collection(self._name, embedding_function=None)
        self._mark_of(collection)
        return collection

    def _opened(self, client: Any) -> _Open:
        found = self._found
        if found is None or time.monotonic() - found.at > REOPENED_SECONDS:
            collection = self._get(client)
            mark = self._mark_of(collection)
            if found is None and (count := collection.count()) < self._count:
                raise VectorError(self._unlike(f"it holds {count} vectors instead of {self._count}"))
            if self._index not in mark.indexes:
                raise VectorError(self._unlike("it holds the vectors of another one"))
            ef_search = (collection.configuration_json.get("hnsw") or {}).get("ef_search", 0)
            width = 0 if ef_search <= mark.ef_search else ef_search
            found = self._found = _Open(collection, width, len(mark.indexes) > 1)
        return found

    def _mark_of(self, collection: Any) -> _Mark:
        mark = _Mark.of(collection)
        if mark is None:
            raise VectorError(self._unlike("imgret did not write it, and leaves it alone"))
        return mark

    def _note(self, collection: Any, owner: str, index: str | None = None, added: int = 0) -> None:
        # Chroma replaces metadata as a whole, so of two who do this in the same moment one may be lost: hence when the
        # writing begins and when it is done.
        mark = self._mark_of(collection)
        owners = mark.owners if owner in mark.owners else (*mark.owners, owner)
        indexes = mark.indexes if index is None or index in mark.indexes else (*mark.indexes, index)[-_NOTED:]
        noted = replace(mark, owners=owners, indexes=indexes, written=mark.written + added)
        if noted != mark:
            collection.modify(metadata=noted.as_metadata())

    def _unlike(self, why: str) -> str:
        return (
            f"The collection {self._name} on the Chroma server at {self._server.url} is not that of this index "
            f"({why}); delete it and build the index again."
        )

    def _told(self, error: Exception) -> str:
        import httpx
        from chromadb import errors

        cause, status = _cause_of(error)
        server = f"The Chroma server at {self._server.url}"
        if isinstance(cause, TimeoutError | httpx.TimeoutException):
            return f"{server} does not answer; try again when it does."
        if isinstance(cause, errors.NotFoundError):
            return f"{server} has no collection {self._name}, which this index needs; build the index again."
        if isinstance(cause, errors.InvalidDimensionException) or "dimension" in str(cause):
            return self._unlike(in_short(cause))
        if status in (401, 403) or isinstance(cause, errors.ChromaAuthError | errors.AuthorizationError):
            return f"{server} does not take the token; set IMGRET_CHROMA_TOKEN to one that it knows."
        short = f"HTTP {status}" if status else in_short(cause).replace(self._server.token or "\0", "***")
        if isinstance(cause, httpx.TransportError):
            return f"{server} cannot be reached ({short}); start it or correct IMGRET_CHROMA_URL."
        return f"{server} cannot do what it was asked ({short})."


def _http_client(server: ChromaServer, seconds: float) -> Any:
    import chromadb
    import httpx
    from chromadb.config import Settings

    if urlsplit(server.url).hostname == CLOUD:
        client = chromadb.CloudClient(api_key=server.token, settings=Settings(anonymized_telemetry=False))
    else:
        # Chroma's own releases before 1.0 take either header; so do the proxies that look after the later ones.
        token = server.token
        headers = {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else {}
        # The client's first requests, sent while it is made, have no time-out; this one has.
        probe = httpx.get(f"{server.url}/api/v2/heartbeat", headers=headers, timeout=PROBE_SECONDS)
        probe.raise_for_status()
        # Said, because Chroma takes what is not said from variables such as CHROMA_SERVER_HOST.
        settings = Settings(anonymized_telemetry=False, chroma_server_host=server.url, chroma_server_http_port=8000)
        client = chromadb.HttpClient(server.url, headers=headers, settings=settings)
    # https://github.com/chroma-core/chroma/issues/5805: there is no setting. `_within` ends the waiting; this ends the
    # thread that it leaves behind.
    client._server._session.timeout = seconds  # type: ignore[attr-defined]
    return client


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """What `ask` returns. Raises TimeoutError after `seconds`, however it spends them: httpx bounds neither the look-up
    of a name nor an answer that comes in drops.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="chroma", daemon=True).start()
    return answer.result(seconds)


def _cause_of(error: BaseException) -> tuple[BaseException, int | None]:
    """What httpx raised, which Chroma's client turns into errors without a kind, and the status of the answer."""
    import httpx

    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, httpx.HTTPError):
        inner = inner.__context__
    if isinstance(inner, httpx.HTTPStatusError):
        return error, inner.response.status_code
    return inner or error, None


def _is_away(error: BaseException) -> bool:
    """Whether a server that restarts would fail like this."""
    import httpx

    cause, status = _cause_of(error)
    return status in _AWAY or (
        isinstance(cause, httpx.TransportError) and not isinstance(cause, httpx.TimeoutException)
    )


def _every_collection(client: Any) -> list[Any]:
    every: list[Any] = []
    while page := client.list_collections(limit=100, offset=len(every)):
        every += page
    return every


def _first_ef_search(count: int) -> int:
    return count if FIRST_EF_SEARCH < count <= SMALL else FIRST_EF_SEARCH


def _served_ef_search(count: int) -> int:
    """What a collection on a server is made with, as it cannot be raised there without a restart: a little more than
    the audit asked for of 10,000, 100,000 and 1,000,000 embeddings by `starter`.
    """
    return max(_first_ef_search(count), round(1.3 * math.sqrt(count)))


def _made(ef_search: int) -> dict[str, Any]:
    return {"embedding_function": None, "configuration": {"hnsw": HNSW | {"ef_search": ef_search}}}


def _batch(rows: Rows, names: list[str], embeddings: Floats, labels: Sequence[str | None]) -> dict[str, Any]:
    of_rows = (labels[row] for row in rows)
    return {
        "ids": names,
        "embeddings": np.asarray(embeddings[rows]),
        "metadatas": [None if label is None else {_LABEL: label} for label in of_rows],
    }


def _names(keys: Keys | Rows) -> list[str]:
    return [str(key) for key in keys]


def _keys(names: list[str]) -> Keys:
    return np.array([int(name) for name in names], np.uint64)


def _working_copy(folder: Path, copy: Path) -> None:
    copy.mkdir()
    for path in folder.iterdir():
        if not path.is_dir():
            shutil.copyfile(path, copy / path.name)
        elif (path / METADATA).exists():
            (copy / path.name).symlink_to(path.resolve(), target_is_directory=True)
        else:
            # Below 1,000 rows Chroma has not written its graph yet: it makes these files anew at the first query.
            shutil.copytree(path, copy / path.name)


def _check(copy: Path, dim: int) -> None:
    """Raises ValueError where Chroma would leave its memory: it takes the database's word for the width of a vector."""
    with closing(sqlite3.connect(copy / DATABASE)) as database:
        widths = database.execute("SELECT dimension FROM collections WHERE dimension IS NOT NULL").fetchall()
        lengths = database.execute("SELECT DISTINCT length(vector) FROM embeddings_queue WHERE vector IS NOT NULL")
        if set(widths) != {(dim,)} or not {(4 * dim,)}.issuperset(lengths):
            raise ValueError(f"they are not {dim} numbers each")
    for path in copy.iterdir():
        if (path / METADATA).exists():
            check_graph(path, dim, HNSW["max_neighbors"])


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
