"""How does a file of any length lie on the disk in parts of bounded size, and in memory in one piece?

It is cut as `split -b` does: `name`, `name.1`, `name.2` and so on, of SHARD bytes each but the last. Put one after the
other they are the file, and a file that is no longer than SHARD keeps its one name.
"""

import ctypes
import mmap
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

SHARD = 10**9 // 2**20 * 2**20
"""Bytes of a part, just below 1 GB: a multiple of every page size, so that in memory parts can follow on each other."""

_MAP_FIXED = 0x10  # on Linux, macOS and the BSDs; Python's mmap has no name for it


def cut(path: Path) -> None:
    """Cuts a finished file into parts, in the place of older ones; at no time is there more than one part twice.

    Nobody may read `path` meanwhile; maps of the older parts stay as they are. Raises OSError.
    """
    for older in _later_parts(path):
        older.unlink()
    with path.open("r+b") as file:
        for number in reversed(range(1, -(-os.fstat(file.fileno()).st_size // SHARD))):
            file.seek(number * SHARD)
            with _part(path, number).open("xb") as part:
                shutil.copyfileobj(file, part)
            file.truncate(number * SHARD)


def mapped(path: Path) -> npt.NDArray[np.uint8]:
    """The bytes (n,) of a file that was cut, or was not: one read-only memmap, which reads nothing yet.

    The memory is let go of with the last array on it. Raises OSError, and ValueError for parts that do not make a file,
    or on a system where several cannot be mapped as one.
    """
    later = _later_parts(path)
    parts = [path, *(_part(path, number) for number in range(1, len(later) + 1))]
    if lacking := set(parts[1:]) - later:
        raise ValueError(f"{path.name} has {len(parts)} parts, but no {min(lacking).name}")
    sizes = [part.stat().st_size for part in parts]
    if not later:
        return np.memmap(path, np.uint8, "r") if sizes[0] else np.empty(0, np.uint8)
    for part, size in zip(parts, sizes, strict=True):
        if size != SHARD and not (part == parts[-1] and 0 < size < SHARD):
            raise ValueError(f"the part {part.name} of a file in {len(parts)} parts has {size} bytes")
    if not hasattr(mmap, "PROT_READ"):
        raise ValueError(f"{path.name} lies in {len(parts)} parts, which this system cannot map into memory as one")
    # A place for all of it, that Python frees; the parts are laid over it one by one.
    place = mmap.mmap(-1, sum(sizes), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)
    array = np.frombuffer(place, np.uint8).view(np.memmap)
    vars(array).update(_mmap=place, filename=path.resolve(), mode="r", offset=0)
    for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        _lay(part, size, array.ctypes.data + number * SHARD)
    return array


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _later_parts(path: Path) -> set[Path]:
    """All parts that are there but the first, whether or not they make a file."""
    return {other for other in path.parent.iterdir() if other.stem == path.name and other.suffix[1:].isdecimal()}


def _lay(part: Path, size: int, address: int) -> None:
    """Maps a file at an address, in the place of what is mapped there."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    with part.open("rb") as file:
        if function(address, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, file.fileno(), 0) != address:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(part))
