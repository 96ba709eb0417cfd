"""Writes thumbnails from the index to a bounded cache of files that the browser can fetch."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import gradio as gr
from starlette.types import ASGIApp, Receive, Scope, Send

from imgret.index import Index
from imgret.search import Retriever
from imgret.startup import Startup

MAX_FILES, BETWEEN_SWEEPS = 20_000, 1000
"""How many files are kept, and how many writes pass between two deletions of the oldest."""
HELD_OUT = "held-out"


class Thumbnails:
    """Thumbnails as files that Gradio serves in place, written when first shown.

    Folder and file names depend only on cache, index and row, so that several servers over one cache share them.
    """

    def __init__(self, cache: Path) -> None:
        self.folder = (cache / "shown").resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        gr.set_static_paths([self.folder])
        self._written = 0
        self._lock = threading.Lock()

    def path(self, retriever: Retriever, row: int) -> Path:
        """The file with the thumbnail of the picture in `row`."""
        index = retriever.index
        return self.file(index, f"{row}.webp", lambda: index.thumbnail(row))

    def held_out_path(self, index: Index, number: int) -> Path:
        """The file with the held-out picture of this number."""
        return self.file(index, f"{HELD_OUT}-{number}.webp", lambda: index.held_out[number].picture)

    def file(self, index: Index, name: str, content: Callable[[], bytes]) -> Path:
        """The file of that name for this index, as that of another has other pictures; with `content` if it is new."""
        path = self.folder / f"{index.manifest.data}-{name}"
        if not path.exists():
            self._write(path, content())
        return path

    def row_of(self, retriever: Retriever, path: Path) -> int | None:
        """The row whose thumbnail `path` is, if it is one of the index that is searched now."""
        data, _, row = path.stem.rpartition("-")
        ours = path.parent == self.folder and path.suffix == ".webp" and data == retriever.index.manifest.data
        return int(row) if ours and row.isdecimal() and int(row) < len(retriever.index) else None

    def _write(self, path: Path, data: bytes) -> None:
        draft = path.with_name(f".{uuid4().hex}")
        draft.write_bytes(data)
        os.replace(draft, path)
        with self._lock:
            self._written += 1
            if self._written % BETWEEN_SWEEPS == 0:
                self._sweep()

    def _sweep(self) -> None:
        held = []
        for entry in os.scandir(self.folder):
            try:
                held.append((entry.stat().st_mtime, entry.path))
            except OSError:  # just dropped by another page
                continue
        for _, path in sorted(held)[:-MAX_FILES]:
            Path(path).unlink(missing_ok=True)


class ThumbnailsOnDemand:
    """ASGI middleware that writes a missing thumbnail, deleted or of another server, before Gradio looks for it."""

    def __init__(self, app: ASGIApp, thumbnails: Thumbnails, start: Startup) -> None:
        self._app, self._thumbnails, self._start = app, thumbnails, start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on."""
        if scope["type"] == "http":
            _, _, asked = scope["path"].partition("/file=")
            lacking = Path(asked).parent == self._thumbnails.folder and not os.path.exists(asked)
            if lacking and self._start.health().searchable:
                await asyncio.to_thread(self._write, Path(asked))
        await self._app(scope, receive, send)

    def _write(self, asked: Path) -> None:
        retriever = self._start.wait().retriever
        data, _, number = asked.stem.rpartition(f"-{HELD_OUT}-")
        index = retriever.index
        if data == index.manifest.data and number.isdecimal() and int(number) < len(index.held_out):
            self._thumbnails.held_out_path(index, int(number))
        row = self._thumbnails.row_of(retriever, asked)
        if row is not None:
            self._thumbnails.path(retriever, row)
