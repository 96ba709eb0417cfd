"""The build road: `build_index` turns a library into an index in seven stages.

    extract_features           pixel vector, thumbnail and embedding of each new picture, into the feature cache
    assemble                   matrices, thumbnails and records, in the order of the library
    write_search_structures    pixel index, Chroma collection with its recall audit, exported encoder
    write_evaluation           precision, mAP and recall of all five methods
    write_duplicates           the groups of equal and nearly equal pictures
    write_calibration          the scores of queries without a match in the library
    audit_filters              how much Chroma finds by label filters; filters.py

The map is drawn beside all stages that follow `assemble`; duplicates and filters are looked for beside the evaluation.

An engine runs the first stage: threads of this process, or Ray (ray.py). All stages write below `.building` in the
index folder. At the end the new manifest replaces the old one. A process that is killed leaves either the old index or
the new one, and loses at most the batch that it was working on.
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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock, Timeout
from PIL import Image
from threadpoolctl import threadpool_limits

from imgret import held_out
from imgret import index as layout
from imgret.build.calibrate import calibrate
from imgret.build.features import FeatureCache, FeatureExtractor, ImageFeatures, Outcome
from imgret.build.filters import audit_filters
from imgret.duplicates import MAX_PICTURES, DuplicateGroup, find_duplicates
from imgret.encoders import (
    Encoder,
    EncoderError,
    can_export,
    export_encoder,
    fingerprint,
    load_encoder,
    ready_towers,
    uri_of,
)
from imgret.encoders.texts import TextEmbeddings
from imgret.errors import ImgretError, one_line
from imgret.evaluate import EvaluationError, HeldOut, affordable_queries, evaluate, evaluate_held_out
from imgret.files.npy import new_array, open_array
from imgret.images import ImageError, load_image
from imgret.index import EncoderInfo, FilterShare, Index, InvalidIndexError, LibraryInfo, Manifest, VectorLocation
from imgret.library import Entry, ImageLibrary
from imgret.pixels import PixelIndex, is_small
from imgret.projection import tsne_layout
from imgret.search import Retriever
from imgret.vectors import ChromaServer, FilterAudit, RecallAudit, VectorStore, collection_of, drop, ping

BATCH = 16
AHEAD = 4 * BATCH
SKIPPED_LISTED = 1000
WORK, OWNER = ".building", ".owner"
EXPORT_SAMPLES, EXPORT_STRIDE = 64, 50
"""How many pictures the exported encoder is compared with the original on, and their largest distance in rows."""

MAX_QUERIES, MAX_COMPARISONS = 1000, 2_000_000
"""How many queries the evaluation in an index takes. Each one ranks the whole library.
"""
EXAMPLES = 16
"""How many held-out pictures an index keeps."""

COMPILE = "import os; getattr(os, 'nice', int)(15); from imgret.pixels.sketches import Sketches; Sketches.warm()"

Result = TypeVar("Result")

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total); total is None as long as it is not known."""

Write = Callable[[npt.NDArray[np.float32], Sequence[str | None], Callable[[int], None]], RecallAudit]
"""Writes embeddings (N, d) and their labels to a Chroma collection; calls back with the number of rows written."""

Engine = Callable[[ImageLibrary, FeatureExtractor], Generator[Outcome]]
"""Runs a feature extractor over a library; yields the outcomes in the order of the library."""


class BuildError(ImgretError):
    """An index that cannot be built; the text says why and what would work."""


@dataclass(frozen=True)
class Row:
    """A row of the new index: its entry in the library, and the SHA-256 of its encoded picture."""

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
    queries: ImageLibrary | None = None,
) -> Index:
    """Builds the index of `library` in `folder`, or updates the one that is there, and opens it.

    Only new pictures are decoded and embedded: features are taken from the old index, and from a build that was cut
    off. Pictures that cannot be decoded are skipped and listed in the manifest.

    Args:
        library: what to index, in its order.
        folder: a new or empty folder, or that of an index.
        encoder: its URI, or an encoder that is loaded already.
        pixel_size: the side of the squares that the pixel metrics compare, 1 to 1024.
        progress: called with (stage, done, total).
        cache: the folder for working copies and encoders; default ~/.cache/imgret.
        engine: what decodes and embeds, threads of this process or `imgret.build.ray.on_ray`. The index is the same.
        chroma: a Chroma server or its address, which then gets the vectors instead of the folder, in a collection named
            after their content. Of what builds in this folder wrote there, the collection of the index before stays for
            those who still search it; what is older is dropped.
        queries: pictures that are not in the library, with labels, to search with for the evaluation and as examples on
            the page; by default the library's own test split, `library.held_out`.

    Raises:
        BuildError, VectorError: the index cannot be built or its vectors cannot be written. What the library, the
            encoder and the engine raise is passed on. The old index stays as it was.
    """
    folder = Path(folder)
    chroma = ChromaServer(chroma) if isinstance(chroma, str) else chroma
    if isinstance(pixel_size, bool) or not isinstance(pixel_size, int) or not 1 <= pixel_size <= 1024:
        raise BuildError(
            "The pixel size is {pixel_size!r}; it must be a whole number from 1 to 1024.", pixel_size=pixel_size
        )
    if folder.exists() and not folder.is_dir():
        raise BuildError("{folder} is a file; an index needs a folder.", folder=folder)
    if folder.is_dir() and not (folder / layout.MANIFEST).exists() and not all(map(_ours, folder.iterdir())):
        raise BuildError("{folder} holds other files and no index; name a new or empty folder.", folder=folder)
    if chroma is not None:
        ping(chroma)  # before anything is embedded for it
    work = folder / WORK
    lock = FileLock(work / "lock")
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        queries = queries or library.held_out
        _build(library, queries, folder, work, encoder, pixel_size, progress, cache, engine or in_threads, chroma)
        shutil.rmtree(work, ignore_errors=True)  # Windows removes no lock that is held; the next build takes it
    except Timeout:
        raise BuildError("Another build is writing to {folder}; wait for it to end.", folder=folder) from None
    except (OSError, MemoryError, sqlite3.Error) as error:
        raise BuildError(
            "The index in {folder} cannot be built ({reason}); what was there is as it was, and a build "
            "that is started again goes on from here.",
            folder=folder,
            reason=one_line(error),
        ) from error
    finally:
        lock.release()
    return Index.open(folder, chroma, cache=cache)


def _owner(folder: Path) -> str:
    """The id of this index folder on a Chroma server. A copy of the folder gets another one, by its inode."""
    path, here = folder / OWNER, f"-{folder.stat().st_ino}"
    owner = path.read_text() if path.exists() else ""
    if not owner.endswith(here):
        owner = uuid4().hex + here
        path.write_text(owner)
    return owner


def _build(
    library: ImageLibrary,
    queries: ImageLibrary | None,
    folder: Path,
    work: Path,
    encoder: str | Encoder,
    pixel_size: int,
    progress: Progress,
    cache: Path | None,
    engine: Engine,
    chroma: ChromaServer | None,
) -> None:
    uri = uri_of(encoder) if isinstance(encoder, str) else encoder.uri
    made_by = (fingerprint(uri) if isinstance(encoder, str) else encoder.fingerprint) or uri
    kind = hashlib.sha256(f"{made_by}\0{pixel_size}".encode()).hexdigest()[:12]
    with ExitStack() as stack:
        old = _open_if_alike(folder, uri, made_by, pixel_size, cache)
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
        features = stack.enter_context(closing(FeatureCache(work / f"features-{kind}.sqlite3", in_old)))
        for_build = _BuildEncoder(encoder, library, work / f"encoder-{kind}", old, cache)
        extractor = FeatureExtractor(lambda: for_build.encoder, for_build.batch, pixel_size, features.known)
        outcomes = stack.enter_context(closing(engine(library, extractor)))
        rows, skipped = extract_features(library, outcomes, features, progress)
        library.skipped = tuple(skipped)
        if not rows:
            if not skipped:
                raise BuildError("{source} has no picture that can be used.", source=library.source)
            raise BuildError(
                "{source} has no picture that can be used; {count} were skipped, the first because: {reason}",
                source=library.source,
                count=len(skipped),
                reason=skipped[0][1],
            )
        content, draft = _identity(rows, queries, made_by, pixel_size), work / "data"
        data = f"data-{content}{layout.SERVED if chroma else ''}"
        labels = [row.entry.label for row in rows]
        write: Write = partial(VectorStore.create, draft / layout.VECTORS)
        location = None
        if chroma is not None:
            location = VectorLocation(chroma.url, collection_of(content))
            write = partial(VectorStore.write, chroma, location.collection, _owner(folder))
        of_this_build: dict[str, Any] = {
            "library": LibraryInfo.of(library),
            "skipped_count": len(skipped),
            "skipped": tuple(skipped[:SKIPPED_LISTED]),
            "description": library.description.lines,
            "stamp": library.stamp,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if old is not None and old.manifest.data == data:
            manifest = replace(old.manifest, **of_this_build)
            if chroma is not None:
                recall = write(old.embeddings, old.column("label"), lambda done: progress("vectors", done, len(rows)))
                manifest = replace(manifest, recall=recall, vectors=location)
        else:
            info = for_build.info()
            assemble(rows, _finder(features, old), info.dim, pixel_size, draft, progress)
            # t-SNE keeps only one core busy, so all that follows goes on beside it.
            beside = stack.enter_context(ThreadPoolExecutor(1))
            drawn = beside.submit(tsne_layout, open_array(draft / layout.EMBEDDINGS))
            manifest = Manifest(
                format=layout.FORMAT,
                data=draft.name,
                encoder=info,
                pixel_size=pixel_size,
                count=len(rows),
                labels=layout.count_labels(label for row in rows for label in row.entry.labels),
                recall=write_search_structures(draft, labels, for_build.exported, write, progress),
                files={},
                vectors=location,
                **of_this_build,
            )
            if compiling is not None:
                compiling.wait()
            filtered = _finish_draft(work, manifest, for_build, queries, draft, progress, chroma)
            progress("map", 0, len(rows))
            np.save(draft / layout.MAP, drawn.result())
            del drawn  # and the mapped embeddings with it
            shutil.rmtree(folder / data, ignore_errors=True)  # left by a kill between this switch and the manifest's
            os.rename(draft, folder / data)
            manifest = replace(manifest, data=data, files=layout.list_files(folder, data), filtered=filtered)
    before = _collection_before(folder)
    layout.write_manifest(folder, manifest)
    for path in folder.glob("data-*"):
        if path.name != data:
            shutil.rmtree(path, ignore_errors=True)  # what somebody still reads stays on Windows until the next build
    if chroma is not None and location is not None:
        drop(chroma, _owner(folder), [location.collection, *before])


def _collection_before(folder: Path) -> list[str]:
    """The name of the collection on a server that the index in `folder` has, if there is one."""
    try:
        location = Manifest.read(folder).vectors
    except InvalidIndexError:
        return []
    return [location.collection] if location else []


def _finish_draft(
    work: Path,
    manifest: Manifest,
    for_build: "_BuildEncoder",
    queries: ImageLibrary | None,
    draft: Path,
    progress: Progress,
    chroma: ChromaServer | None,
) -> Mapping[FilterShare, FilterAudit | None]:
    """Adds the results of `imgret evaluate`, the duplicates and some held-out pictures to the draft. Returns the audit
    of label filters.

    Then nothing of it is open: Windows would not move it.
    """
    with (
        # Matrix products of several threads that take several threads each wait for each other: on busy cores they
        # took up to thirty times as long.
        threadpool_limits(1, "blas"),
        closing(Index(work, manifest, work, chroma)) as unfinished,
        ThreadPoolExecutor(1) as beside,
    ):
        # Both keep only one core busy.
        groups = _Beside(beside, partial(write_duplicates, unfinished, draft))
        filtered = _Beside(beside, partial(audit_filters, unfinished))
        texts = TextEmbeddings(lambda: for_build.encoder)
        write_evaluation(Retriever(unfinished, lambda: for_build.encoder), queries, texts, draft, progress)
        write_calibration(unfinished, groups.result(progress), texts, draft, progress)
        audit = filtered.result(progress)
    if queries is not None:
        write_held_out(queries, draft)
    return audit


def in_threads(library: ImageLibrary, extractor: FeatureExtractor) -> Generator[Outcome]:
    """The engine of one process: one thread for each core, with a bounded number of pictures in memory."""
    entries = library.entries()
    waiting: deque[Future[list[Outcome]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while some := list(islice(entries, extractor.batch)):
                waiting.append(pool.submit(extractor, some))
                if len(waiting) * extractor.batch >= AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def extract_features(
    library: ImageLibrary, outcomes: Iterable[Outcome], features: FeatureCache, progress: Progress
) -> tuple[list[Row], list[tuple[str, str]]]:
    """Adds new features to the cache. Returns the usable rows in order, and `(id, reason)` of the skipped ones."""
    rows: list[Row] = []
    skipped: list[tuple[str, str]] = []
    made: list[ImageFeatures] = []
    progress("pictures", 0, library.count)
    for done, (entry, outcome, new) in enumerate(outcomes, start=1):
        if isinstance(outcome, ImageError):
            skipped.append((entry.id, str(outcome)))
        else:
            rows.append(Row(entry, outcome))
            if new is not None:
                made.append(new)
            if len(made) == BATCH:
                features.add(made)
                made.clear()
        progress("pictures", done, library.count)
    features.add(made)
    return rows, skipped


def assemble(
    rows: list[Row], find: Callable[[str], ImageFeatures], dim: int, pixel_size: int, draft: Path, progress: Progress
) -> None:
    """Writes matrices, thumbnails and records of `rows`, in their order, to the folder `draft`, and splits large
    files.
    """
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
                    | {"labels": _if_several(entry.labels), "all_captions": _if_several(entry.all_captions)}
                    | {"width": found.width, "height": found.height}
                    | {"thumbnail_start": start, "thumbnail_size": len(found.thumbnail)}
                )
                start += len(found.thumbnail)
            records.write_batch(pa.RecordBatch.from_pylist(chunk, schema=layout.RECORD_SCHEMA))
            progress("assemble", first + len(chunk), len(rows))
    embeddings.flush()
    pixels.flush()
    del embeddings, pixels  # reading a map beyond the end of its file ends the process


def write_search_structures(
    draft: Path, labels: list[str | None], encoder: Path | None, write: Write, progress: Progress
) -> RecallAudit:
    """Adds pixel index, Chroma collection and exported encoder to the assembled folder; returns the recall audit."""
    matrix = open_array(draft / layout.PIXELS / layout.PIXEL_MATRIX)
    fitted = PixelIndex.fit(matrix, lambda done, total: progress("pixel index", done, total))
    fitted.save(draft / layout.PIXELS)
    if encoder is not None:
        _link_tree(encoder, draft / layout.ENCODER)
    embeddings = open_array(draft / layout.EMBEDDINGS)
    return write(embeddings, labels, lambda done: progress("vectors", done, len(labels)))


def write_evaluation(
    retriever: Retriever, held_out: ImageLibrary | None, texts: TextEmbeddings, draft: Path, progress: Progress
) -> None:
    """Adds the results of `imgret evaluate` to the folder, if the pictures have labels or captions; those of held-out
    queries, too, if there are such.
    """
    queries = min(MAX_QUERIES, affordable_queries(len(retriever.index), MAX_COMPARISONS))
    try:
        found = evaluate(retriever, queries, progress, texts=texts)
    except EvaluationError:
        return
    if held_out is not None:
        found = replace(found, held_out=_held_out_figures(retriever, held_out, queries, progress))
    (draft / layout.EVALUATION).write_text(json.dumps(asdict(found), ensure_ascii=False), encoding="utf-8")


def write_calibration(
    index: Index, groups: Sequence[DuplicateGroup], texts: TextEmbeddings, draft: Path, progress: Progress
) -> None:
    """Adds the scores of queries without a match to the folder."""
    found = calibrate(index, groups, texts, progress)
    if found is not None:
        (draft / layout.CALIBRATION).write_text(json.dumps(found), encoding="utf-8")


def _held_out_figures(retriever: Retriever, library: ImageLibrary, queries: int, progress: Progress) -> HeldOut | None:
    try:
        return evaluate_held_out(retriever, library, progress, queries=queries)
    except EvaluationError:  # none of them has a label of the index
        return None


def write_held_out(queries: ImageLibrary, draft: Path) -> None:
    """Adds some of the held-out pictures to the folder, of as many labels as there are."""
    chosen = {*held_out.spread((entry.labels for entry in queries.entries()), EXAMPLES)}
    kept = []
    for row, entry in enumerate(queries.entries()):
        if row not in chosen:
            continue
        try:
            picture = held_out.packed(load_image(entry.read()))
        except ImageError:
            continue
        kept.append(held_out.HeldOutPicture(entry.id, entry.labels, entry.caption, entry.captions, picture))
    held_out.write(draft / layout.HELD_OUT, kept)


def write_duplicates(index: Index, draft: Path, progress: Progress) -> tuple[DuplicateGroup, ...]:
    """Adds the groups of equal and nearly equal pictures to the folder, and returns them; none where there are too many
    pictures to look for them.
    """
    if len(index) > MAX_PICTURES:
        return ()
    groups = find_duplicates(index, progress=lambda done, total: progress("duplicates", done, total))
    found = {"groups": [{"kind": group.kind, "rows": group.rows} for group in groups]}
    (draft / layout.DUPLICATES).write_text(json.dumps(found), encoding="utf-8")
    return groups


class _Beside(Generic[Result]):
    """A stage that runs beside others. What it says of its progress is passed on while the build waits for it."""

    def __init__(self, pool: ThreadPoolExecutor, stage: Callable[[Progress], Result]) -> None:
        self._said: tuple[str, int, int | None] | None = None
        self._future = pool.submit(stage, self._keep)

    def _keep(self, stage: str, done: int, total: int | None) -> None:
        self._said = stage, done, total

    def result(self, progress: Progress) -> Result:
        """What the stage returns, once it has; what it raises."""
        while wait([self._future], timeout=0.2).not_done:
            if self._said is not None:
                progress(*self._said)
        return self._future.result()


class _BuildEncoder:
    """The encoder of a build, loaded for the first new picture.

    It is the encoder in ONNX that the index will contain, so that queries and pictures go through the same towers: one
    that comes with its towers, that of the old index, that of a build that was cut off, or a new export in `folder`. On
    a GPU torch embeds the pictures. Another kind of encoder is used as it is.
    """

    def __init__(
        self, given: str | Encoder, library: ImageLibrary, folder: Path, old: Index | None, cache: Path | None
    ) -> None:
        self._given, self._library, self._folder, self._old, self._cache = given, library, folder, old, cache
        self._encoder: Encoder | None = None
        self._error: EncoderError | None = None
        self._lock = threading.Lock()
        # In ONNX each core embeds its own batch; more than 8 pictures gain nothing and leave a core idle at the end.
        self.batch = 8 if self._runs_exported else BATCH

    @property
    def _runs_exported(self) -> bool:
        given = self._given
        return isinstance(given, str) or self._ready is not None or (can_export(given) and given.device == "cpu")

    @property
    def _ready(self) -> Path | None:
        """The folder of the towers that the encoder comes with, if it does."""
        return ready_towers(self._given) if isinstance(self._given, str) else self._given.folder

    @property
    def encoder(self) -> Encoder:
        with self._lock:
            if self._error is not None:  # the other workers ask too, and must not repeat a download that failed
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
        """The folder of the encoder in ONNX, if there is one."""
        if self._ready is not None:
            return self._ready
        if not self._folder.exists() and self._old is not None and self._old.encoder_folder is not None:
            _link_tree(self._old.encoder_folder, self._folder)
        return self._folder if self._folder.exists() else None

    def info(self) -> EncoderInfo:
        if self._encoder is None and self._old is not None:
            return self._old.manifest.encoder
        encoder = self.encoder
        report = encoder.report if self.exported is None else self._open_exported().report
        made_by = encoder.fingerprint if self.exported is None else self._open_exported().fingerprint
        return EncoderInfo(encoder.uri, encoder.dim, tuple(encoder.languages), report, made_by)

    def _make(self) -> Encoder:
        if not isinstance(self._given, str):
            encoder = self._given
            if can_export(encoder) and self.exported is None:
                export_encoder(encoder, self._folder, *_samples(self._library))
            return self._open_exported() if self._runs_exported else encoder
        if self.exported is None:
            encoder = load_encoder(self._given, cache=self._cache)
            if not can_export(encoder):
                return encoder
            export_encoder(encoder, self._folder, *_samples(self._library))
        return self._open_exported()

    def _open_exported(self) -> Encoder:
        uri = self._given if isinstance(self._given, str) else self._given.uri
        return load_encoder(uri, exported=self.exported, threads=1)


def _if_several(words: tuple[str, ...]) -> list[str] | None:
    return list(words) if len(words) > 1 else None


def _samples(library: ImageLibrary) -> tuple[list[Image.Image], list[str]]:
    """Samples of pictures and texts, spread over the library as far as that needs no complete read of it."""
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
        raise BuildError("{source} has no picture that can be used among its first.", source=library.source)
    return images, list(dict.fromkeys(texts))


def _finder(features: FeatureCache, old: Index | None) -> Callable[[str], ImageFeatures]:
    old_rows = {content: row for row, content in enumerate(old.column("content"))} if old else {}

    def find(content: str) -> ImageFeatures:
        if old is None or content not in old_rows:
            return features.get(content)
        row = old_rows[content]
        record = old.record(row)
        return ImageFeatures(
            content, record.width, record.height, old.pixels.vectors[row], old.thumbnail(row), old.embeddings[row]
        )

    return find


def _identity(rows: list[Row], queries: ImageLibrary | None, encoder: str, pixel_size: int) -> str:
    """A hash of all that the data of an index depends on."""
    # It includes the names of what earlier releases did not write, so that a rebuild adds them.
    parts = (layout.MAP, layout.EVALUATION, layout.DUPLICATES, layout.CALIBRATION, *layout.FILTER_SHARES)
    kind = (layout.FORMAT, *parts, encoder, pixel_size)
    identity = hashlib.sha256(repr(kind).encode())
    if queries is not None:
        identity.update(repr(queries.revision or queries.source).encode())
    for row in rows:
        identity.update(repr((row.entry, row.content)).encode("utf-8", "surrogateescape"))
    return identity.hexdigest()[:16]


def _open_if_alike(folder: Path, uri: str, made_by: str, pixel_size: int, cache: Path | None) -> Index | None:
    """The old index, if its rows can be reused."""
    try:
        index = Index.open(folder, cache=cache)
    except InvalidIndexError:
        return None
    encoder = index.manifest.encoder
    alike = encoder.uri == uri and made_by in (uri, encoder.fingerprint) and index.manifest.pixel_size == pixel_size
    return index if alike else None


def _link_tree(source: Path, target: Path) -> None:
    """Copies a folder of read-only files, by hard links where the file system allows."""

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
