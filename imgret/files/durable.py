"""Writes that outlive a crash, and atomic renames, on every operating system."""

import os
import time
from io import BufferedRandom, BufferedReader
from pathlib import Path

WINDOWS = os.name == "nt"

_WAITS = (0.01, 0.05, 0.2, 1, 2)
"""Seconds between tries to replace a file that somebody reads."""


def open_to_flush(path: Path) -> BufferedReader | BufferedRandom:
    """A finished file, opened to be read and flushed: Windows flushes none that was opened only to be read."""
    return path.open("r+b") if WINDOWS else path.open("rb")


def flush_folder(folder: Path) -> None:
    """Flushes the names in `folder` to the disk. Windows opens no folder, and keeps a journal of its names."""
    if WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def switch_name(draft: Path, name: Path) -> None:
    """Gives `draft` the name of a file that is there. Windows replaces no file while somebody reads it, so there it is
    tried again for a while.
    """
    for seconds in _WAITS if WINDOWS else ():
        try:
            os.replace(draft, name)
            return
        except PermissionError:
            time.sleep(seconds)
    os.replace(draft, name)
