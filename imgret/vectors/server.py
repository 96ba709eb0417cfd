"""Connects to a Chroma server with bounded calls, and tells why a call failed."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from imgret.vectors.base import VectorError

if TYPE_CHECKING:
    from imgret.settings import Settings

T = TypeVar("T")

PROBE_SECONDS = 5.0
CLOUD = "api.trychroma.com"

_AWAY = (429, 502, 503, 504)
"""HTTP statuses of a proxy while the server behind it restarts."""


@dataclass(frozen=True)
class ChromaServer:
    """The address of a Chroma server, and the token that it or its proxy requires; the repr hides the token.

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
                "The address of the Chroma server at {host} has a name or a password in it; leave it out "
                "and set IMGRET_CHROMA_TOKEN.",
                host=parts.hostname,
            )
        if not whole or parts.query or parts.fragment:
            raise VectorError(
                "{url!r} is not the address of a Chroma server, which is http:// or https://, a host, a "
                "port and a path if it has them, such as http://127.0.0.1:8000.",
                url=self.url.rpartition("@")[2],
            )
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise VectorError(
                "The token of the Chroma server has characters that no token has; set IMGRET_CHROMA_TOKEN anew."
            )
        object.__setattr__(self, "url", self.url.strip().rstrip("/"))

    @classmethod
    def of(cls, settings: "Settings") -> "ChromaServer | None":
        """The server that the settings name, or None for the embedded store. Raises VectorError."""
        if settings.chroma_url is None:
            return None
        token = settings.chroma_token.get_secret_value().strip() if settings.chroma_token else None
        return cls(settings.chroma_url, token)


def http_client(server: ChromaServer, seconds: float) -> Any:
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
        # Given, because Chroma reads missing values from variables such as CHROMA_SERVER_HOST.
        settings = Settings(anonymized_telemetry=False, chroma_server_host=server.url, chroma_server_http_port=8000)
        client = chromadb.HttpClient(server.url, headers=headers, settings=settings)
    # https://github.com/chroma-core/chroma/issues/5805: there is no setting. `within` ends the waiting; this ends the
    # thread that it leaves behind.
    client._server._session.timeout = seconds  # type: ignore[attr-defined]
    return client


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Returns what `ask` returns, or raises TimeoutError after `seconds`. The time-outs of httpx bound neither name
    resolution nor an answer that arrives in drops.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="chroma", daemon=True).start()
    return answer.result(seconds)


def cause_of(error: BaseException) -> tuple[BaseException, int | None]:
    """The error of httpx behind an untyped error of Chroma's client, and the HTTP status if there is one."""
    import httpx

    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, httpx.HTTPError):
        inner = inner.__context__
    if isinstance(inner, httpx.HTTPStatusError):
        return error, inner.response.status_code
    return inner or error, None


def is_away(error: BaseException) -> bool:
    """Whether the error looks like a server that restarts."""
    import httpx

    cause, status = cause_of(error)
    return status in _AWAY or (
        isinstance(cause, httpx.TransportError) and not isinstance(cause, httpx.TimeoutException)
    )
