"""How do hits leave the program? As JSON with thumbnails in files, the same for the page, gradio_client and MCP."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio.data_classes import FileData

from imgret.search import Found, Hit, Retriever
from imgret.startup import Ready
from imgret.ui.thumbnails import Thumbnails


@dataclass(frozen=True)
class Answer:
    """What one query found: `images` are the hits' thumbnails; `visited` is how many pictures had to be looked at, None
    where nobody counts them.
    """

    method: str
    hits: tuple[Hit, ...]
    images: tuple[Path, ...]
    elapsed_ms: float
    library: str
    notice: str | None
    visited: int | None

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
        }


def answer(
    ready: Ready, thumbnails: Thumbnails, method: str, search: Callable[[], Found], notice: str | None = None
) -> Answer:
    """Runs `search` and puts its hits with their thumbnails."""
    started = time.perf_counter()
    found = search()
    elapsed = (time.perf_counter() - started) * 1000
    return Answer(
        method=method,
        hits=tuple(found.hits),
        images=tuple(thumbnails.path(ready.retriever, hit.row) for hit in found.hits),
        elapsed_ms=round(elapsed, 3),
        library=ready.retriever.index.manifest.library.name,
        notice=" ".join(sentence for sentence in (notice, ready.notice) if sentence) or None,
        visited=found.visited,
    )


def no_answer(ready: Ready, method: str, why: str) -> Answer:
    """The place of an answer that cannot be had, beside others that can."""
    return Answer(method, (), (), 0.0, ready.retriever.index.manifest.library.name, why, None)


def k_notice(retriever: Retriever, k: Any) -> str | None:
    """The sentence that belongs to a k above the number of pictures."""
    count = len(retriever.index)
    return f"The library has {count} pictures, so k is {count}." if retriever.checked_k(k) < k else None


def language_notice(retriever: Retriever, *texts: str | None) -> str | None:
    """The sentence that belongs to a text which the encoder probably cannot read: letters beyond ASCII for one that
    reads English only.
    """
    foreign = any(
        letter.isalpha() and not letter.isascii() for text in texts if isinstance(text, str) for letter in text
    )
    if foreign and retriever.index.manifest.encoder.languages == ("en",):
        return "The encoder of this library reads English only, so this text may find little; try it in English."
    return None
