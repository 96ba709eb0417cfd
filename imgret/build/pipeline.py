"""The build pipeline: `build_index` turns a library into an index in seven stages.

    extract_features           pixel vector, thumbnail and embedding of each new picture, into the feature cache
    assemble                   matrices, thumbnails and records, in the order of the library
    write_search_structures    pixel index, Chroma collection with its recall audit, exported encoder
    measure_answers            precision, mAP and recall of all five methods
    group_duplicates           the groups of equal and nearly equal pictures
    calibrate                  the scores of queries without a match in the library; calibrate.py
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
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
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
from threadpoolctl import threadpool_limits

from imgret import held_out, projection, vectors
from imgret import index as layout
from imgret.build.calibrate import calibrate
from imgret.build.encoder import BATCH, BuildEncoder, link_tree
from imgret.build.errors import BuildError
from imgret.build.features import FeatureCache, FeatureExtractor, ImageFeatures, Outcome
from imgret.build.filters import audit_filters
from imgret.duplicates import MAX_PICTURES, DuplicateGroup, find_duplicates
from imgret.encoders import Encoder, fingerprint, uri_of
from imgret.encoders.texts import TextEmbeddings
from imgret.errors import one_line
from imgret.evaluate import (
    BestOthers,
    Evaluation,
    EvaluationError,
    HeldOut,
    affordable_queries,
    evaluate,
    evaluate_held_out,
)
from imgret.files.npy import new_array, open_array
from imgret.images import ImageError, load_image
from imgret.index import Index
from imgret.library import Entry, ImageLibrary
from imgret.manifest import (
    FILTER_SHARES,
    FORMAT,
    MANIFEST,
    SERVED,
    InvalidIndexError,
    LibraryInfo,
    Manifest,
    VectorLocation,
    count_labels,
    list_files,
    write_manifest,
)
from imgret.pixels import PixelIndex, is_small
from imgret.progress import Progress, no_progress
from imgret.projection import tsne_layout
from imgret.search import Retriever
from imgret.vectors import ChromaServer, RecallAudit, VectorStore, collection_of, drop, ping

AHEAD = 4 * BATCH
"""How many pictures threads may have in memory."""
SKIPPED_LISTED = 1000
WORK, OWNER = ".building", ".owner"
MAX_QUERIES, MAX_COMPARISONS = 1000, 2_000_000
"""How many queries the evaluation in an index takes. Each one ranks the whole library."""
EXAMPLES = 16
"""How many held-out pictures an index keeps."""

COMPILE = "import os; getattr(os, 'nice', int)(15); from imgret.pixels.sketches import Sketches; Sketches.warm()"

Result = TypeVar("Result")

Write = Callable[[npt.NDArray[np.float32], Sequence[str | None], Callable[[int], None]], RecallAudit]
"""Writes embeddings (N, d) and their labels to a Chroma collection; calls back with the number of rows written."""

Engine = Callable[[ImageLibrary, FeatureExtractor], Generator[Outcome]]
"""Runs a feature extractor over a library; yields the outcomes in the order of the library."""


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
    progress: Progress = no_progress,
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
        cache: the folder for Chroma's working copies; default ~/.cache/imgret.
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
    if folder.is_dir() and not (folder / MANIFEST).exists() and not all(map(_ours, folder.iterdir())):
        raise BuildError("{folder} holds other files and no index; name a new or empty folder.", folder=folder)
    if chroma is not None:
        ping(chroma)  # before anything is embedded for it
    work = folder / WORK
    lock = FileLock(work / "lock")
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        queries = queries or library.held_out
        _build(_Plan(library, queries, folder, encoder, pixel_size, progress, cache, engine or in_threads, chroma))
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


@dataclass(frozen=True)
class _Plan:
    """What `build_index` was asked for."""

    library: ImageLibrary
    queries: ImageLibrary | None
    folder: Path
    encoder: str | Encoder
    pixel_size: int
    progress: Progress
    cache: Path | None
    engine: Engine
    chroma: ChromaServer | None

    @property
    def work(self) -> Path:
        """The folder of what is not finished yet."""
        return self.folder / WORK

    @property
    def draft(self) -> Path:
        """The folder that becomes the data of the index."""
        return self.work / "data"

    @property
    def uri(self) -> str:
        return uri_of(self.encoder) if isinstance(self.encoder, str) else self.encoder.uri

    @property
    def made_by(self) -> str:
        """What tells the encoder from all others: the hash of its weights, or its URI where that is not known."""
        known = fingerprint(self.uri) if isinstance(self.encoder, str) else self.encoder.fingerprint
        return known or self.uri

    @property
    def kind(self) -> str:
        """A hash of encoder and pixel size, in the names of what a build that was cut off leaves for the next one."""
        return hashlib.sha256(f"{self.made_by}\0{self.pixel_size}".encode()).hexdigest()[:12]


def _build(plan: _Plan) -> None:
    with ExitStack() as stack:
        old = _open_if_alike(plan)
        if old is not None:
            stack.enter_context(closing(old))
        else:
            ahead = stack.enter_context(ThreadPoolExecutor(1))
            ahead.submit(_import_ahead)
        compiling = stack.enter_context(_compiling_kernels(plan))
        in_old = old.column("content") if old else ()
        features = stack.enter_context(closing(FeatureCache(plan.work / f"features-{plan.kind}.sqlite3", in_old)))
        encoder = BuildEncoder(plan.encoder, plan.library, plan.work / f"encoder-{plan.kind}", old)
        extractor = FeatureExtractor(encoder.load, encoder.batch, plan.pixel_size, features.known)
        outcomes = stack.enter_context(closing(plan.engine(plan.library, extractor)))
        rows, skipped = extract_features(plan.library, outcomes, features, plan.progress)
        plan.library.skipped = tuple(skipped)
        if not rows:
            raise _without_pictures(plan.library)
        content = _identity(rows, plan)
        data = f"data-{content}{SERVED if plan.chroma else ''}"
        location = VectorLocation(plan.chroma.url, collection_of(content)) if plan.chroma else None
        if old is not None and old.manifest.data == data:
            manifest = replace(old.manifest, **_noted(plan.library))
            if location is not None:
                write = _vector_writer(plan, location)
                recall = write(
                    old.embeddings, old.column("label"), lambda done: plan.progress("vectors", done, len(rows))
                )
                manifest = replace(manifest, recall=recall, vectors=location)
        else:
            assemble(rows, _finder(features, old), encoder.info().dim, plan.pixel_size, plan.draft, plan.progress)
            manifest = _finish_draft(plan, rows, encoder, location, compiling)
            shutil.rmtree(plan.folder / data, ignore_errors=True)  # left by a kill between this rename and the manifest
            os.rename(plan.draft, plan.folder / data)
            manifest = replace(manifest, data=data, files=list_files(plan.folder, data))
    _switch(plan, manifest)


def _import_ahead() -> None:
    """Imports what comes after the pictures while they are embedded, which leaves the interpreter free. Later, the two
    imports would wait for each other, with a core idle.
    """
    vectors.warm()
    projection.warm()


@contextmanager
def _compiling_kernels(plan: _Plan) -> Iterator[Callable[[], object]]:
    """Compiles the kernels of the pixel search meanwhile, for a library that may need them; yields how to wait for it.

    A new installation compiles for 11 s, once: here, so that no query has to wait for it, and in a process of its own
    that gives way, as exporting an encoder meanwhile holds this one's interpreter. If that fails, the first query
    compiles.
    """
    count = plan.library.count
    if count is not None and is_small(count, 3 * plan.pixel_size**2):
        yield lambda: None
        return
    with subprocess.Popen([sys.executable, "-c", COMPILE], stderr=subprocess.DEVNULL) as process:
        yield process.wait


def _without_pictures(library: ImageLibrary) -> BuildError:
    if not library.skipped:
        return BuildError("{source} has no picture that can be used.", source=library.source)
    return BuildError(
        "{source} has no picture that can be used; {count} were skipped, the first because: {reason}",
        source=library.source,
        count=len(library.skipped),
        reason=library.skipped[0][1],
    )


def _noted(library: ImageLibrary) -> dict[str, Any]:
    """What the manifest says of the library and of this build, even where the data stay as they are."""
    return {
        "library": LibraryInfo.of(library),
        "skipped_count": len(library.skipped),
        "skipped": library.skipped[:SKIPPED_LISTED],
        "description": library.description.lines,
        "stamp": library.stamp,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _vector_writer(plan: _Plan, location: VectorLocation | None) -> Write:
    """Writes to the server, or without a `location` on one into the draft."""
    if plan.chroma is None or location is None:
        return partial(VectorStore.create, plan.draft / layout.VECTORS)
    return partial(VectorStore.write, plan.chroma, location.collection, _owner(plan.folder))


def _finish_draft(
    plan: _Plan,
    rows: list[Row],
    encoder: BuildEncoder,
    location: VectorLocation | None,
    wait_for_kernels: Callable[[], object],
) -> Manifest:
    """Adds to the assembled draft all that is computed from its rows. Returns its manifest, without the list of files.

    At the end nothing of the draft is open: Windows would not move it.
    """
    draft, progress = plan.draft, plan.progress
    write = _vector_writer(plan, location)
    # t-SNE keeps only one core busy, so all that follows goes on beside it.
    with ThreadPoolExecutor(1) as beside:
        drawn = beside.submit(tsne_layout, open_array(draft / layout.EMBEDDINGS))
        manifest = Manifest(
            format=FORMAT,
            data=draft.name,
            encoder=encoder.info(),
            pixel_size=plan.pixel_size,
            count=len(rows),
            labels=count_labels(label for row in rows for label in row.entry.labels),
            recall=write_search_structures(draft, [row.entry.label for row in rows], encoder.exported, write, progress),
            files={},
            vectors=location,
            **_noted(plan.library),
        )
        wait_for_kernels()
        with (
            # Matrix products of several threads that take several threads each wait for each other: on busy cores they
            # took up to thirty times as long.
            threadpool_limits(1, "blas"),
            closing(Index(plan.work, manifest, plan.work, plan.chroma)) as unfinished,
            ThreadPoolExecutor(1) as third,
        ):
            # Both keep only one core busy.
            groups = _Beside(third, partial(group_duplicates, unfinished))
            audit = _Beside(third, partial(audit_filters, unfinished))
            texts = TextEmbeddings(encoder.load)
            others: BestOthers = {}
            try:
                retriever = Retriever(unfinished, encoder.load)
                evaluation = measure_answers(retriever, plan.queries, texts, others, progress)
                duplicates = groups.result(progress)
                calibration = calibrate(unfinished, duplicates or (), texts, others, progress)
                filtered = audit.result(progress)
            finally:
                groups.stop()
                audit.stop()
        write_measures(draft, evaluation, duplicates, calibration)
        if plan.queries is not None:
            write_held_out(plan.queries, draft)
        progress("map", 0, len(rows))
        np.save(draft / layout.MAP, drawn.result())
    return replace(manifest, filtered=filtered)


def _switch(plan: _Plan, manifest: Manifest) -> None:
    """Makes `manifest` that of the index, and removes what the one before it named."""
    before = _collection_before(plan.folder)
    write_manifest(plan.folder, manifest)
    for path in plan.folder.glob("data-*"):
        if path.name != manifest.data:
            shutil.rmtree(path, ignore_errors=True)  # what somebody still reads stays on Windows until the next build
    if plan.chroma is not None and manifest.vectors is not None:
        drop(plan.chroma, _owner(plan.folder), [manifest.vectors.collection, *before])


def _collection_before(folder: Path) -> list[str]:
    """The name of the collection on a server that the index in `folder` has, if there is one."""
    try:
        location = Manifest.read(folder).vectors
    except InvalidIndexError:
        return []
    return [location.collection] if location else []


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
        link_tree(encoder, draft / layout.ENCODER)
    embeddings = open_array(draft / layout.EMBEDDINGS)
    return write(embeddings, labels, lambda done: progress("vectors", done, len(labels)))


def measure_answers(
    retriever: Retriever,
    held_out: ImageLibrary | None,
    texts: TextEmbeddings,
    others: BestOthers,
    progress: Progress,
) -> Evaluation | None:
    """The results of `imgret evaluate`, if the pictures have labels or captions; those of held-out queries, too, if
    there are such.
    """
    queries = min(MAX_QUERIES, affordable_queries(len(retriever.index), MAX_COMPARISONS))
    try:
        found = evaluate(retriever, queries, progress, texts=texts, others=others)
    except EvaluationError:
        return None
    if held_out is not None:
        found = replace(found, held_out=_held_out_figures(retriever, held_out, queries, progress))
    return found


def write_measures(
    draft: Path,
    evaluation: Evaluation | None,
    duplicates: Sequence[DuplicateGroup] | None,
    calibration: dict[str, dict[str, list[Any]]] | None,
) -> None:
    """Adds what was measured to the folder."""
    measures = {
        "evaluation": evaluation and asdict(evaluation),
        "duplicates": duplicates if duplicates is None else [{"kind": g.kind, "rows": g.rows} for g in duplicates],
        "calibration": calibration or {},
    }
    (draft / layout.MEASURES).write_text(json.dumps(measures, ensure_ascii=False), encoding="utf-8")


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


def group_duplicates(index: Index, progress: Progress) -> tuple[DuplicateGroup, ...] | None:
    """The groups of equal and nearly equal pictures; None where there are too many pictures to look for them."""
    if len(index) > MAX_PICTURES:
        return None
    return find_duplicates(index, progress=lambda done, total: progress("duplicates", done, total))


class _Beside(Generic[Result]):
    """A stage that runs beside others. Its progress is passed on while the build waits for it; once the build is
    stopped, it ends where it reports progress.
    """

    def __init__(self, pool: ThreadPoolExecutor, stage: Callable[[Progress], Result]) -> None:
        self._said: tuple[str, int, int | None] | None = None
        self._stopped = False
        self._future = pool.submit(stage, self._keep)

    def _keep(self, stage: str, done: int, total: int | None) -> None:
        if self._stopped:
            raise CancelledError
        self._said = stage, done, total

    def stop(self) -> None:
        """Asks the stage to stop; does nothing if it has ended."""
        self._stopped = True
        self._future.cancel()

    def result(self, progress: Progress) -> Result:
        """What the stage returns, once it has; what it raises."""
        while wait([self._future], timeout=0.2).not_done:
            if self._said is not None:
                progress(*self._said)
        return self._future.result()


def _if_several(words: tuple[str, ...]) -> list[str] | None:
    return list(words) if len(words) > 1 else None


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


def _identity(rows: list[Row], plan: _Plan) -> str:
    """A hash of all that the data of an index depends on."""
    # It includes the names of what earlier releases did not write, so that a rebuild adds them.
    parts = (layout.MAP, layout.MEASURES, *FILTER_SHARES)
    kind = (FORMAT, *parts, plan.made_by, plan.pixel_size)
    identity = hashlib.sha256(repr(kind).encode())
    if plan.queries is not None:
        identity.update(repr(plan.queries.revision or plan.queries.source).encode())
    for row in rows:
        identity.update(repr((row.entry, row.content)).encode("utf-8", "surrogateescape"))
    return identity.hexdigest()[:16]


def _open_if_alike(plan: _Plan) -> Index | None:
    """The old index, if its rows can be reused."""
    try:
        index = Index.open(plan.folder, cache=plan.cache)
    except InvalidIndexError:
        return None
    encoder = index.manifest.encoder
    same_encoder = encoder.uri == plan.uri and plan.made_by in (plan.uri, encoder.fingerprint)
    return index if same_encoder and index.manifest.pixel_size == plan.pixel_size else None


def _ours(path: Path) -> bool:
    return path.name in (WORK, OWNER) or path.name.startswith(("data-", f".{MANIFEST}"))
