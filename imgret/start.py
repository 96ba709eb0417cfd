"""From settings to a ready retriever: which index, where from, and what if not?"""

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imgret.build import Progress, build_index
from imgret.index import Index, InvalidIndexError, Manifest
from imgret.library import ImageLibrary, LibraryError
from imgret.search import Retriever
from imgret.settings import EXAMPLE_LIBRARY, Settings

log = logging.getLogger(__name__)


class StartError(ValueError):
    """No retriever could be made ready; the text says why."""


@dataclass(frozen=True)
class Ready:
    """A retriever, where its index came from, and, if it is not the configured one, a sentence that says why."""

    retriever: Retriever
    origin: str
    notice: str | None = None


def prepare(
    settings: Settings, progress: Progress = lambda stage, done, total: None, *, folder: str | None = None
) -> Ready:
    """The first of these that can be had: the index in `folder` (then nothing else will do), the configured index, the
    one built here before, one built now; and if the library cannot be read, the embedded library with a notice.

    An index made for another library, split, revision or encoder than configured is passed over. Raises what the last
    resort raised.
    """
    if folder is not None:
        return Ready(_retriever(Index.open(folder, cache=settings.cache), settings), f"the folder {folder}")
    try:
        return _configured(settings, progress)
    except LibraryError as error:
        if settings.library == EXAMPLE_LIBRARY:
            raise
        log.warning("%s", error)
        embedded = settings.model_copy(
            update={"library": EXAMPLE_LIBRARY, "encoder": "starter"}
            | dict.fromkeys(("split", "revision", "limit", "index"))
        )
        ready = _configured(embedded, progress)
        return Ready(
            ready.retriever,
            ready.origin,
            f"This is the embedded library, because the configured one cannot be had. {error}",
        )


def _configured(settings: Settings, progress: Progress) -> Ready:
    if settings.index is not None:
        try:
            index = Index.open(settings.index, cache=settings.cache)
            misfit = _misfit(index.manifest, settings)
            if misfit is None:
                return Ready(_retriever(index, settings), f"the folder {settings.index}")
            index.close()
            log.warning("The index %s is passed over: %s", settings.index, misfit)
        except InvalidIndexError as error:
            log.warning("%s", error)
    folder = built_folder(settings)
    library = ImageLibrary.load(settings.library, settings.split, settings.revision, limit=settings.limit)
    try:
        index = Index.open(folder, cache=settings.cache)
        if index.manifest.library.revision == library.revision:
            return Ready(_retriever(index, settings), "built here before")
        index.close()
    except InvalidIndexError:
        pass
    log.info("building the index of %s with %s", settings.library, settings.encoder)
    index = build_index(library, folder, settings.encoder, settings.pixel_size, progress=progress, cache=settings.cache)
    return Ready(_retriever(index, settings), "built now")


def built_folder(settings: Settings) -> Path:
    """Where the index for these settings is built: a folder for each library, split, revision, limit and encoder."""
    what = (settings.library, settings.split, settings.revision, settings.limit, settings.encoder, settings.pixel_size)
    return settings.cache / "indexes" / hashlib.sha256(repr(what).encode()).hexdigest()[:16]


def _misfit(manifest: Manifest, settings: Settings) -> str | None:
    """Why an index is not the one that the settings ask for, or None."""
    made = manifest.library
    if Path(settings.library).is_dir():  # may have been named by another path, and may have changed since
        library = ImageLibrary.load(settings.library, settings.split, settings.revision, limit=settings.limit)
        if made.revision != library.revision:
            return f"it was made from other pictures than those in {settings.library} now."
    elif made.source != settings.library:
        return f"it was made from the library {made.source}, not {settings.library}."
    if settings.split is not None and made.split != settings.split:
        return f"it was made from the split {made.split}, not {settings.split}."
    if settings.revision is not None and made.revision != settings.revision:
        return f"it was made from the revision {made.revision}, not {settings.revision}."
    if made.limit != settings.limit:
        return f"it was made with the limit {made.limit}, not {settings.limit}."
    if manifest.encoder.uri != settings.encoder:
        return f"it was made with the encoder {manifest.encoder.uri}, not {settings.encoder}."
    return None


def _retriever(index: Index, settings: Settings) -> Retriever:
    return Retriever(index, cache=settings.cache)


class Start:
    """`prepare` in a thread, so that the page answers while an index is built; everybody who needs the retriever waits
    here.
    """

    def __init__(self, prepare: Callable[[Progress], Ready]) -> None:
        self._prepare = prepare
        self._done = threading.Event()
        self._ready: Ready | None = None
        self._error = ""
        self.stage: tuple[str, int, int | None] = ("start", 0, None)
        threading.Thread(target=self._run, name="start", daemon=True).start()

    def wait(self, progress: Callable[[str, int, int | None], None] | None = None) -> Ready:
        """What is ready, as soon as it is; `progress` hears how far it is meanwhile. Raises StartError."""
        while not self._done.wait(timeout=0.2):
            if progress is not None:
                progress(*self.stage)
        if self._ready is None:
            raise StartError(self._error)
        return self._ready

    def _run(self) -> None:
        try:
            ready = self._prepare(self._hear)
            ready.retriever.warm_pixels()
            self._ready = ready
        except ValueError as error:
            log.error("%s", error)
            self._error = str(error)
        except Exception:
            log.exception("the start failed")
            self._error = "The demo could not start; its log says why."
        finally:
            self._done.set()
        if self._ready is not None:
            self._warm_clip(self._ready.retriever)

    def _warm_clip(self, retriever: Retriever) -> None:
        """After the page is ready: the basic metrics answer meanwhile, and a CLIP query that comes too early waits."""
        try:
            retriever.warm_clip()
        except ValueError as error:  # told to whoever asks
            log.error("%s", error)
        except Exception:
            log.exception("CLIP search could not be made ready")

    def _hear(self, stage: str, done: int, total: int | None) -> None:
        self.stage = (stage, done, total)
