"""Makes ready what a demo searches: finds, fetches or builds the index that the settings ask for."""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imgret.build import BuildError, Progress, build_index
from imgret.encoders import EncoderError
from imgret.hub import MOUNT, HubError, fetch, is_repo, publish
from imgret.hub.index_repo import check_writer, read_manifest, told
from imgret.hub.model_card import describe
from imgret.index import Index, InvalidIndexError, LibraryInfo, Manifest
from imgret.library import ImageLibrary, LibraryError, commit_of, is_commit
from imgret.network import hub_answers
from imgret.search import Retriever
from imgret.settings import EXAMPLE_LIBRARY, Settings
from imgret.vectors import ChromaServer, VectorError

log = logging.getLogger(__name__)

FIRST = 500
"""Pictures of a library that are indexed first, so that there is something to search while the rest is."""
SECONDS_BETWEEN_TRIES = 30


class StartError(ValueError):
    """No retriever could be made ready; the text says why."""


@dataclass(frozen=True)
class Ready:
    """A retriever, where its index came from, and, if it is not the configured one, a sentence that says why.

    `stands_in` is whether it is the embedded library in the place of the configured one; `built` the folder of the
    whole configured library, if this process has just built it.
    """

    retriever: Retriever
    origin: str
    notice: str | None = None
    stands_in: bool = False
    built: Path | None = None


def prepare(
    settings: Settings,
    progress: Progress = lambda stage, done, total: None,
    *,
    folder: str | None = None,
    mount: Path = MOUNT,
) -> Ready:
    """The first of these that can be had: the index in `folder` (then nothing else will do); the configured index, a
    folder or a repo whose volume is at `mount`, preloaded or on the Hub; the one built here before; one built now. If
    the configured library or encoder cannot be had, the embedded library with a notice.

    An index made for another library, split, revision or encoder than configured is passed over. If the settings name a
    Chroma server, it has the vectors, and gets those of an index from the Hub. Where it is away, whoever asks for them
    is told; only if an index has to be built, the embedded store is taken instead, with a notice. Raises what the last
    resort raised.
    """
    return deque(prepare_in_steps(settings, progress, folder=folder, mount=mount), maxlen=1).pop()


def prepare_in_steps(
    settings: Settings,
    progress: Progress = lambda stage, done, total: None,
    *,
    folder: str | None = None,
    mount: Path = MOUNT,
) -> Iterator[Ready]:
    """As `prepare`, but while an index is built there is already something to search, with a notice: its library as it
    was before, or its first pictures; before those the embedded library, on a Space and where the configured one is on
    the Hub. What comes last is what `prepare` gives.
    """
    if folder is not None:
        yield Ready(_retriever(_open(folder, settings), settings), f"the folder {folder}")
        return
    part: Ready | None = None
    try:
        for ready in _configured(settings, progress, mount):
            part = ready
            yield ready
    except (LibraryError, EncoderError, BuildError, VectorError) as error:
        log.warning("%s", error)
        if part is not None and not part.stands_in:
            yield replace(part, notice=f"This is all of the library that could be indexed. {error}")
            return
        if isinstance(error, VectorError) and settings.chroma_url is not None:
            notice = f"The vectors are kept here, because the Chroma server cannot be had. {error}"
            for ready in prepare_in_steps(settings.model_copy(update={"chroma_url": None}), progress, mount=mount):
                yield replace(ready, notice=f"{notice} {ready.notice or ''}".strip())
            return
        if _is_embedded(settings):
            raise
        log.info("taking the embedded library instead")
        notice = f"This is the embedded library, because the configured one cannot be had. {error}"
        for ready in [part] if part is not None else _configured(settings.embedded, progress, mount):
            yield replace(ready, notice=notice, stands_in=True, built=None)


def _configured(settings: Settings, progress: Progress, mount: Path) -> Iterator[Ready]:
    given = _given(settings, progress, mount)
    if given is not None:
        yield given
        return
    folder = built_folder(settings)
    index = _opened(folder, settings)
    if index is None and not _is_embedded(settings) and (settings.space or not Path(settings.library).exists()):
        yield from _stand_in(settings, progress, mount)
    try:
        library = _library(settings, settings.limit)
    except LibraryError as error:
        if index is None or index.manifest.library.limit != settings.limit:
            raise
        log.warning("%s", error)
        notice = f"This is the library as it was when its index was built here. {error}"
        yield Ready(_retriever(index, settings), "built here before", notice)
        return
    if index is not None and index.manifest.library == LibraryInfo.of(library) and _kept_as_set(index, settings):
        log.info("taking the index that was built here before")
        yield Ready(_retriever(index, settings), "built here before")
        return
    log.info("building the index of %s with %s", settings.library, settings.encoder)
    if index is None and (library.count is None or library.count > 2 * FIRST):
        # In the same folder: the build of the whole library finds these pictures done.
        index = _build(_library(settings, FIRST), folder, settings, progress)
    if index is not None:
        notice = f"These are {len(index)} pictures of the library, which is still being indexed."
        yield Ready(_retriever(index, settings), "being built", notice)
    yield Ready(_retriever(_build(library, folder, settings, progress), settings), "built now", built=folder)


def _is_embedded(settings: Settings) -> bool:
    return (settings.library, settings.encoder) == (EXAMPLE_LIBRARY, "starter")


def _stand_in(settings: Settings, progress: Progress, mount: Path) -> Iterator[Ready]:
    """The embedded library, until there is something of the configured one; nothing where it cannot be had either."""
    notice = f"This is the embedded library, until {settings.library} has been indexed."
    try:
        for ready in _configured(settings.embedded, progress, mount):
            yield replace(ready, notice=notice, stands_in=True, built=None)
    except (LibraryError, EncoderError, BuildError, VectorError) as error:
        log.warning("The embedded library cannot stand in: %s", error)


def publish_built(ready: Ready, settings: Settings, progress: Progress = lambda stage, done, total: None) -> Ready:
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
        if there is None or _misfit(there, settings) is not None:
            publish(
                folder,
                repo,
                lambda: describe(folder, repo, cache=settings.cache),
                create=True,
                private=_is_private(settings.space),
            )
        log.info("published the index as %s", repo)
        return replace(ready, origin=f"built now, and published as {repo}")
    except (HubError, InvalidIndexError) as error:
        log.warning("The index is not published, so the next start builds it again. %s", error)
        return replace(ready, origin=f"built now, and not published. {error}")


def _is_private(space: str) -> bool:
    from huggingface_hub import HfApi

    with told(space):
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


def _open(folder: str | Path, settings: Settings) -> Index:
    return Index.open(folder, ChromaServer.of(settings), cache=settings.cache)


def _kept_as_set(index: Index, settings: Settings) -> bool:
    """Whether the vectors of an index that was built here are where the settings want them."""
    place, server = index.manifest.vectors, ChromaServer.of(settings)
    return (place and place.url) == (server and server.url)


def _given(settings: Settings, progress: Progress, mount: Path) -> Ready | None:
    """The index that the settings name, a folder or a Hub repo, if it can be had and fits."""
    name = settings.index
    if name is None:
        return None
    try:
        if Path(name).exists() or not is_repo(name):
            index, origin = _open(name, settings), f"the folder {name}"
            if (why := _misfit(index.manifest, settings)) is not None:
                index.close()
                raise HubError(why)
        else:
            log.info("looking for the index %s", name)
            found = fetch(name, lambda manifest: _misfit(manifest, settings), mount=mount, progress=progress)
            index, origin = _open(found.folder, settings), found.origin
            _write_vectors(index, name, settings, progress)
        log.info("taking the index from %s", origin)
        return Ready(_retriever(index, settings), origin)
    except (InvalidIndexError, HubError) as error:
        log.warning("The index %s is passed over: %s", name, error)
        return None


def _write_vectors(index: Index, repo: str, settings: Settings, progress: Progress) -> None:
    """Puts the vectors of an index from the Hub, which nobody builds here, on the server that the settings name."""
    server = ChromaServer.of(settings)
    if server is None:
        return
    try:
        index.write_vectors(server, repo, lambda done: progress("vectors", done, len(index)))
    except VectorError as error:  # told to whoever asks for them
        log.warning("%s", error)


def _opened(folder: Path, settings: Settings) -> Index | None:
    try:
        return _open(folder, settings)
    except InvalidIndexError:
        return None


def built_folder(settings: Settings) -> Path:
    """Where the index for these settings is built: a folder for each library, split, revision, limit and encoder."""
    what = settings.model_dump(
        include={"library", "config", "split", "revision", "limit", "encoder", "pixel_size"}, mode="json"
    )
    return settings.cache / "indexes" / hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _misfit(manifest: Manifest, settings: Settings) -> str | None:
    """Why an index is not the one that the settings ask for, or None."""
    made, source, revision = manifest.library, settings.library, settings.revision
    if Path(source).is_dir():  # may have been named by another path, and may have changed since
        library = ImageLibrary.load(source, settings.split, revision, limit=settings.limit)
        if made.revision != library.revision:
            return f"it was made from other pictures than those in {source} now."
        source = made.source
    if revision is not None and made.source == source and _is_revision(source, made.revision, revision):
        revision = made.revision
    return manifest.misfit(
        source,
        settings.encoder,
        config=settings.config,
        split=settings.split,
        revision=revision,
        limit=settings.limit,
    )


def _is_revision(library: str, made: str | None, wanted: str) -> bool:
    """Whether `wanted`, a commit, a branch or a tag, stands for `made`; of a name nobody can tell without the Hub."""
    if made == wanted or is_commit(wanted):
        return made == wanted
    return commit_of(library, wanted) == made if hub_answers() else True


def _retriever(index: Index, settings: Settings) -> Retriever:
    return Retriever(index, cache=settings.cache)


@dataclass(frozen=True)
class Health:
    """How a demo is: `status` is "ready", "warming" or "degraded", `reason` a sentence unless it is ready; `searchable`
    is whether anything can be asked yet.
    """

    status: str
    reason: str | None
    searchable: bool


class Start:
    """Runs `prepare` in a thread, so that the page answers while an index is built, and then `publish`, which may say
    what became of it. Everybody who needs the retriever waits here, for the whole library or for what there is so far.
    """

    def __init__(
        self,
        prepare: Callable[[Progress], Ready | Iterator[Ready]],
        publish: Callable[[Ready, Progress], Ready] = lambda ready, progress: ready,
    ) -> None:
        self._prepare, self._publish = prepare, publish
        self._something, self._done = threading.Event(), threading.Event()
        self._ready: Ready | None = None
        self._error = ""
        self._warm_done, self._trouble = False, ""
        self.stage: tuple[str, int, int | None] = ("start", 0, None)
        threading.Thread(target=self._run, name="start", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether what is ready now will not be replaced by more; until then `stage` says what is being done."""
        return self._done.is_set()

    def health(self) -> Health:
        """How far the start has come, or what is wrong with what it made ready."""
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

    def wait(self, progress: Callable[[str, int, int | None], None] | None = None) -> Ready:
        """What is ready, as soon as anything is; `progress` hears how far it is meanwhile. Raises StartError."""
        while not self._something.wait(timeout=0.2):
            if progress is not None:
                progress(*self.stage)
        if self._ready is None:
            raise StartError(self._error)
        return self._ready

    def _run(self) -> None:
        try:
            prepared = self._prepare(self._hear)
            for ready in [prepared] if isinstance(prepared, Ready) else prepared:
                self._ready = ready
                self._something.set()
        except ValueError as error:
            log.error("%s", error)
            self._error = str(error)
        except Exception:
            log.exception("the start failed")
            self._error = "The demo could not start; its log says why."
        finally:
            self._done.set()
            self._something.set()
        if self._ready is not None:
            threading.Thread(target=self._warm, args=[self._ready.retriever], name="warm", daemon=True).start()
            self._ready = self._publish(self._ready, self._hear)

    def _warm(self, retriever: Retriever) -> None:
        """After the page is ready; a query that comes too early waits. CLIP first: for a large library a new
        installation, as a Space is at each start, compiles the pixel kernels for 11 s; a built one reads them in 0.3 s.
        """
        left: list[Callable[[], None]] = [retriever.warm_clip, retriever.warm_pixels]
        while left:  # a server that is away comes back
            troubles = [_trouble(warm) for warm in left]
            left = [warm for warm, trouble in zip(left, troubles, strict=True) if trouble]
            trouble = next(filter(None, troubles), "")
            if trouble and trouble != self._trouble:  # told to whoever asks
                log.error("%s", trouble)
            self._trouble, self._warm_done = trouble, True
            if left:
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _hear(self, stage: str, done: int, total: int | None) -> None:
        self.stage = (stage, done, total)


def _trouble(warm: Callable[[], None]) -> str:
    """What is wrong with what `warm` makes ready; "" if nothing is."""
    try:
        warm()
    except ValueError as error:
        return str(error)
    except Exception:
        log.exception("search could not be made ready")
        return "Search could not be made ready; the log says why."
    return ""
