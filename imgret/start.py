"""From settings to a ready retriever: which index, where from, and what if not?"""

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from imgret.build import BuildError, Progress, build_index
from imgret.encoders import EncoderError
from imgret.hub import MOUNT, HubError, fetch, is_repo
from imgret.index import Index, InvalidIndexError, LibraryInfo, Manifest
from imgret.library import ImageLibrary, LibraryError, commit_of, is_commit
from imgret.reach import hub_answers
from imgret.search import Retriever
from imgret.settings import EXAMPLE_LIBRARY, Settings

log = logging.getLogger(__name__)

FIRST = 500
"""Pictures of a library that are indexed first, so that there is something to search while the rest is."""


class StartError(ValueError):
    """No retriever could be made ready; the text says why."""


@dataclass(frozen=True)
class Ready:
    """A retriever, where its index came from, and, if it is not the configured one, a sentence that says why."""

    retriever: Retriever
    origin: str
    notice: str | None = None


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

    An index made for another library, split, revision or encoder than configured is passed over. Raises what the last
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
    """As `prepare`, but while an index is built there is already something to search: its library as it was before, or
    its first pictures, with a notice. What comes last is what `prepare` gives.
    """
    if folder is not None:
        yield Ready(_retriever(Index.open(folder, cache=settings.cache), settings), f"the folder {folder}")
        return
    part: Ready | None = None
    try:
        for ready in _configured(settings, progress, mount):
            part = ready
            yield ready
    except (LibraryError, EncoderError, BuildError) as error:
        log.warning("%s", error)
        if part is not None:
            yield replace(part, notice=f"This is all of the library that could be indexed. {error}")
            return
        if (settings.library, settings.encoder) == (EXAMPLE_LIBRARY, "starter"):
            raise
        log.info("taking the embedded library instead")
        embedded = settings.model_copy(
            update={"library": EXAMPLE_LIBRARY, "encoder": "starter"}
            | dict.fromkeys(("config", "split", "revision", "limit", "index"))
        )
        notice = f"This is the embedded library, because the configured one cannot be had. {error}"
        for ready in _configured(embedded, progress, mount):
            yield replace(ready, notice=notice)


def _configured(settings: Settings, progress: Progress, mount: Path) -> Iterator[Ready]:
    given = _given(settings, progress, mount)
    if given is not None:
        yield given
        return
    folder = built_folder(settings)
    index = _opened(folder, settings)
    try:
        library = _library(settings, settings.limit)
    except LibraryError as error:
        if index is None or index.manifest.library.limit != settings.limit:
            raise
        log.warning("%s", error)
        notice = f"This is the library as it was when its index was built here. {error}"
        yield Ready(_retriever(index, settings), "built here before", notice)
        return
    if index is not None and index.manifest.library == LibraryInfo.of(library):
        log.info("taking the index that was built here before")
        yield Ready(_retriever(index, settings), "built here before")
        return
    log.info("building the index of %s with %s", settings.library, settings.encoder)
    if index is None and (library.count is None or library.count > 2 * FIRST):
        # In the same folder: the build of the whole library finds these pictures done.
        first = _library(settings, FIRST)
        index = build_index(
            first, folder, settings.encoder, settings.pixel_size, progress=progress, cache=settings.cache
        )
    if index is not None:
        notice = f"These are {len(index)} pictures of the library, which is still being indexed."
        yield Ready(_retriever(index, settings), "being built", notice)
    index = build_index(library, folder, settings.encoder, settings.pixel_size, progress=progress, cache=settings.cache)
    yield Ready(_retriever(index, settings), "built now")


def _library(settings: Settings, limit: int | None) -> ImageLibrary:
    return ImageLibrary.load(settings.library, settings.split, settings.revision, config=settings.config, limit=limit)


def _given(settings: Settings, progress: Progress, mount: Path) -> Ready | None:
    """The index that the settings name, a folder or a Hub repo, if it can be had and fits."""
    name = settings.index
    if name is None:
        return None
    try:
        if Path(name).exists() or not is_repo(name):
            index, origin = Index.open(name, cache=settings.cache), f"the folder {name}"
            if (why := _misfit(index.manifest, settings)) is not None:
                index.close()
                raise HubError(why)
        else:
            log.info("looking for the index %s", name)
            found = fetch(name, lambda manifest: _misfit(manifest, settings), mount=mount, progress=progress)
            index, origin = Index.open(found.folder, cache=settings.cache), found.origin
        log.info("taking the index from %s", origin)
        return Ready(_retriever(index, settings), origin)
    except (InvalidIndexError, HubError) as error:
        log.warning("The index %s is passed over: %s", name, error)
        return None


def _opened(folder: Path, settings: Settings) -> Index | None:
    try:
        return Index.open(folder, cache=settings.cache)
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
    """`prepare` in a thread, so that the page answers while an index is built; everybody who needs the retriever waits
    here, for the whole library or for what there is of it so far.
    """

    def __init__(self, prepare: Callable[[Progress], Ready | Iterator[Ready]]) -> None:
        self._prepare = prepare
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
                "warming", f"Part of the library can be searched, the rest is being made ready: {self.stage[0]}.", True
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
            self._warm(self._ready.retriever)

    def _warm(self, retriever: Retriever) -> None:
        """After the page is ready; a query that comes too early waits. CLIP first: a new installation, as a Space is at
        each start, compiles the pixel kernels for 11 s, and a built one reads them in 0.3 s.
        """
        for warm in (retriever.warm_clip, retriever.warm_pixels):
            try:
                warm()
            except ValueError as error:  # told to whoever asks
                log.error("%s", error)
                self._trouble = str(error)
            except Exception:
                log.exception("search could not be made ready")
                self._trouble = "Search could not be made ready; the log says why."
        self._warm_done = True

    def _hear(self, stage: str, done: int, total: int | None) -> None:
        self.stage = (stage, done, total)
