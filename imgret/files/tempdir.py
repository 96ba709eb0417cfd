"""Where does a process keep files that need not outlive it?"""

import shutil
import tempfile
import weakref
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = "owner.lock"


class Scratch:
    """A new folder below `cache`/`purpose`, gone when it is closed or its process ends.

    A process that is killed leaves its folder behind; the next one that needs a folder for the same purpose sees that
    nobody holds its lock and removes it.
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
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()


def _remove_orphans(parent: Path) -> None:
    for folder in parent.iterdir():
        lock = FileLock(folder / _LOCK)
        if not (folder / _LOCK).exists():  # being made right now, or not ours
            continue
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        _remove(folder, lock)
