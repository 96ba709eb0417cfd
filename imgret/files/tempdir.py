"""Temporary folders that are removed with their process, even after a kill."""

import shutil
import tempfile
import weakref
from pathlib import Path

from filelock import FileLock, Timeout

from imgret.files import durable

_LOCK = "owner.lock"


class TempFolder:
    """A new folder below `cache`/`purpose`, removed by `close` or at the end of the process.

    A process that is killed leaves its folder behind. The next process that needs a folder for the same purpose removes
    those whose lock is free.
    """

    def __init__(self, cache: Path, purpose: str) -> None:
        parent = cache / purpose
        parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(parent)
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        self._lock = FileLock(self.folder / _LOCK)
        self._lock.acquire()
        self.close = weakref.finalize(self, _remove, self.folder, self._lock)


def _remove(folder: Path, lock: FileLock) -> None:
    if durable.WINDOWS:  # which removes no file that is open
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()


def _remove_orphans(parent: Path) -> None:
    for folder in parent.iterdir():
        lock = FileLock(folder / _LOCK)
        if not (folder / _LOCK).exists():  # being created right now, or not ours
            continue
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        _remove(folder, lock)
