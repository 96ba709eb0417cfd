"""Finds the folder for what imgret can make again: in the user's home, or a temporary one if that is read-only."""

import atexit
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)


@cache
def cache_folder() -> Path:
    """~/.cache/imgret; in a container whose home cannot be written, a folder that is removed with this process."""
    try:
        folder = Path.home() / ".cache" / "imgret"
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if os.access(there, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError) as error:  # nobody knows this user's home
        log.debug("%s", error)
        folder = Path("~/.cache/imgret")
    temporary = Path(tempfile.mkdtemp(prefix="imgret-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    log.warning(
        "%s cannot be written, so nothing is kept after this run; set IMGRET_CACHE to a folder that can.", folder
    )
    return temporary
