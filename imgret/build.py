"""The build road: how does a library become an index? Stages as plain functions, in the order they run.

    digest      each picture whose content is new: decoded, made a pixel vector, a thumbnail and an embedding   ->
    Digests assemble    the library's rows in order, from the digests and the index there was
    -> matrices, records finish      pixel index, Chroma collection, recall audit, hashes; then the manifest switches
    -> Index

A kill at any moment leaves the old index or the new one, and loses at most the batch under way: all is written below
`.building` in the index folder, and the switch is the replacing of one name.
"""

import hashlib
import os
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock, Timeout

from imgret import index as layout
from imgret.encoders import Encoder, EncoderError, load_encoder
from imgret.images import ImageError, load_image, pixel_vector, thumbnail
from imgret.index import EncoderInfo, Index, InvalidIndexError, LibraryInfo, Manifest
from imgret.library import Entry, ImageLibrary
from imgret.pixels import PixelIndex
from imgret.vectors import RecallAudit, VectorStore

BATCH = 32
SKIPPED_LISTED = 1000
WORK = ".building"

Progress = Callable[[str, int, int | None], None]
"""Hears (stage, done, total); the total is None while nobody knows it."""


class BuildError(ValueError):
    """An index that cannot be built; the text says why and what would work."""


@dataclass(frozen=True)
class Digest:
    """All that an index keeps of one picture's content.

    `pixels` (P,) uint8, `thumbnail` WebP, `embedding` (d,) float32.
    """

    content: str
    width: int
    height: int
    pixels: npt.NDArray[np.uint8]
    thumbnail: bytes
    embedding: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """A row of the index to be: what the library says of it, and the SHA-256 of its encoded picture."""

    entry: Entry
    content: str


def build_index(
    library: ImageLibrary,
    folder: str | os.PathLike[str],
    encoder: str | Encoder = "starter",
    pixel_size: int = 64,
    *,
    progress: Progress = lambda stage, done, total: None,
    cache: Path | None = None,
) -> Index:
    """Builds the index of `library` in `folder`, or brings the one there up to date, and opens it.

    Pictures whose content the index there (or a build that was cut off) already holds are not decoded or embedded
    again. Rows that cannot be decoded are skipped and listed in the manifest. `cache` is for working copies and
    encoders. Raises BuildError, and what the library and the encoder raise; the index that was there then still is.
    """
    folder = Path(folder)
    if isinstance(pixel_size, bool) or not isinstance(pixel_size, int) or not 1 <= pixel_size <= 1024:
        raise BuildError(f"The pixel size is {pixel_size!r}; it must be a whole number from 1 to 1024.")
    if folder.exists() and not folder.is_dir():
        raise BuildError(f"{folder} is a file; an index needs a folder.")
    if (
        folder.is_dir()
        and not (folder / layout.MANIFEST).exists()
        and any(not _ours(path) for path in folder.iterdir())
    ):
        raise BuildError(f"{folder} holds other files and no index; name a new or empty folder.")
    work = folder / WORK
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BuildError(f"Another build is writing to {folder}; wait for it to end.") from None
    try:
        with closing(_Build(library, folder, work, encoder, pixel_size, progress, cache)) as build:
            build.run()
        shutil.rmtree(work)
    finally:
        lock.release()
    return Index.open(folder, cache=cache)


class _Build:
    def __init__(
        self,
        library: ImageLibrary,
        folder: Path,
        work: Path,
        encoder: str | Encoder,
        pixel_size: int,
        progress: Progress,
        cache: Path | None,
    ) -> None:
        self.library, self.folder, self.work, self.pixel_size, self.progress, self.cache = (
            library,
            folder,
            work,
            pixel_size,
            progress,
            cache,
        )
        self.encoder = _LazyEncoder(encoder, cache)
        self.old = _open_if_alike(folder, self.encoder.uri, pixel_size, cache)
        self.old_rows = {content: row for row, content in enumerate(self.old.column("content"))} if self.old else {}
        kind = hashlib.sha256(f"{self.encoder.uri}\0{pixel_size}".encode()).hexdigest()[:12]
        self.digests = _Digests(work / f"digests-{kind}.sqlite3")

    def run(self) -> None:
        rows, skipped = self.digest()
        self.library.skipped = tuple(skipped)
        if not rows:
            first = f"; {len(skipped)} were skipped, the first because: {skipped[0][1]}" if skipped else "."
            raise BuildError(f"{self.library.source} has no picture that can be used{first}")
        info = self.old.manifest.encoder if self.old else self.encoder.info()
        labels = [row.entry.label for row in rows]
        data = f"data-{self.identity(rows)}"
        if self.old and self.old.manifest.data == data:
            recall, files = self.old.manifest.recall, dict(self.old.manifest.files)
        else:
            self.assemble(rows, info.dim)
            recall = self.finish(labels, data)
            files = layout.describe_files(self.folder, data)
        manifest = Manifest(
            format=layout.FORMAT,
            data=data,
            library=LibraryInfo(self.library.source, self.library.split, self.library.revision, self.library.limit),
            encoder=info,
            pixel_size=self.pixel_size,
            count=len(rows),
            labels=layout.count_labels(labels),
            skipped_count=len(skipped),
            skipped=tuple(skipped[:SKIPPED_LISTED]),
            recall=recall,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files=files,
        )
        layout.write_manifest(self.folder, manifest)
        for path in self.folder.glob("data-*"):
            if path.name != data:
                shutil.rmtree(path)

    def digest(self) -> tuple[list[Row], list[tuple[str, str]]]:
        """Every row of the library that can be used, its content known to the digests or the old index; and those
        skipped, with why.
        """
        rows: list[Row] = []
        skipped: list[tuple[str, str]] = []
        batch: dict[str, tuple[Digest, npt.NDArray[np.float32]]] = {}

        def embed_batch() -> None:
            if batch:
                vectors = self.encoder.get().embed_preprocessed(np.stack([pixels for _, pixels in batch.values()]))
                self.digests.add(
                    replace(digest, embedding=vector)
                    for (digest, _), vector in zip(batch.values(), vectors, strict=True)
                )
                batch.clear()

        self.progress("pictures", 0, self.library.count)
        for done, (entry, outcome) in enumerate(
            _in_order(self.prepare, self.library.entries(), ahead=2 * BATCH), start=1
        ):
            if isinstance(outcome, ImageError):
                skipped.append((entry.id, str(outcome)))
            else:
                content, new = outcome
                rows.append(Row(replace(entry, data=None), content))
                if new is not None and content not in self.digests:
                    batch[content] = new
                if len(batch) == BATCH:
                    embed_batch()
            self.progress("pictures", done, self.library.count)
        embed_batch()
        return rows, skipped

    def prepare(
        self, entry: Entry
    ) -> tuple[Entry, ImageError | tuple[str, tuple[Digest, npt.NDArray[np.float32]] | None]]:
        """Runs in a worker: the picture's hash and, where its content is new, all but its embedding."""
        try:
            data = entry.read()
            content = hashlib.sha256(data).hexdigest()
            if content in self.old_rows or content in self.digests:
                return entry, (content, None)
            image = load_image(data)
        except ImageError as error:
            return entry, error
        pixels = pixel_vector(image, self.pixel_size)
        digest = Digest(content, image.width, image.height, pixels, thumbnail(image), np.empty(0, np.float32))
        return entry, (content, (digest, self.encoder.get().preprocess(image)))

    def identity(self, rows: list[Row]) -> str:
        """A hash of all that the data of an index depends on."""
        identity = hashlib.sha256(repr((layout.FORMAT, self.encoder.uri, self.pixel_size)).encode())
        for row in rows:
            identity.update(repr((row.entry, row.content)).encode("utf-8", "surrogateescape"))
        return identity.hexdigest()[:16]

    def assemble(self, rows: list[Row], dim: int) -> None:
        """Writes matrices, thumbnails and records below the work folder, in the order of `rows`."""
        draft = self.work / "data"
        shutil.rmtree(draft, ignore_errors=True)
        (draft / layout.PIXELS).mkdir(parents=True)
        embeddings = np.lib.format.open_memmap(draft / layout.EMBEDDINGS, "w+", np.float32, (len(rows), dim))
        pixels = np.lib.format.open_memmap(
            draft / layout.PIXELS / layout.PIXEL_MATRIX, "w+", np.uint8, (len(rows), 3 * self.pixel_size**2)
        )
        start = 0
        with (
            (draft / layout.THUMBNAILS).open("wb") as thumbnails,
            pa.ipc.new_file(str(draft / layout.RECORDS), layout.RECORD_SCHEMA) as records,
        ):
            for first in range(0, len(rows), 1000):
                chunk: list[dict[str, Any]] = []
                for number, row in enumerate(rows[first : first + 1000], start=first):
                    digest = self.digest_of(row.content)
                    pixels[number], embeddings[number] = digest.pixels, digest.embedding
                    thumbnails.write(digest.thumbnail)
                    entry = row.entry
                    chunk.append(
                        {
                            "id": entry.id,
                            "label": entry.label,
                            "caption": entry.caption,
                            "captions": list(entry.captions.items()),
                        }
                        | {"width": digest.width, "height": digest.height, "content": row.content}
                        | {"thumbnail_start": start, "thumbnail_size": len(digest.thumbnail)}
                    )
                    start += len(digest.thumbnail)
                records.write_batch(pa.RecordBatch.from_pylist(chunk, schema=layout.RECORD_SCHEMA))
                self.progress("assemble", first + len(chunk), len(rows))
        embeddings.flush()
        pixels.flush()

    def digest_of(self, content: str) -> Digest:
        found = self.digests.get(content)
        if found is not None:
            return found
        assert self.old is not None
        row = self.old_rows[content]
        record = self.old.record(row)
        return Digest(
            content,
            record.width,
            record.height,
            self.old.pixels.vectors[row],
            self.old.thumbnail(row),
            self.old.embeddings[row],
        )

    def finish(self, labels: list[str | None], data: str) -> RecallAudit:
        """Adds both searches to the assembled folder and moves it to where the manifest will name it."""
        draft = self.work / "data"
        self.progress("pixel index", 0, 1)
        matrix = np.load(draft / layout.PIXELS / layout.PIXEL_MATRIX, mmap_mode="r")
        PixelIndex.fit(matrix).save(draft / layout.PIXELS)
        self.progress("pixel index", 1, 1)
        embeddings = np.load(draft / layout.EMBEDDINGS, mmap_mode="r")
        recall = VectorStore.create(
            draft / layout.VECTORS, embeddings, labels, lambda done: self.progress("vectors", done, len(labels))
        )
        target = self.folder / data
        shutil.rmtree(target, ignore_errors=True)  # left by a build that was killed between this line and the manifest
        os.rename(draft, target)
        return recall

    def close(self) -> None:
        self.digests.close()
        if self.old is not None:
            self.old.close()


class _Digests:
    """The digests of a build under way, by content; SQLite commits each batch as a whole.

    Written by one thread, `in` from any.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.DatabaseError:  # not a database, or a broken one: all of it can be made again
            path.unlink()
            self._open(path)

    def _open(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS digests "
            "(content TEXT PRIMARY KEY, width INT, height INT, pixels BLOB, thumbnail BLOB, embedding BLOB)"
        )
        self._contents = {content for (content,) in self._database.execute("SELECT content FROM digests")}

    def __contains__(self, content: str) -> bool:
        return content in self._contents

    def add(self, digests: Iterable[Digest]) -> None:
        values = [
            (d.content, d.width, d.height, d.pixels.tobytes(), d.thumbnail, d.embedding.tobytes()) for d in digests
        ]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", values)
        self._contents.update(value[0] for value in values)

    def get(self, content: str) -> Digest | None:
        found = self._database.execute("SELECT * FROM digests WHERE content = ?", (content,)).fetchone()
        if found is None:
            return None
        _, width, height, pixels, small, embedding = found
        return Digest(
            content, width, height, np.frombuffer(pixels, np.uint8), small, np.frombuffer(embedding, np.float32)
        )

    def close(self) -> None:
        self._database.close()


class _LazyEncoder:
    """An encoder loaded when the first new picture needs it: a build that finds nothing new never does."""

    def __init__(self, encoder: str | Encoder, cache: Path | None) -> None:
        self.uri = encoder if isinstance(encoder, str) else encoder.uri
        self._encoder = None if isinstance(encoder, str) else encoder
        self._error: EncoderError | None = None
        self._cache, self._lock = cache, threading.Lock()

    def get(self) -> Encoder:
        with self._lock:
            if self._error is not None:  # the other workers ask, too, and a download that failed would be tried again
                raise self._error
            if self._encoder is None:
                try:
                    self._encoder = load_encoder(self.uri, cache=self._cache)
                except EncoderError as error:
                    self._error = error
                    raise
            return self._encoder

    def info(self) -> EncoderInfo:
        encoder = self.get()
        return EncoderInfo(encoder.uri, encoder.dim, tuple(encoder.languages))


def _in_order(work: Callable[[Entry], Any], entries: Iterable[Entry], ahead: int) -> Iterator[Any]:
    """The results of `work` in the order of `entries`, made by as many threads as there are cores, at most `ahead` in
    advance.
    """
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for entry in entries:
                waiting.append(pool.submit(work, entry))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _open_if_alike(folder: Path, encoder: str, pixel_size: int, cache: Path | None) -> Index | None:
    """The index there is, if its rows can be used again."""
    try:
        index = Index.open(folder, cache=cache)
    except InvalidIndexError:
        return None
    alike = index.manifest.encoder.uri == encoder and index.manifest.pixel_size == pixel_size
    return index if alike else None


def _ours(path: Path) -> bool:
    return path.name == WORK or path.name.startswith(("data-", f".{layout.MANIFEST}"))
