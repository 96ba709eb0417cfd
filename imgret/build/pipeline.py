"""The build road: how does a library become an index? Stages as plain functions, in the order they run.

    digest      each picture whose content is new: a pixel vector, a thumbnail, an embedding        -> Digests
    assemble    the library's rows in order, from the digests and the index there was               -> matrices, records
    finish      pixel index, Chroma collection with its recall audit, the map, the encoder          -> both searches
    appraise    the figures of all five methods                                                     -> a whole data
    folder

The first runs on an engine: threads of this process, or Ray (ray.py). Then the manifest switches. A kill at any
moment leaves the old index or the new one, and loses at most the batch under way: all is written below `.building` in
the index folder, and the switch is the replacing of one name.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock, Timeout
from PIL import Image

from imgret import index as layout
from imgret.build.features import Digest, Digester, Digests, Outcome
from imgret.encoders import (
    Encoder,
    EncoderError,
    can_export,
    export_encoder,
    load_encoder,
    shared_export,
)
from imgret.errors import in_short
from imgret.evaluate import EvaluationError, evaluate
from imgret.files.npy import new_array, open_array
from imgret.files.split_files import cut
from imgret.images import ImageError, load_image
from imgret.index import EncoderInfo, Index, InvalidIndexError, LibraryInfo, Manifest, Place
from imgret.library import Entry, ImageLibrary
from imgret.pixels import PixelIndex, is_small
from imgret.projection import draw
from imgret.search import Retriever
from imgret.vectors import ChromaServer, RecallAudit, VectorStore, can_grow, collection_of, drop, keys_of, reach

BATCH = 16
AHEAD = 4 * BATCH
SKIPPED_LISTED = 1000
WORK, OWNER = ".building", ".owner"
EXPORT_SAMPLES, EXPORT_STRIDE = 64, 50
"""Pictures that an exported encoder is held against the original on, and how far apart they are taken at most."""

MOST_QUERIES, FEWEST_QUERIES, COMPARISONS = 1000, 100, 2_000_000
"""How many queries the figures in an index are taken from: as many as keep the comparisons of a query and a picture
below a number, as each query ranks the whole library.
"""

COMPILE = "import os; getattr(os, 'nice', int)(15); from imgret.pixels.sketches import Sketches; Sketches.warm()"

Progress = Callable[[str, int, int | None], None]
"""Hears (stage, done, total); the total is None while nobody knows it."""

Write = Callable[[npt.NDArray[np.float32], Sequence[str | None], Callable[[int], None]], RecallAudit]
"""Makes the Chroma collection of embeddings (N, d) and their labels; hears the number of rows written."""

Engine = Callable[[ImageLibrary, Digester], Generator[Outcome]]
"""Runs a digester over a library and gives its outcomes in the library's order."""


class BuildError(ValueError):
    """An index that cannot be built; the text says why and what would work."""


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
    engine: Engine | None = None,
    chroma: ChromaServer | str | None = None,
    prune: bool = False,
) -> Index:
    """Builds the index of `library` in `folder`, or brings the one there up to date, and opens it.

    Pictures whose content the index there (or a build that was cut off) already holds are not decoded or embedded
    again. Rows that cannot be decoded are skipped and listed in the manifest. `cache` is for working copies and
    encoders. `engine` is what decodes and embeds: threads of this process, or `imgret.build.ray.on_ray`, with the
    same index. With `chroma`, a server or its address, the vectors go there instead of into the folder: into a
    collection of their own, or what is new of them into that of the index there. Those who search the latter find what
    it holds until a build with `prune` drops what builds in this folder wrote there before, whole or cut off, and no
    other folder's did.
    Raises BuildError, VectorError, and what the library, the encoder and the engine raise; the index that was there
    then still is.
    """
    folder = Path(folder)
    chroma = ChromaServer(chroma) if isinstance(chroma, str) else chroma
    if isinstance(pixel_size, bool) or not isinstance(pixel_size, int) or not 1 <= pixel_size <= 1024:
        raise BuildError(f"The pixel size is {pixel_size!r}; it must be a whole number from 1 to 1024.")
    if folder.exists() and not folder.is_dir():
        raise BuildError(f"{folder} is a file; an index needs a folder.")
    if folder.is_dir() and not (folder / layout.MANIFEST).exists() and not all(map(_ours, folder.iterdir())):
        raise BuildError(f"{folder} holds other files and no index; name a new or empty folder.")
    if chroma is not None:
        reach(chroma)  # before anything is embedded for it
    work = folder / WORK
    lock = FileLock(work / "lock")
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        _build(library, folder, work, encoder, pixel_size, progress, cache, engine or in_threads, chroma, prune)
        shutil.rmtree(work)
    except Timeout:
        raise BuildError(f"Another build is writing to {folder}; wait for it to end.") from None
    except (OSError, MemoryError, sqlite3.Error) as error:
        raise BuildError(
            f"The index in {folder} cannot be built ({in_short(error)}); what was there is as it was, and a build that "
            f"is started again goes on from here."
        ) from error
    finally:
        lock.release()
    return Index.open(folder, chroma, cache=cache)


def _owner(folder: Path) -> str:
    """What stands for this index folder on a server, from its first build there on, and not for a copy of it."""
    path, here = folder / OWNER, f"-{folder.stat().st_ino}"
    owner = path.read_text() if path.exists() else ""
    if not owner.endswith(here):
        owner = uuid4().hex + here
        path.write_text(owner)
    return owner


def _build(
    library: ImageLibrary,
    folder: Path,
    work: Path,
    encoder: str | Encoder,
    pixel_size: int,
    progress: Progress,
    cache: Path | None,
    engine: Engine,
    chroma: ChromaServer | None,
    prune: bool,
) -> None:
    uri = encoder if isinstance(encoder, str) else encoder.uri
    kind = hashlib.sha256(f"{uri}\0{pixel_size}".encode()).hexdigest()[:12]
    with ExitStack() as stack:
        old = _open_if_alike(folder, uri, pixel_size, cache)
        if old is not None:
            stack.enter_context(closing(old))
        compiling = None
        if library.count is None or not is_small(library.count, 3 * pixel_size**2):
            # A new installation compiles for 11 s, once: here, so that no query has to wait for it, and in a process of
            # its own that gives way, as exporting an encoder meanwhile holds this one's interpreter. If that fails, the
            # first query compiles.
            compiling = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", COMPILE], stderr=subprocess.DEVNULL)
            )
        in_old = old.column("content") if old else ()
        digests = stack.enter_context(closing(Digests(work / f"digests-{kind}.sqlite3", in_old)))
        maker = _Maker(encoder, library, work / f"encoder-{kind}", old, cache)
        digester = Digester(lambda: maker.encoder, maker.batch, pixel_size, digests.known)
        outcomes = stack.enter_context(closing(engine(library, digester)))
        rows, skipped = digest(library, outcomes, digests, progress)
        library.skipped = tuple(skipped)
        if not rows:
            first = f"; {len(skipped)} were skipped, the first because: {skipped[0][1]}" if skipped else "."
            raise BuildError(f"{library.source} has no picture that can be used{first}")
        content, draft = _identity(rows, uri, pixel_size), work / "data"
        data = f"data-{content}{layout.SERVED if chroma else ''}"
        labels = [row.entry.label for row in rows]
        write: Write = partial(VectorStore.create, draft / layout.VECTORS)
        place = None
        if chroma is not None:
            name, keys = collection_of(content), keys_of((row.content for row in rows), labels)
            if old is not None and (its := old.manifest.vectors) and can_grow(chroma, its.collection, old.keys, keys):
                name = its.collection
            place = Place(chroma.url, name)
            write = partial(VectorStore.write, chroma, name, _owner(folder), keys)
        of_this_build: dict[str, Any] = {
            "library": LibraryInfo.of(library),
            "skipped_count": len(skipped),
            "skipped": tuple(skipped[:SKIPPED_LISTED]),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if old is not None and old.manifest.data == data:
            manifest = replace(old.manifest, **of_this_build)
            if chroma is not None:
                recall = write(old.embeddings, old.column("label"), lambda done: progress("vectors", done, len(rows)))
                manifest = replace(manifest, recall=recall, vectors=place)
        else:
            info = maker.info()
            assemble(rows, _finder(digests, old), info.dim, pixel_size, draft, progress)
            manifest = Manifest(
                format=layout.FORMAT,
                data=draft.name,
                encoder=info,
                pixel_size=pixel_size,
                count=len(rows),
                labels=layout.count_labels(labels),
                recall=finish(draft, labels, maker.exported, write, progress),
                files={},
                vectors=place,
                **of_this_build,
            )
            if compiling is not None:
                compiling.wait()
            with closing(Index(work, manifest, work)) as unfinished:
                appraise(Retriever(unfinished, lambda: maker.encoder), draft, progress)
            shutil.rmtree(folder / data, ignore_errors=True)  # left by a kill between this switch and the manifest's
            os.rename(draft, folder / data)
            manifest = replace(manifest, data=data, files=layout.describe_files(folder, data))
    layout.write_manifest(folder, manifest)
    for path in folder.glob("data-*"):
        if path.name != data:
            shutil.rmtree(path)
    if prune and chroma is not None:
        dropped = drop(chroma, _owner(folder), name, keys)
        progress("dropped", dropped, dropped)


def in_threads(library: ImageLibrary, digester: Digester) -> Generator[Outcome]:
    """The engine of one process: a thread a core, a bounded number of pictures in advance."""
    entries = library.entries()
    waiting: deque[Future[list[Outcome]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while some := list(islice(entries, digester.batch)):
                waiting.append(pool.submit(digester, some))
                if len(waiting) * digester.batch >= AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def digest(
    library: ImageLibrary, outcomes: Iterable[Outcome], digests: Digests, progress: Progress
) -> tuple[list[Row], list[tuple[str, str]]]:
    """Adds what is new to `digests`. All rows that can be used, in order, and `(id, reason)` of those that cannot."""
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []
    made: list[Digest] = []
    progress("pictures", 0, library.count)
    for done, (entry, outcome, new) in enumerate(outcomes, start=1):
        if isinstance(outcome, ImageError):
            skipped.append((entry.id, str(outcome)))
        else:
            rows.append(Row(entry, outcome))
            if new is not None:
                made.append(new)
            if len(made) == BATCH:
                digests.add(made)
                made.clear()
        progress("pictures", done, library.count)
    digests.add(made)
    return rows, skipped


def assemble(
    rows: list[Row], find: Callable[[str], Digest], dim: int, pixel_size: int, draft: Path, progress: Progress
) -> None:
    """Writes matrices, thumbnails and records of `rows`, in their order, into the new folder `draft`, long ones cut."""
    shutil.rmtree(draft, ignore_errors=True)
    (draft / layout.PIXELS).mkdir(parents=True)
    embeddings = new_array(draft / layout.EMBEDDINGS, np.float32, (len(rows), dim))
    pixels = new_array(draft / layout.PIXELS / layout.PIXEL_MATRIX, np.uint8, (len(rows), 3 * pixel_size**2))
    start = 0
    with (
        (draft / layout.THUMBNAILS).open("wb") as thumbnails,
        pa.ipc.new_file(str(draft / layout.RECORDS), layout.RECORD_SCHEMA) as records,
    ):
        for first in range(0, len(rows), 1000):
            chunk: list[dict[str, Any]] = []
            for number, row in enumerate(rows[first : first + 1000], start=first):
                found, entry = find(row.content), row.entry
                pixels[number], embeddings[number] = found.pixels, found.embedding
                thumbnails.write(found.thumbnail)
                chunk.append(
                    {"id": entry.id, "label": entry.label, "caption": entry.caption}
                    | {"captions": list(entry.captions.items()), "content": row.content}
                    | {"width": found.width, "height": found.height}
                    | {"thumbnail_start": start, "thumbnail_size": len(found.thumbnail)}
                )
                start += len(found.thumbnail)
            records.write_batch(pa.RecordBatch.from_pylist(chunk, schema=layout.RECORD_SCHEMA))
            progress("assemble", first + len(chunk), len(rows))
    embeddings.flush()
    pixels.flush()
    del embeddings, pixels  # what a map has beyond a file's end, nobody may touch
    for name in (layout.EMBEDDINGS, f"{layout.PIXELS}/{layout.PIXEL_MATRIX}", layout.THUMBNAILS, layout.RECORDS):
        cut(draft / name)


def finish(
    draft: Path, labels: list[str | None], encoder: Path | None, write: Write, progress: Progress
) -> RecallAudit:
    """Adds both searches, the map and the exported encoder, if any, to the assembled folder; the audit of its
    vectors, which `write` puts where they belong.
    """
    embeddings = open_array(draft / layout.EMBEDDINGS)
    with ThreadPoolExecutor(1) as beside:
        drawn = beside.submit(draw, embeddings)  # on a core of its own, which the rest does not keep busy
        matrix = open_array(draft / layout.PIXELS / layout.PIXEL_MATRIX)
        fitted = PixelIndex.fit(matrix, lambda done, total: progress("pixel index", done, total))
        fitted.save(draft / layout.PIXELS)
        if encoder is not None:
            _link_tree(encoder, draft / layout.ENCODER)
        audit = write(embeddings, labels, lambda done: progress("vectors", done, len(labels)))
        progress("map", 0, len(labels))
        np.save(draft / layout.MAP, drawn.result())
    cut(draft / layout.MAP)
    return audit


def appraise(retriever: Retriever, draft: Path, progress: Progress) -> None:
    """Adds the figures that `imgret evaluate` gives to the finished folder, if labels or captions give any."""
    queries = max(FEWEST_QUERIES, min(MOST_QUERIES, COMPARISONS // len(retriever.index)))
    try:
        found = evaluate(retriever, queries, progress)
    except EvaluationError:
        return
    (draft / layout.EVALUATION).write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")


class _Maker:
    """The encoder of a build, made ready when the first new picture needs it: a build that finds none never does.

    It is the exported one that the index will carry, so that queries go through the same towers as the pictures: the
    old index's, that of a build that was cut off, or one exported now into `folder`. On a GPU torch embeds the
    pictures; an encoder that is not open_clip's is taken as it is.
    """

    def __init__(
        self, given: str | Encoder, library: ImageLibrary, folder: Path, old: Index | None, cache: Path | None
    ) -> None:
        self._given, self._library, self._folder, self._old, self._cache = given, library, folder, old, cache
        self._encoder: Encoder | None = None
        self._error: EncoderError | None = None
        self._lock = threading.Lock()
        # A picture's own run on one core, beside its decoding: as fast as batches on all of them (ViT-B/32 in int8, two
        # cores: 18 ms a picture either way), and its vector is that of the same picture as a query.
        self.batch = 1 if self._runs_exported else BATCH

    @property
    def _runs_exported(self) -> bool:
        given = self._given
        return isinstance(given, str) or (can_export(given) and given.device == "cpu")

    @property
    def encoder(self) -> Encoder:
        with self._lock:
            if self._error is not None:  # the other workers ask, too, and a download that failed would be tried again
                raise self._error
            if self._encoder is None:
                try:
                    self._encoder = self._make()
                except EncoderError as error:
                    self._error = error
                    raise
            return self._encoder

    @property
    def exported(self) -> Path | None:
        """The folder of the exported encoder, if there is one."""
        if not self._folder.exists() and self._old is not None and self._old.encoder_folder is not None:
            _link_tree(self._old.encoder_folder, self._folder)
        return self._folder if self._folder.exists() else None

    def info(self) -> EncoderInfo:
        if self._encoder is None and self._old is not None:
            return self._old.manifest.encoder
        encoder = self.encoder
        report = encoder.report if self.exported is None else self._open_exported().report
        return EncoderInfo(encoder.uri, encoder.dim, tuple(encoder.languages), report)

    def _make(self) -> Encoder:
        if not isinstance(self._given, str):
            encoder = self._given
            if can_export(encoder) and self.exported is None:
                export_encoder(encoder, self._folder, *_samples(self._library))
            return self._open_exported() if self._runs_exported else encoder
        if self.exported is None:
            shared = shared_export(self._given, self._cache)
            if shared is not None and shared.exists():
                _link_tree(shared, self._folder)
            else:
                encoder = load_encoder(self._given, cache=self._cache)
                export_encoder(encoder, self._folder, *_samples(self._library))
                if shared is not None:
                    _link_tree(self._folder, shared)
        return self._open_exported()

    def _open_exported(self) -> Encoder:
        uri = self._given if isinstance(self._given, str) else self._given.uri
        return load_encoder(uri, exported=self._folder, threads=1)


def _samples(library: ImageLibrary) -> tuple[list[Image.Image], list[str]]:
    """Pictures from all over the library, as far as that can be had without reading all of it, and what is said of
    them.
    """
    stride = min(max(1, (library.count or 0) // EXPORT_SAMPLES), EXPORT_STRIDE)
    images, texts = [], []
    for entry in islice(library.entries(), 0, EXPORT_SAMPLES * stride, stride):
        try:
            images.append(load_image(entry.read()))
        except ImageError:
            continue
        text = entry.caption or entry.label
        if text:
            texts.append(text)
    if not images:
        raise BuildError(f"{library.source} has no picture that can be used among its first.")
    return images, list(dict.fromkeys(texts))


def _finder(digests: Digests, old: Index | None) -> Callable[[str], Digest]:
    old_rows = {content: row for row, content in enumerate(old.column("content"))} if old else {}

    def find(content: str) -> Digest:
        if old is None or content not in old_rows:
            return digests.get(content)
        row = old_rows[content]
        record = old.record(row)
        return Digest(
            content, record.width, record.height, old.pixels.vectors[row], old.thumbnail(row), old.embeddings[row]
        )

    return find


def _identity(rows: list[Row], encoder: str, pixel_size: int) -> str:
    """A hash of all that the data of an index depends on."""
    # With the files that an index of an earlier release may lack: it then gets them by being built again.
    identity = hashlib.sha256(repr((layout.FORMAT, layout.MAP, layout.EVALUATION, encoder, pixel_size)).encode())
    for row in rows:
        identity.update(repr((row.entry, row.content)).encode("utf-8", "surrogateescape"))
    return identity.hexdigest()[:16]


def _open_if_alike(folder: Path, encoder: str, pixel_size: int, cache: Path | None) -> Index | None:
    """The index there is, if its rows can be used again."""
    try:
        index = Index.open(folder, cache=cache)
    except InvalidIndexError:
        return None
    alike = index.manifest.encoder.uri == encoder and index.manifest.pixel_size == pixel_size
    return index if alike else None


def _link_tree(source: Path, target: Path) -> None:
    """A copy of a folder of files that are never written to again: by links where the file system has them."""

    def link(file: str, copy: str) -> str:
        try:
            os.link(file, copy)
        except OSError:
            shutil.copyfile(file, copy)
        return copy

    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=link)
    try:
        partial.rename(target)
    except OSError:  # another process was first with the same content
        shutil.rmtree(partial)


def _ours(path: Path) -> bool:
    return path.name in (WORK, OWNER) or path.name.startswith(("data-", f".{layout.MANIFEST}"))
