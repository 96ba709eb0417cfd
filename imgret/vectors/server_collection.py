"""A collection on a Chroma server: how it is written, shared by several indexes, extended and pruned.

A new collection is written under a draft name, counted and audited, and renamed last: a reader never finds half of one.
Each vector's id is a hash of its image and label. A collection may hold the vectors of several indexes; readers ignore
ids that they do not know. An index that grew adds what is new to the collection that it had.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from imgret.errors import one_line
from imgret.vectors.base import (
    AUDIT_RECALL,
    BATCH,
    SMALL,
    Floats,
    Keys,
    RecallAudit,
    Rows,
    VectorError,
    batch_of,
    creation_options,
    first_ef_search,
    keys_named,
    names_of,
)
from imgret.vectors.server import ChromaServer, cause_of, http_client, is_away, within

T = TypeVar("T")

DRAFT = "-draft"
MAX_STRANGE = 0.25
"""The share of a library that may be new to a collection, or no longer used in it, for the collection to be
extended.
"""

ANSWER_SECONDS, PATIENCE_SECONDS = 10.0, 4.0
"""How long a query may take, and how long to retry while the server is away; a restart takes less."""
BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS = 120.0, 60.0

REOPENED_SECONDS = 60.0
"""How long a reader may use a collection before it checks again what is in it."""

_NO_KEYS = np.empty(0, np.uint64)
_METADATA_KEY = "imgret"
_NOTED = 100
"""How many indexes are noted in one collection."""


def collection_of(content: str) -> str:
    """The name of the collection for an index whose data have the hash `content`, on any server."""
    return f"imgret-{content}"


def keys_of(contents: Iterable[str], labels: Sequence[str | None]) -> Keys:
    """The ids of vectors on a server, (N,) uint64, hashes of a picture's content and label. They do not depend on the
    rest of the library. All differ, but for a chance of one in ten million for a million pictures.
    """
    hashes = (
        hashlib.blake2b(ascii(pair).encode(), digest_size=8).digest() for pair in zip(contents, labels, strict=True)
    )
    keys = np.frombuffer(b"".join(hashes), np.uint64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # A picture that occurs twice is two rows; the second one gets another key.
    firsts = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    repeats = np.arange(len(keys)) - np.repeat(firsts, np.diff(firsts, append=len(keys)))
    found = np.empty_like(keys)
    found[order] = ordered + repeats.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return found


def _hash_of(keys: Keys) -> str:
    """A hash of the set of keys; their order does not matter."""
    return hashlib.blake2b(np.sort(keys).tobytes(), digest_size=8).hexdigest()


def ping(server: ChromaServer) -> None:
    """Raises VectorError if `server` does not answer."""
    asked = ServerCollection(server, "")
    try:
        asked.ask(lambda client: client.heartbeat())
    finally:
        asked.close()


def can_grow(server: ChromaServer, name: str, old: Keys, new: Keys) -> bool:
    """Whether rows with the keys `new` should be added to the collection `name`, which holds `old`. A new collection is
    better if too many rows are new, or too many in the old one are no longer used. Raises VectorError.
    """
    if len(new) <= SMALL:  # anew in a second
        return False
    asked = ServerCollection(server, name, old, BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)
    try:
        note = asked.read_note()
    finally:
        asked.close()
    if note is None or _hash_of(old) not in note.indexes:
        return False
    stay = int(np.isin(new, old).sum())
    return max(len(new), note.written) - stay <= MAX_STRANGE * len(new)


def drop(server: ChromaServer, owner: str, keep: str, keys: Keys) -> int:
    """Drops what `owner` wrote to `server`, except the rows with `keys` in the collection `keep`; returns how many
    collections and rows it dropped. Rows that other owners wrote too stay. Raises VectorError.
    """
    asked = ServerCollection(server, keep, keys, BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)

    def request(client: Any) -> int:
        dropped = 0
        for collection in _every_collection(client):
            note = _CollectionNote.of(collection)
            if note is None or owner not in note.owners or collection.name == keep:
                continue
            others = tuple(other for other in note.owners if other != owner)
            if others:
                collection.modify(metadata=replace(note, owners=others).as_metadata())
            else:
                client.delete_collection(collection.name)
                dropped += 1
        return dropped

    try:
        return asked.ask(request) + asked.drop_others(owner)
    finally:
        asked.close()


@dataclass(frozen=True)
class _CollectionNote:
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
        return {_METADATA_KEY: json.dumps(asdict(self))}

    @classmethod
    def of(cls, collection: Any) -> "_CollectionNote | None":
        try:
            values = json.loads((collection.metadata or {})[_METADATA_KEY])
            return cls(**values | {"owners": tuple(values["owners"]), "indexes": tuple(values.get("indexes", ()))})
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class _OpenCollection:
    """A collection on a server; how many neighbours to ask it for at least, and whether other indexes are in it.

    A server keeps the `ef_search` that it first opened a collection with; to ask for more neighbours widens the search
    alike, and costs 4 microseconds each.
    """

    collection: Any
    width: int
    shared: bool
    at: float = field(default_factory=time.monotonic)


class ServerCollection:
    """The collection `name` on a server.

    It connects for the first request. Each request has a time limit, and is repeated while the server is away.
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
        self._found: _OpenCollection | None = None

    def ask(self, request: Callable[[Any], T]) -> T:
        """Returns what `request` returns for the client. Raises VectorError."""
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

        patient = Retrying(
            retry=retry_if_exception(is_away),
            stop=stop_after_delay(self._patience),
            wait=wait_exponential(0.1, max=1),
            reraise=True,
        )
        try:
            return patient(within, self._seconds, lambda: request(self._connected()))
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

    def read_note(self) -> _CollectionNote | None:
        """The note of imgret in the metadata of the collection, or None."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> _CollectionNote | None:
            try:
                return _CollectionNote.of(client.get_collection(self._name, embedding_function=None))
            except NotFoundError:
                return None

        return self.ask(request)

    def is_there(self, dim: int) -> bool:
        """Whether the collection exists. One of another width or without a complete index is dropped."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> bool:
            try:
                note = self._note_of(client.get_collection(self._name, embedding_function=None))
            except NotFoundError:
                return False
            if note.indexes and note.dim == dim:
                return True
            client.delete_collection(self._name)
            return False

        return self.ask(request)

    def create(
        self, owner: str, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> None:
        """Creates the collection, or continues one that was cut off, and writes the rows that it lacks."""
        count, dim = embeddings.shape
        ef_search = _served_ef_search(count)
        made = _CollectionNote(dim, (owner,), ef_search, (self._index,), count)

        def begin(client: Any) -> tuple[Any, int]:
            collection = client.get_or_create_collection(
                self._name, **creation_options(ef_search), metadata=made.as_metadata()
            )
            there, note = int(collection.count()), self._note_of(collection)
            if there > count or (note.dim, note.indexes) != (dim, made.indexes):
                client.delete_collection(self._name)
                return begin(client)
            self._write_note(collection, owner)
            return collection, there

        collection, there = self.ask(begin)
        self._add(collection, np.arange(there, count), embeddings, labels, progress)
        if (written := self.ask(lambda _: int(collection.count()))) != count:
            raise VectorError(self._unlike(f"it holds {written} vectors instead of {count}"))
        self._found = _OpenCollection(collection, 0, False)

    def append(
        self, owner: str, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> None:
        """Adds the rows that the collection lacks to those of other indexes."""
        self.add_note(owner)  # first: what is added is not dropped by another owner then
        collection = self.ask(self._get)
        lacking = self._lacking(collection, np.arange(self._count))
        added = len(lacking)
        while len(lacking):  # a second time if another build dropped them at the same moment
            self._add(collection, lacking, embeddings, labels, progress)
            lacking = self._lacking(collection, lacking)
        self.add_note(owner, self._index, added)

    def _lacking(self, collection: Any, rows: Rows) -> Rows:
        there: list[str] = []
        for first in range(0, len(rows), BATCH):
            names = names_of(self._keys[rows[first : first + BATCH]])
            there += self.ask(lambda _, names=names: collection.get(ids=names, include=[])["ids"])  # type: ignore[misc]
        return rows[~np.isin(self._keys[rows], keys_named(there))]

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
            batch = batch_of(part, names_of(self._keys[part]), embeddings, labels)
            self.ask(lambda _, batch=batch: collection.upsert(**batch))  # type: ignore[misc]
            done += len(part)
            progress(done)

    def drop_others(self, owner: str) -> int:
        """Removes rows of other indexes, if `owner` is the only owner; returns how many."""

        def begin(client: Any) -> Any:
            collection = self._get(client)
            note = self._note_of(collection)
            if note.owners != (owner,):
                return None
            collection.modify(metadata=replace(note, indexes=(self._index,)).as_metadata())
            return collection

        collection, others = self.ask(begin), []
        if collection is None:
            return 0
        page = 10 * BATCH
        for first in range(0, self.ask(lambda _: int(collection.count())), page):
            names = self.ask(lambda _, first=first: collection.get(limit=page, offset=first, include=[])["ids"])  # type: ignore[misc]
            others += names_of(np.setdiff1d(keys_named(names), self._keys))
        for first in range(0, len(others), BATCH):
            self.ask(lambda _, first=first: collection.delete(ids=others[first : first + BATCH]))  # type: ignore[misc]
        return len(others)

    def tune_ef_search(self, audit: Callable[[int], RecallAudit]) -> RecallAudit:
        """Raises `ef_search` until the recall of `audit(ef_search)` is high enough; returns the last audit."""
        found = self.ask(self._opened)
        ef_search = found.width or min(self._note_of(found.collection).ef_search, self._count)
        while True:
            audited = audit(ef_search)
            if audited.recall >= AUDIT_RECALL or ef_search >= self._count:
                return audited
            ef_search = min(2 * ef_search, self._count)
            self._found = replace(found, width=ef_search)
            changed = {"hnsw": {"ef_search": ef_search}}
            self.ask(lambda _, changed=changed: found.collection.modify(configuration=changed))  # type: ignore[misc]

    def rename(self, name: str) -> bool:
        """Renames the complete draft to `name`, unless another build was first. Returns whether it did."""
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

    def add_note(self, owner: str, index: str | None = None, added: int = 0) -> None:
        """Adds `owner`, the complete `index`, and the number of `added` rows to the note of the collection."""
        self.ask(lambda client: self._write_note(self._get(client), owner, index, added))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        # No lock here: all threads would wait for it while the server does not answer. The last of two clients stays.
        if self._client is None:
            self._client = http_client(self._server, self._seconds)
        return self._client

    def _get(self, client: Any) -> Any:
        collection = client.get_collection(self._name, embedding_function=None)
        self._note_of(collection)
        return collection

    def _opened(self, client: Any) -> _OpenCollection:
        found = self._found
        if found is None or time.monotonic() - found.at > REOPENED_SECONDS:
            collection = self._get(client)
            note = self._note_of(collection)
            if found is None and (count := collection.count()) < self._count:
                raise VectorError(self._unlike(f"it holds {count} vectors instead of {self._count}"))
            if self._index not in note.indexes:
                raise VectorError(self._unlike("it holds the vectors of another one"))
            ef_search = (collection.configuration_json.get("hnsw") or {}).get("ef_search", 0)
            width = 0 if ef_search <= note.ef_search else ef_search
            found = self._found = _OpenCollection(collection, width, len(note.indexes) > 1)
        return found

    def _note_of(self, collection: Any) -> _CollectionNote:
        note = _CollectionNote.of(collection)
        if note is None:
            raise VectorError(self._unlike("imgret did not write it, and leaves it alone"))
        return note

    def _write_note(self, collection: Any, owner: str, index: str | None = None, added: int = 0) -> None:
        # Chroma replaces metadata as a whole, so of two who do this in the same moment one may be lost: hence when the
        # writing begins and when it is done.
        note = self._note_of(collection)
        owners = note.owners if owner in note.owners else (*note.owners, owner)
        indexes = note.indexes if index is None or index in note.indexes else (*note.indexes, index)[-_NOTED:]
        noted = replace(note, owners=owners, indexes=indexes, written=note.written + added)
        if noted != note:
            collection.modify(metadata=noted.as_metadata())

    def _unlike(self, why: str) -> str:
        return (
            f"The collection {self._name} on the Chroma server at {self._server.url} is not that of this index "
            f"({why}); delete it and build the index again."
        )

    def _told(self, error: Exception) -> str:
        import httpx
        from chromadb import errors

        cause, status = cause_of(error)
        server = f"The Chroma server at {self._server.url}"
        if isinstance(cause, TimeoutError | httpx.TimeoutException):
            return f"{server} does not answer; try again when it does."
        if isinstance(cause, errors.NotFoundError):
            return f"{server} has no collection {self._name}, which this index needs; build the index again."
        if isinstance(cause, errors.InvalidDimensionException) or "dimension" in str(cause):
            return self._unlike(one_line(cause))
        if status in (401, 403) or isinstance(cause, errors.ChromaAuthError | errors.AuthorizationError):
            return f"{server} does not take the token; set IMGRET_CHROMA_TOKEN to one that it knows."
        short = f"HTTP {status}" if status else one_line(cause).replace(self._server.token or "\0", "***")
        if isinstance(cause, httpx.TransportError):
            return f"{server} cannot be reached ({short}); start it or correct IMGRET_CHROMA_URL."
        return f"{server} cannot do what it was asked ({short})."


def _every_collection(client: Any) -> list[Any]:
    every: list[Any] = []
    while page := client.list_collections(limit=100, offset=len(every)):
        every += page
    return every


def _served_ef_search(count: int) -> int:
    """What a collection on a server is made with, as it cannot be raised there without a restart: a little more than
    the audit asked for of 10,000, 100,000 and 1,000,000 embeddings by `starter`.
    """
    return max(first_ef_search(count), round(1.3 * math.sqrt(count)))
