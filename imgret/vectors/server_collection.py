"""A collection on a Chroma server: how it is written, searched and dropped.

A collection holds the vectors of one index and is named after its content, so that equal indexes share it. It is
written under a draft name, counted and audited, and renamed last: a reader never finds half of one.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from imgret.errors import Sentence, one_line
from imgret.vectors.base import (
    AUDIT_RECALL,
    BATCH,
    Floats,
    RecallAudit,
    VectorError,
    batch_of,
    creation_options,
    first_ef_search,
)
from imgret.vectors.server import ChromaServer, cause_of, http_client, is_away, within

T = TypeVar("T")

DRAFT = "-draft"
ANSWER_SECONDS, PATIENCE_SECONDS = 10.0, 4.0
"""How long a query may take, and how long to retry while the server is away; a restart takes less."""
BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS = 120.0, 60.0
OWNER_SECONDS = 0.2
"""How long after noting an owner to look whether another build has overwritten the note."""

_METADATA_KEY = "imgret"


def collection_of(content: str) -> str:
    """The name of the collection for an index whose data have the hash `content`, on any server."""
    return f"imgret-{content}"


def ping(server: ChromaServer) -> None:
    """Raises VectorError if `server` does not answer."""
    with closing(ServerCollection(server, "", 0)) as connection:
        connection.ask(lambda client: client.heartbeat())


def drop(server: ChromaServer, owner: str, keep: Sequence[str]) -> None:
    """Drops the collections that `owner` wrote to `server`, except those named in `keep`. A collection that others
    wrote too stays for them. Raises VectorError.
    """

    def request(client: Any) -> None:
        for collection in _every_collection(client):
            note = _CollectionNote.of(collection)
            if note is None or owner not in note.owners or collection.name in keep:
                continue
            if others := tuple(other for other in note.owners if other != owner):
                collection.modify(metadata=replace(note, owners=others).as_metadata())
            else:
                client.delete_collection(collection.name)

    with closing(ServerCollection(server, "", 0, BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)) as connection:
        connection.ask(request)


@dataclass(frozen=True)
class _CollectionNote:
    """What imgret notes in the metadata of a collection on a server.

    Its width, its number of rows, who wrote it, and the `ef_search` that it was made with, which the server keeps until
    it is restarted.
    """

    dim: int
    count: int
    owners: tuple[str, ...]
    ef_search: int

    def as_metadata(self) -> dict[str, str]:
        return {_METADATA_KEY: json.dumps(asdict(self))}

    @classmethod
    def of(cls, collection: Any) -> "_CollectionNote | None":
        try:
            values = json.loads((collection.metadata or {})[_METADATA_KEY])
            return cls(values["dim"], values.get("count", 0), tuple(values["owners"]), values.get("ef_search", 0))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class _OpenCollection:
    """A collection on a server, and how many neighbours to ask it for at least.

    A server keeps the `ef_search` that it first opened a collection with; to ask for more neighbours widens the search
    alike, and costs 4 microseconds each.
    """

    collection: Any
    width: int


class ServerCollection:
    """The collection `name` of `count` rows on a server, whose ids are the row numbers.

    It connects for the first request. Each request has a time limit, and is repeated while the server is away.
    """

    def __init__(
        self, server: ChromaServer, name: str, count: int, seconds: float | None = None, patience: float | None = None
    ) -> None:
        self._server, self._name, self._count = server, name, count
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
            raise self._refusal(error) from error

    def nearest(self, vectors: list[Floats], k: int, where: Any) -> list[list[str]]:
        from chromadb.errors import NotFoundError

        def request(client: Any) -> list[list[str]]:
            known = self._found
            opened = self._opened(client)
            width = max(k, opened.width)
            try:
                found = opened.collection.query(query_embeddings=vectors, n_results=width, where=where, include=[])
            except NotFoundError:
                if known is None:
                    raise
                self._found = None  # dropped, and perhaps written anew
                return request(client)
            return list(found["ids"])

        return self.ask(request)

    def is_there(self, dim: int) -> bool:
        """Whether the collection exists, whole and of width `dim`. One that imgret wrote and that is not is dropped."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> bool:
            try:
                collection = client.get_collection(self._name, embedding_function=None)
            except NotFoundError:
                return False
            note = self._note_of(collection)
            if (note.dim, note.count, collection.count()) == (dim, self._count, self._count):
                return True
            client.delete_collection(self._name)
            return False

        return self.ask(request)

    def create(
        self, owner: str, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> None:
        """Creates the collection, or continues one that was cut off, and writes the rows that it lacks."""
        count, dim = embeddings.shape
        note = _CollectionNote(dim, count, (owner,), _served_ef_search(count))

        def begin(client: Any) -> tuple[Any, int]:
            collection = client.get_or_create_collection(
                self._name, **creation_options(note.ef_search), metadata=note.as_metadata()
            )
            there, its = int(collection.count()), self._note_of(collection)
            if there > count or (its.dim, its.count) != (dim, count):
                client.delete_collection(self._name)
                return begin(client)
            self._add_owner(collection, owner)
            return collection, there

        collection, there = self.ask(begin)
        step = self.ask(lambda client: min(client.get_max_batch_size(), BATCH))
        for first in range(there, count, step):
            # Not `add`: what is repeated may have been written already.
            batch = batch_of(np.arange(first, min(first + step, count)), embeddings, labels)
            self.ask(lambda _, batch=batch: collection.upsert(**batch))  # type: ignore[misc]
            progress(min(first + step, count))
        if (written := self.ask(lambda _: int(collection.count()))) != count:
            raise self._unlike("it holds {written} vectors instead of {count}", written=written, count=count)
        self._found = _OpenCollection(collection, 0)

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

    def add_owner(self, owner: str) -> None:
        """Notes that `owner` uses the collection."""
        while self.ask(lambda client: self._add_owner(self._get(client), owner)):
            time.sleep(OWNER_SECONDS)

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
        if self._found is None:
            collection = self._get(client)
            note = self._note_of(collection)
            if note.count != self._count:
                raise self._unlike("it holds the vectors of another one")
            if (count := collection.count()) != self._count:
                raise self._unlike("it holds {written} vectors instead of {count}", written=count, count=self._count)
            ef_search = (collection.configuration_json.get("hnsw") or {}).get("ef_search", 0)
            self._found = _OpenCollection(collection, 0 if ef_search <= note.ef_search else ef_search)
        return self._found

    def _note_of(self, collection: Any) -> _CollectionNote:
        note = _CollectionNote.of(collection)
        if note is None:
            raise self._unlike("imgret did not write it, and leaves it alone")
        return note

    def _add_owner(self, collection: Any, owner: str) -> bool:
        """Adds `owner` to the note of `collection`. Returns whether it was missing."""
        # Chroma replaces metadata as a whole, so of two who do this in the same moment one may be lost: hence
        # `add_owner` looks again.
        note = self._note_of(collection)
        if owner in note.owners:
            return False
        collection.modify(metadata=replace(note, owners=(*note.owners, owner)).as_metadata())
        return True

    def _unlike(self, reason: str, /, **values: object) -> VectorError:
        return VectorError(
            "The collection {name} on the Chroma server at {url} is not that of this index ({reason}); delete it and "
            "build the index again.",
            name=self._name,
            url=self._server.url,
            reason=Sentence(reason, **values),
        )

    def _refusal(self, error: Exception) -> VectorError:
        """What a user is told about an error of Chroma's client."""
        import httpx
        from chromadb import errors

        cause, status = cause_of(error)
        url = self._server.url
        if isinstance(cause, TimeoutError | httpx.TimeoutException):
            return VectorError("The Chroma server at {url} does not answer; try again when it does.", url=url)
        if isinstance(cause, errors.NotFoundError):
            return VectorError(
                "The Chroma server at {url} has no collection {name}, which this index needs; build the index again.",
                url=url,
                name=self._name,
            )
        if isinstance(cause, errors.InvalidDimensionException) or "dimension" in str(cause):
            return self._unlike("Chroma says: {error}", error=one_line(cause))
        if status in (401, 403) or isinstance(cause, errors.ChromaAuthError | errors.AuthorizationError):
            return VectorError(
                "The Chroma server at {url} does not take the token; set IMGRET_CHROMA_TOKEN to one that it knows.",
                url=url,
            )
        short = f"HTTP {status}" if status else one_line(cause).replace(self._server.token or "\0", "***")
        if isinstance(cause, httpx.TransportError):
            return VectorError(
                "The Chroma server at {url} cannot be reached ({reason}); start it or correct IMGRET_CHROMA_URL.",
                url=url,
                reason=short,
            )
        return VectorError("The Chroma server at {url} cannot do what it was asked ({reason}).", url=url, reason=short)


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
