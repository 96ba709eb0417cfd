"""How does an array of numbers lie in a .npy file, and in memory only where it is read or written?"""

import io
import math
import mmap
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from imgret.files.split_files import mapped

Array = npt.NDArray[Any]

CHUNK_VALUES = 1 << 22
"""Values of a long array that are worked on at once: 32 MiB as float64."""


def read_only(array: Array) -> Array:
    """The array as a plain one that cannot be written to: one type for compiled code, wherever it comes from."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def forget_pages(array: Array) -> None:
    """Let go of a mapped file's pages, which otherwise count as this process's memory until others ask for it."""
    if isinstance(array, np.memmap) and array.mode not in (None, "c") and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def open_array(file: Path) -> Array:
    """A .npy file of numbers in C order, whole or cut, memory-mapped to be read.

    `np.load` would take an archive or a pickle for one, too. Raises OSError or ValueError.
    """
    stored = mapped(file)
    head = io.BytesIO(stored[: 1 << 16].tobytes())
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError(f"{file.name} is of a version that no array of numbers needs")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(head)
    values = stored[head.tell() :]
    if fortran_order or dtype.kind not in "uif" or len(values) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{file.name} does not hold the {dtype} of shape {shape} that it claims to")
    return values.view(dtype).reshape(shape)


def new_array(file: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A .npy file to be filled, memory-mapped. Raises OSError if the disk has no room for all of it."""
    array = np.lib.format.open_memmap(file, "w+", np.dtype(dtype), shape)
    with file.open("r+b") as opened:
        reserve(opened)
    return array


def reserve(file: IO[bytes]) -> None:
    """Has the disk keep room for a file that was made longer but not filled: where it is full, a write to a mapped page
    would end the process. Raises OSError.
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
    # A part of a file is not the file.
    return file.exists() and file.samefile(array.filename) and open_array(file).shape == array.shape
