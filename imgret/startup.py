"""Makes ready what a demo searches: finds, fetches or builds the index that the settings ask for."""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imgret.build import BuildError, build_index
from imgret.encoders import EncoderError
from imgret.errors import ImgretError, Sentence
from imgret.hub import MOUNT, HubError, fetch, is_repo, publish
from imgret.hub.index_repo import check_writer, hub_errors, read_manifest
from imgret.hub.model_card import render_card
from imgret.index import Index
from imgret.library import ImageLibrary, LibraryError, commit_of, is_commit
from imgret.manifest import InvalidIndexError, LibraryInfo, Manifest
from imgret.network import hub_answers
from imgret.progress import Progress, no_progress
from imgret.search import Retriever
from imgret.settings import EXAMPLE_LIBRARY, Settings
from imgret.vectors import ChromaServer, VectorError

log = logging.getLogger(__name__)

FIRST = 500
"""How many pictures are indexed first, so that they can be searched while the rest is indexed."""
SECONDS_BETWEEN_TRIES = 30


class StartupError(ImgretError):
    """No retriever could be made ready; the text says why."""


@dataclass(frozen=True)
class ReadyIndex:
    """A retriever, where its index came from, and, if it is not the configured one, a sentence that says why.

    `stands_in` is whether it is the embedded library in the place of the configured one; `built` the folder of the
    whole configured library, if it was built on this machine.
    """

    retriever: Retriever
    origin: str
    notice: Sentence | None = None
    stands_in: bool = False
    built: Path | None = None


def prepare(
    settings: Settings, progress: Progress = no_progress, *, folder: str | None = None, mount: Path = MOUNT
) -> ReadyIndex:
    """Finds, fetches or builds an index, and returns a retriever for it.

    With `folder`, only the index in that folder is used. Without it, these are tried in order:
    1. the configured index: a folder, or a Hub repo, whose files may be mounted at `mount`, preloaded, or downloaded;
    2. the index that was built here before;
    3. an index built now;
    4. if the configured library or encoder is not available, the embedded library, with a notice.

    An index of another library, split, revision or encoder than configured is not used. If the settings name a Chroma
    server, it holds the vectors, and the vectors of a fetched index are written to it. If the server is away, CLIP
    queries raise VectorError; an index that has to be built now keeps its vectors locally, with a notice. Raises the
    error of the last attempt.
    """
    return deque(prepare_in_steps(settings, progress, folder=folder, mount=mount), maxlen=1).pop()


def prepare_in_steps(
    settings: Settings, progress: Progress = no_progress, *, folder: str | None = None, mount: Path = MOUNT
) -> Iterator[ReadyIndex]:
    """As `prepare`, but yields something to search while an index is built, each with a notice. The last item is what
    `prepare` returns.

    If there is an older index of the library, that is yielded first. Else the embedded library is, on a Space or if the
    configured library is on the Hub; then the index of the first pictures, if the library is large.
    """
    if folder is not None:
        yield ReadyIndex(Retriever(_open_index(folder, settings)), f"the folder {folder}")
        return
    latest: ReadyIndex | None = None
    try:
        for ready in _configured(settings, progress, mount):
            latest = ready
            yield ready
    except (LibraryError, EncoderError, BuildError, VectorError) as error:
        log.warning("%s", error)
        if latest is not None and not latest.stands_in:
            yield replace(
                latest, notice=Sentence("This is all of the library that could be indexed. {error}", error=error)
            )
            return
        if isinstance(error, VectorError) and settings.chroma_url is not None:
            notice = Sentence(
                "The vectors are kept here, because the Chroma server is not available. {error}", error=error
            )
            for ready in prepare_in_steps(settings.model_copy(update={"chroma_url": None}), progress, mount=mount):
                yield replace(ready, notice=Sentence.joined(notice, ready.notice))
            return
        if _is_embedded(settings):
            raise
        log.info("taking the embedded library instead")
        notice = Sentence(
            "This is the embedded library, because the configured one is not available. {error}", error=error
        )
        for ready in [latest] if latest is not None else _configured(settings.with_embedded_library, progress, mount):
            yield replace(ready, notice=notice, stands_in=True, built=None)


def _configured(settings: Settings, progress: Progress, mount: Path) -> Iterator[ReadyIndex]:
    given = _index_named(settings, progress, mount)
    if given is not None:
        yield given
        return
    folder = built_folder(settings)
    index = _open_if_valid(folder, settings)
    if index is None and not _is_embedded(settings) and (settings.space or not Path(settings.library).exists()):
        yield from _stand_in(settings, progress, mount)
    try:
        library = _library(settings, settings.limit)
    except LibraryError as error:
        if index is None or index.manifest.library.limit != settings.limit:
            raise
        log.warning("%s", error)
        notice = Sentence("This is the library as it was when its index was built here. {error}", error=error)
        yield ReadyIndex(Retriever(index), "built here before", notice)
        return
    if index is not None and _is_index_of(index, library, settings) and _vectors_are_in_place(index, settings):
        log.info("taking the index that was built here before")
        # A start that was ended before it had published left this one.
        yield ReadyIndex(Retriever(index), "built here before", built=folder)
        return
    log.info("building the index of %s with %s", settings.library, settings.encoder)
    if index is None and (library.count is None or library.count > 2 * FIRST):
        # In the same folder: the build of the whole library finds these pictures done.
        index = _build(_library(settings, FIRST), folder, settings, progress)
    if index is not None:
        notice = Sentence("These are {count} pictures of the library, which is still being indexed.", count=len(index))
        yield ReadyIndex(Retriever(index), "being built", notice)
    yield ReadyIndex(Retriever(_build(library, folder, settings, progress)), "built now", built=folder)


def _is_embedded(settings: Settings) -> bool:
    return (settings.library, settings.encoder) == (EXAMPLE_LIBRARY, "starter")


def _stand_in(settings: Settings, progress: Progress, mount: Path) -> Iterator[ReadyIndex]:
    """Yields the embedded library until the configured one is available, or nothing if that fails too."""
    notice = Sentence("This is the embedded library, until {library} has been indexed.", library=settings.library)
    try:
        for ready in _configured(settings.with_embedded_library, progress, mount):
            yield replace(ready, notice=notice, stands_in=True, built=None)
    except (LibraryError, EncoderError, BuildError, VectorError) as error:
        log.warning("The embedded library cannot stand in: %s", error)


def publish_built(ready: ReadyIndex, settings: Settings, progress: Progress = no_progress) -> ReadyIndex:
    """Puts the index that a Space has built on the Hub, under the name at which its next start looks for it.

    Needs the Space's secret HF_TOKEN, a token that may write. An index of a private Space becomes a private repo. What
    a second Space or an earlier start has published meanwhile stays. The answer's origin says what came of it.
    """
    if ready.built is None or settings.space is None or settings.index is None or not is_repo(settings.index):
        return ready
    from huggingface_hub import HfApi

    repo, folder, api = settings.index, ready.built, HfApi()
    progress("publish the index", 0, None)
    try:
        check_writer(api, repo)
        there = read_manifest(repo)
        if there is None or _mismatch(there, settings) is not None:
            publish(
                folder,
                repo,
                lambda: render_card(folder, repo, cache=settings.cache),
                create=True,
                private=_is_private(settings.space),
            )
        log.info("published the index as %s", repo)
        return replace(ready, origin=f"{ready.origin}, and published as {repo}")
    except (HubError, InvalidIndexError) as error:
        log.warning("The index is not published, so the next start builds it again. %s", error)
        return replace(ready, origin=f"{ready.origin}, and not published. {error}")


def _is_private(space: str) -> bool:
    from huggingface_hub import HfApi

    with hub_errors(space):
        return bool(HfApi().space_info(space).private)


def _library(settings: Settings, limit: int | None) -> ImageLibrary:
    return ImageLibrary.load(settings.library, settings.split, settings.revision, config=settings.config, limit=limit)


def _build(library: ImageLibrary, folder: Path, settings: Settings, progress: Progress) -> Index:
    return build_index(
        library,
        folder,
        settings.encoder,
        settings.pixel_size,
        progress=progress,
        cache=settings.cache,
        chroma=ChromaServer.of(settings),
    )


def _open_index(folder: str | Path, settings: Settings) -> Index:
    return Index.open(folder, ChromaServer.of(settings), cache=settings.cache)


def _vectors_are_in_place(index: Index, settings: Settings) -> bool:
    """Whether the vectors of an index that was built here are where the settings expect them."""
    location, server = index.manifest.vectors, ChromaServer.of(settings)
    return (location and location.url) == (server and server.url)


def _index_named(settings: Settings, progress: Progress, mount: Path) -> ReadyIndex | None:
    """The index that the settings name, a folder or a Hub repo, if it is available and matches the settings."""
    name = settings.index
    if name is None:
        return None
    try:
        if Path(name).exists() or not is_repo(name):
            index, origin = _open_index(name, settings), f"the folder {name}"
            why = _mismatch(index.manifest, settings)
            if why is None and Path(settings.library).is_dir():
                library = _library(settings, settings.limit)
                why = None if _is_unchanged(index, library, settings) else _other_pictures(settings.library)
            if why is not None:
                index.close()
                raise HubError(why)
        else:
            log.info("looking for the index %s", name)
            found = fetch(name, lambda manifest: _mismatch(manifest, settings), mount=mount, progress=progress)
            index, origin = _open_index(found.folder, settings), found.origin
            _write_vectors(index, name, settings, progress)
        log.info("taking the index from %s", origin)
        return ReadyIndex(Retriever(index), origin)
    except (InvalidIndexError, HubError) as error:
        log.warning("The index %s is passed over: %s", name, error)
        return None


def _write_vectors(index: Index, repo: str, settings: Settings, progress: Progress) -> None:
    """Writes the vectors of a fetched index to the Chroma server that the settings name."""
    server = ChromaServer.of(settings)
    if server is None:
        return
    try:
        index.write_vectors(server, repo, lambda done: progress("vectors", done, len(index)))
    except VectorError as error:  # whoever asks for them gets the error
        log.warning("%s", error)


def _open_if_valid(folder: Path, settings: Settings) -> Index | None:
    with suppress(InvalidIndexError):
        return _open_index(folder, settings)
    return None


def built_folder(settings: Settings) -> Path:
    """The folder in which the index for these settings is built, by library, split, revision, limit and encoder."""
    what = settings.model_dump(
        include={"library", "config", "split", "revision", "limit", "encoder", "pixel_size"}, mode="json"
    )
    return settings.cache / "indexes" / hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _mismatch(manifest: Manifest, settings: Settings) -> str | None:
    """Why an index does not match the settings, or None."""
    made, source, revision = manifest.library, settings.library, settings.revision
    if Path(source).is_dir():  # the path may have another name, and the pictures may have changed
        library = ImageLibrary.load(source, settings.split, revision, limit=settings.limit)
        if made.revision != library.revision:
            return _other_pictures(source)
        source = made.source
    if revision is not None and made.source == source and _is_revision(source, made.revision, revision):
        revision = made.revision
    return manifest.mismatch(
        source, settings.encoder, config=settings.config, split=settings.split, revision=revision, limit=settings.limit
    )


def _other_pictures(source: str) -> str:
    return f"it was made from other pictures than those in {source} now."


def _is_index_of(index: Index, library: ImageLibrary, settings: Settings) -> bool:
    return index.manifest.library == LibraryInfo.of(library) and _is_unchanged(index, library, settings)


def _is_unchanged(index: Index, library: ImageLibrary, settings: Settings) -> bool:
    """Whether the pictures of `library` are those of its index.

    The sizes and times of its files are compared. Only where those are others than at the build, say in a copy of the
    library, all files are read, once: the cache keeps that they were the same.
    """
    seen = settings.cache / "unchanged" / f"{index.manifest.content}-{library.stamp}"
    if seen.exists():
        return True
    if not index.is_of(library):
        return False
    if library.stamp != index.manifest.stamp:
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.touch()
    return True


def _is_revision(library: str, made: str | None, wanted: str) -> bool:
    """Whether `wanted`, a commit, branch or tag, is the commit `made`. Without the Hub a branch or tag counts as a
    match.
    """
    if made == wanted or is_commit(wanted):
        return made == wanted
    return commit_of(library, wanted) == made if hub_answers() else True


@dataclass(frozen=True)
class Health:
    """The state of a demo: `status` is "ready", "warming" or "degraded", `reason` a sentence unless it is ready;
    `searchable` is whether anything can be asked yet.
    """

    status: str
    reason: str | None
    searchable: bool


class Startup:
    """Runs `prepare` in a thread, so that the page answers while an index is built, and then `publish`.

    `wait` gives the newest index that can be searched, as soon as there is one.
    """

    def __init__(
        self,
        prepare: Callable[[Progress], ReadyIndex | Iterator[ReadyIndex]],
        publish: Callable[[ReadyIndex, Progress], ReadyIndex] = lambda ready, progress: ready,
    ) -> None:
        self._prepare, self._publish = prepare, publish
        self._searchable, self._done = threading.Event(), threading.Event()
        self._ready: ReadyIndex | None = None
        self._error = Sentence("")
        self._warm_done, self._trouble = False, ""
        self.stage: tuple[str, int, int | None] = ("start", 0, None)
        threading.Thread(target=self._run, name="start", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether the start is over; until then `stage` says what is being done."""
        return self._done.is_set()

    @property
    def warm(self) -> bool:
        """Whether a query has nothing to wait for."""
        return self._ready is not None and self._warm_done

    def health(self) -> Health:
        """The state of the start, or what is wrong with its result."""
        ready, trouble = self._ready, self._trouble
        if ready is None:
            if self.done:
                return Health("degraded", self._error, False)
            return Health("warming", f"The library is being made ready: {self.stage[0]}.", False)
        if trouble or ready.notice:
            return Health("degraded", trouble or ready.notice, True)
        if not self.done:
            return Health(
                "warming", f"What is there can be searched; the rest is being made ready: {self.stage[0]}.", True
            )
        if not self._warm_done:
            return Health("warming", "The encoder is being loaded; the first queries wait for it.", True)
        return Health("ready", None, True)

    def wait(self, progress: Progress | None = None) -> ReadyIndex:
        """Waits for the first index that can be searched; `progress` is called meanwhile. Raises StartupError."""
        while not self._searchable.wait(timeout=0.2):
            if progress is not None:
                progress(*self.stage)
        if self._ready is None:
            raise StartupError(self._error)
        return self._ready

    def _run(self) -> None:
        try:
            prepared = self._prepare(self._on_progress)
            for ready in [prepared] if isinstance(prepared, ReadyIndex) else prepared:
                self._ready = ready
                self._searchable.set()
        except ImgretError as error:
            log.error("%s", error)
            self._error = error.sentence
        except Exception:
            log.exception("the start failed")
            self._error = Sentence("The demo could not start; its log says why.")
        finally:
            self._done.set()
            self._searchable.set()
        if self._ready is not None:
            threading.Thread(target=self._warm, args=[self._ready.retriever], name="warm", daemon=True).start()
            self._ready = self._publish(self._ready, self._on_progress)

    def _warm(self, retriever: Retriever) -> None:
        """Loads what the first queries need, after the page is ready; a query that comes too early waits.

        CLIP comes first, because the pixel kernels may take longer: for a large library a new installation, as a Space
        is at each start, compiles them for 11 s. Later starts read them in 0.3 s.
        """
        left: list[Callable[[], None]] = [retriever.warm_clip, retriever.warm_pixels]
        while left:  # a server that is away comes back
            troubles = [_trouble(warm) for warm in left]
            left = [warm for warm, trouble in zip(left, troubles, strict=True) if trouble]
            trouble = next(filter(None, troubles), "")
            if trouble and trouble != self._trouble:  # whoever asks gets it from `health`
                log.error("%s", trouble)
            self._trouble, self._warm_done = trouble, True
            if left:
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _on_progress(self, stage: str, done: int, total: int | None) -> None:
        self.stage = (stage, done, total)


def _trouble(warm: Callable[[], None]) -> str:
    """The error of `warm` as a sentence, or ""."""
    try:
        warm()
    except ImgretError as error:
        return str(error)
    except Exception:
        log.exception("search could not be made ready")
        return "Search could not be made ready; the log says why."
    return ""
