"""Reads and writes arrays in .npy files that are larger than memory."""

import mmap
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CHUNK_VALUES = 1 << 22
"""How many values of a long array are processed at once: 32 MiB as float64."""


def read_only(array: Array) -> Array:
    """A read-only view as a plain ndarray, so that compiled code sees one type for mapped and other arrays."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def forget_pages(array: Array) -> None:
    """Releases the pages of a mapped file, which otherwise count as memory of this process."""
    if isinstance(array, np.memmap) and array.mode not in (None, "c") and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def mapped(path: Path) -> npt.NDArray[np.uint8]:
    """The bytes (n,) of a file, memory-mapped to be read. Raises OSError."""
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)


def open_array(file: Path) -> Array:
    """A .npy file of numbers in C order, memory-mapped to be read.

    `np.load` would take an archive or a pickle for one, too. Raises OSError or ValueError.
    """
    array = np.lib.format.open_memmap(file, "r")
    whole = file.stat().st_size == array.offset + array.nbytes
    if not whole or not array.flags.c_contiguous or array.dtype.kind not in "uif":
        raise ValueError(f"{file.name} does not hold the {array.dtype} of shape {array.shape} that it claims to")
    return array


def new_array(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Creates a .npy file as a writable memory map. Raises OSError if the disk has no room for all of it."""
    array = np.lib.format.open_memmap(file, "w+", np.dtype(dtype), shape)
    with file.open("r+b") as opened:
        reserve(opened)
    return array


def reserve(file: IO[bytes]) -> None:
    """Allocates disk blocks for a file that was extended but not filled: on a full disk, a write to a mapped page would
    end the process. Raises OSError.
    """
    size = os.fstat(file.fileno()).st_size
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def write_array(array: Array, file: Path) -> None:
    stored = new_array(file, array.dtype, array.shape)
    step = max(1, 8 * CHUNK_VALUES * len(array) // max(1, array.size))
    for start in range(0, len(array), step):
        stored[start : start + step] = array[start : start + step]
        forget_pages(array)
        forget_pages(stored)
    stored.flush()


def lies_in(array: Array, file: Path) -> bool:
    if not isinstance(array, np.memmap) or array.filename is None:
        return False
    # Some rows of a file are not the file.
    return file.exists() and file.samefile(array.filename) and open_array(file).shape == array.shape
