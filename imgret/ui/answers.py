"""How do hits leave the program? As JSON with thumbnails in files, the same for the page, gradio_client and MCP."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from imgret.scratch import Scratch
from imgret.search import Found, Hit, Retriever
from imgret.start import Ready

MAX_THUMBNAILS = 20_000


class Thumbnails:
    """Thumbnails as files that Gradio serves in place: written when first shown, the longest unused dropped beyond a
    number.
    """

    def __init__(self, cache: Path) -> None:
        self._scratch = Scratch(cache, "thumbnails")
        self.folder = self._scratch.folder / "files"
        self.folder.mkdir()
        gr.set_static_paths([self.folder])
        self._used: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, retriever: Retriever, row: int) -> Path:
        """The file with the thumbnail of the picture in `row`."""
        name = f"{retriever.index.manifest.data}-{row}.webp"  # a row of another index is another picture
        with self._lock:
            path = self.folder / name
            if name in self._used:
                self._used.move_to_end(name)
                return path
            path.write_bytes(retriever.index.thumbnail(row))
            self._used[name] = None
            if len(self._used) > MAX_THUMBNAILS:
                (self.folder / self._used.popitem(last=False)[0]).unlink(missing_ok=True)
            return path

    def id_of(self, retriever: Retriever, path: Path) -> str | None:
        """The picture of the library whose thumbnail `path` is, if it is one of the index that is searched now."""
        data, _, row = path.stem.rpartition("-")
        if path.parent != self.folder.resolve() or data != retriever.index.manifest.data:
            return None
        return retriever.index.record(int(row)).id


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

    def as_dict(self) -> dict[str, Any]:
        """The answer as the endpoints give it, each hit with its `image`, a file that the client downloads."""
        pictures = (FileData(path=str(path), mime_type="image/webp").model_dump() for path in self.images)
        return {
            "hits": [hit.as_dict() | {"image": picture} for hit, picture in zip(self.hits, pictures, strict=True)],
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
