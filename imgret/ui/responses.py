"""Turns hits into responses, the same JSON with thumbnail files for the page, gradio_client and MCP."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio.data_classes import FileData

from imgret.errors import Sentence
from imgret.search import Hit, SearchResult
from imgret.startup import ReadyIndex
from imgret.ui.thumbnails import Thumbnails


@dataclass(frozen=True)
class Response:
    """The answer to one query.

    `images`: the thumbnails of the hits. `rows_scanned` and `matches`: as in `SearchResult`.
    """

    method: str
    hits: tuple[Hit, ...]
    images: tuple[Path, ...]
    elapsed_ms: float
    library: str
    notice: Sentence | None
    rows_scanned: int | None
    matches: int | None = None

    def as_dict(self, *, with_images: bool = True) -> dict[str, Any]:
        """The answer as the endpoints give it, each hit with its `image`, a file that the client downloads."""
        hits = [hit.as_dict() for hit in self.hits]
        if with_images:
            for hit, path in zip(hits, self.images, strict=True):
                hit["image"] = FileData(path=str(path), mime_type="image/webp").model_dump()
        return {
            "hits": hits,
            "method": self.method,
            "elapsed_ms": self.elapsed_ms,
            "library": self.library,
            "notice": self.notice,
            "matches": self.matches,
        }


def respond(
    ready: ReadyIndex,
    thumbnails: Thumbnails,
    method: str,
    search: Callable[[], SearchResult],
) -> Response:
    """Runs `search` and returns its hits with their thumbnails."""
    started = time.perf_counter()
    found = search()
    elapsed = (time.perf_counter() - started) * 1000
    return Response(
        method=method,
        hits=tuple(found.hits),
        images=tuple(thumbnails.path(ready.retriever, hit.row) for hit in found.hits),
        elapsed_ms=round(elapsed, 3),
        library=ready.retriever.index.manifest.library.name,
        notice=Sentence.joined(found.notice, ready.notice),
        rows_scanned=found.rows_scanned,
        matches=found.matches(),
    )


def empty_response(ready: ReadyIndex, method: str, why: Sentence) -> Response:
    """A response without hits, for a method that failed beside others that worked."""
    return Response(method, (), (), 0.0, ready.retriever.index.manifest.library.name, why, None)
