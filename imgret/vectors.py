"""Which embeddings are nearest to a vector? One Chroma collection, and the audit of how many neighbours it misses.

The collection lies in the index folder, in Chroma's embedded store, or on a Chroma server under the name of what it
holds. On a server it is written under another name, is counted and audited there, and gets its own name last: whoever
finds a collection finds the whole of it.
"""

import json
import math
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
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

DATABASE, COLLECTION = "chroma.sqlite3", "embeddings"
HNSW: dict[str, Any] = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32}
FIRST_EF_SEARCH = 100
SMALL = 1000
"""Up to so many rows the search is as wide as the collection from the start: it costs next to nothing, and Chroma makes
such a graph anew at each open, not always the same one. Texts lie further from pictures than the audit's queries do.
"""
AUDIT_QUERIES, AUDIT_K, AUDIT_RECALL, AUDIT_TOLERANCE = 256, 10, 0.99, 1e-6
BATCH = 1000
PROBES, PROBE_TOLERANCE = 16, 1e-4
"""A graph may miss a row or two of these, a strange or a damaged one misses all."""

ANSWER_SECONDS, PATIENCE_SECONDS = 10.0, 4.0
"""How long a server may take to answer a query, and how long one that is away is asked again: a restart takes less."""
BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS = 120.0, 60.0
PROBE_SECONDS = 5.0
CLOUD = "api.trychroma.com"

_LABEL = "label"
_MARK, _DRAFT = "imgret", "-draft"
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


class VectorStore:
    """A Chroma collection of N embeddings, numbered by row.

    Opened with `open`, made with `create`; on a server with `connect` and `write`. Safe to ask from several threads.
    """

    def __init__(self, source: "_Embedded | _Served", count: int) -> None:
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
        for batch in _batches(embeddings, labels, min(client.get_max_batch_size(), BATCH)):
            collection.add(**batch)
            progress(int(batch["ids"][-1]) + 1)
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
    def connect(cls, server: ChromaServer, name: str, count: int) -> "VectorStore":
        """The collection `name` of `count` rows on `server`, which is asked for it by the first query, and anew by each
        that finds it gone.
        """
        return cls(_Served(server, name, count), count)

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
        """`create` on a server, in the collection `name`; one that is there and whole is taken as it is.

        It gets that name once it is counted and audited. Until then it is a draft, whose rows are the first ones at any
        moment: a later call goes on where one was cut off, and two at once write the same rows. `owner` is added to
        those that `drop` asks. Raises VectorError.
        """
        final, draft = (
            _Served(server, called, len(embeddings), BUILD_ANSWER_SECONDS, BUILD_PATIENCE_SECONDS)
            for called in (name, name + _DRAFT)
        )
        try:
            if final.is_whole(embeddings.shape[1]):
                progress(len(embeddings))
                audit = final.widened(embeddings)
            else:
                draft.fill(owner, embeddings, labels, progress)
                audit = draft.widened(embeddings)
                draft.rename(name)
            final.add_owner(owner)
            return audit
        finally:
            final.close()
            draft.close()

    def query(self, vector: Floats, k: int, labels: Sequence[str] | None = None) -> Rows:
        """Rows of the `k` nearest to `vector` (d,), nearest first, only those labelled with one of `labels` if given.

        At most (k,) int64.
        """
        where = None if labels is None else {_LABEL: {"$in": list(labels)}}
        names = self._source.nearest([np.asarray(vector, dtype=np.float32)], k, where)[:k]
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
        """Lets go of the files or the connection; the store cannot be asked any more."""
        self._source.close()


def reach(server: ChromaServer) -> None:
    """Raises VectorError if `server` does not answer."""
    asked = _Served(server, "", 0)
    try:
        asked.ask(lambda client: client.heartbeat())
    finally:
        asked.close()


def drop(server: ChromaServer, owner: str, keep: str) -> list[str]:
    """Drops what `owner` wrote on `server`, whole or cut off, besides the collection `keep`; their names.

    A collection that others wrote, too, stays for them. Raises VectorError.
    """
    asked = _Served(server, keep, 0)

    def request(client: Any) -> list[str]:
        dropped = []
        for collection in _every_collection(client):
            mark = _Mark.of(collection)
            if mark is None or owner not in mark.owners or collection.name == keep:
                continue
            others = tuple(other for other in mark.owners if other != owner)
            if others:
                collection.modify(metadata=replace(mark, owners=others).as_metadata())
            else:
                client.delete_collection(collection.name)
                dropped.append(collection.name)
        return dropped

    try:
        return asked.ask(request)
    finally:
        asked.close()


@dataclass(frozen=True)
class _Mark:
    """What imgret notes in the metadata of a collection on a server: its width, for whom it is, and the `ef_search` it
    was made with, which the server keeps until it is restarted.
    """

    dim: int
    owners: tuple[str, ...]
    ef_search: int = FIRST_EF_SEARCH

    def as_metadata(self) -> dict[str, str]:
        return {_MARK: json.dumps(asdict(self))}

    @classmethod
    def of(cls, collection: Any) -> "_Mark | None":
        try:
            values = json.loads((collection.metadata or {})[_MARK])
            return cls(values["dim"], tuple(values["owners"]), int(values.get("ef_search", FIRST_EF_SEARCH)))
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


class _Served:
    """The collection `name` on a server.

    Connected to when first asked; each request is bounded in time, and repeated while the server is away.
    """

    def __init__(
        self, server: ChromaServer, name: str, count: int, seconds: float | None = None, patience: float | None = None
    ) -> None:
        self._server, self._name, self._count = server, name, count
        self._seconds = ANSWER_SECONDS if seconds is None else seconds
        self._patience = PATIENCE_SECONDS if patience is None else patience
        self._client: Any = None
        self._found: tuple[Any, int] | None = None

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
            collection, width = self._opened(client)
            try:
                found = collection.query(query_embeddings=vectors, n_results=max(k, width), where=where, include=[])
            except NotFoundError:
                if known is None:
                    raise
                self._found = None  # dropped, and perhaps written anew
                return request(client)
            return list(found["ids"][0])

        return self.ask(request)

    def is_whole(self, dim: int) -> bool:
        """Whether the collection is there; one that was damaged is dropped."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> bool:
            try:
                collection = client.get_collection(self._name, embedding_function=None)
            except NotFoundError:
                return False
            if (collection.count(), self._mark_of(collection).dim) == (self._count, dim):
                return True
            client.delete_collection(self._name)
            return False

        return self.ask(request)

    def fill(
        self, owner: str, embeddings: Floats, labels: Sequence[str | None], progress: Callable[[int], None]
    ) -> None:
        """Writes what the collection lacks, made if it is not there."""
        count, dim = embeddings.shape

        def begin(client: Any) -> tuple[Any, int, int]:
            ef_search = _served_ef_search(count)
            mark = _Mark(dim, (owner,), ef_search)
            collection = client.get_or_create_collection(self._name, **_made(ef_search), metadata=mark.as_metadata())
            there = collection.count()
            if there > count or self._mark_of(collection).dim != dim:
                client.delete_collection(self._name)
                return begin(client)
            self._note(collection, owner)
            return collection, there, min(client.get_max_batch_size(), BATCH)

        collection, there, step = self.ask(begin)
        for batch in _batches(embeddings, labels, step, there):
            # Not `add`: what is repeated may have been written already.
            self.ask(lambda _, batch=batch: collection.upsert(**batch))  # type: ignore[misc]
            progress(int(batch["ids"][-1]) + 1)
        if (written := self.ask(lambda _: int(collection.count()))) != count:
            raise VectorError(self._unlike(f"it holds {written} vectors instead of {count}"))
        self._found = collection, 0

    def widened(self, embeddings: Floats) -> RecallAudit:
        """The audit of the collection, whose search is widened until it is passed."""
        collection, width = self.ask(self._opened)
        ef_search = width or min(self._mark_of(collection).ef_search, self._count)
        while True:
            audit = VectorStore(self, len(embeddings)).audit(embeddings, ef_search)
            if audit.recall >= AUDIT_RECALL or ef_search >= self._count:
                return audit
            ef_search = min(2 * ef_search, self._count)
            self._found = collection, ef_search
            changed = {"hnsw": {"ef_search": ef_search}}
            self.ask(lambda _, changed=changed: collection.modify(configuration=changed))  # type: ignore[misc]

    def rename(self, name: str) -> None:
        """Gives the filled collection its own name, unless another build was first with the same content."""
        from chromadb.errors import NotFoundError

        def request(client: Any) -> None:
            try:
                collection = client.get_collection(self._name, embedding_function=None)
            except NotFoundError:  # it has its name already, by another build that wrote the same rows into it
                return
            try:
                first = client.get_collection(name, embedding_function=None)
            except NotFoundError:
                collection.modify(name=name)
                return
            if first.id != collection.id:
                client.delete_collection(self._name)

        self.ask(request)

    def add_owner(self, owner: str) -> None:
        """Notes in the collection that it is for `owner`, too."""
        self.ask(lambda client: self._note(client.get_collection(self._name, embedding_function=None), owner))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        # Without a lock, which all would wait for while the server does not answer; the last of two clients stays.
        if self._client is None:
            self._client = _http_client(self._server, self._seconds)
        return self._client

    def _opened(self, client: Any) -> tuple[Any, int]:
        """The collection, and how many neighbours to ask it for at least.

        A server keeps the `ef_search` that it first opened a collection with; to ask for more neighbours widens the
        search alike, and costs 4 microseconds each.
        """
        if self._found is None:
            collection = client.get_collection(self._name, embedding_function=None)
            mark = self._mark_of(collection)
            if (count := collection.count()) != self._count:
                raise VectorError(self._unlike(f"it holds {count} vectors instead of {self._count}"))
            ef_search = (collection.configuration_json.get("hnsw") or {}).get("ef_search", 0)
            self._found = collection, 0 if ef_search <= mark.ef_search else ef_search
        return self._found

    def _mark_of(self, collection: Any) -> _Mark:
        mark = _Mark.of(collection)
        if mark is None:
            raise VectorError(self._unlike("imgret did not write it, and leaves it alone"))
        return mark

    def _note(self, collection: Any, owner: str) -> None:
        # Chroma replaces metadata as a whole, so of two who do this in the same moment one may be lost: hence when the
        # writing begins and when it is done.
        mark = self._mark_of(collection)
        if owner not in mark.owners:
            collection.modify(metadata=replace(mark, owners=(*mark.owners, owner)).as_metadata())

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
    """What a collection on a server is made with, as it cannot be raised there without a restart: what the audit asked
    for of 100,000 and 1,000,000 embeddings, twice as much for ten times as many rows.
    """
    return _first_ef_search(count) if count <= SMALL else round(FIRST_EF_SEARCH * 2 ** math.log10(count / SMALL))


def _made(ef_search: int) -> dict[str, Any]:
    return {"embedding_function": None, "configuration": {"hnsw": HNSW | {"ef_search": ef_search}}}


def _batches(embeddings: Floats, labels: Sequence[str | None], step: int, start: int = 0) -> Iterator[dict[str, Any]]:
    for first in range(start, len(embeddings), step):
        part = embeddings[first : first + step]
        yield {
            "ids": [str(row) for row in range(first, first + len(part))],
            "embeddings": np.asarray(part),
            "metadatas": [None if label is None else {_LABEL: label} for label in labels[first : first + len(part)]],
        }


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
