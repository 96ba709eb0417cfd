"""Reads the pictures of a folder as arrays of one size, the way the course's notebook does."""

from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.images import ImageError, ImageSource, load_image
from imgret.library import LibraryError, pictures_below

Folder = str | PathLike[str]
Size = tuple[int, int]
Pixels = npt.NDArray[np.uint8]

SIZE = (448, 448)
"""The course's size, (width, height)."""


def get_files_path(path: Folder) -> list[str]:
    """The paths of all picture files below the folder `path`, in a fixed order; hidden files are left out.

    Raises LibraryError for a folder without pictures.
    """
    found = [str(Path(path, name)) for name in pictures_below(Path(path))]
    if not found:
        raise _no_pictures(path)
    return found


def read_image_from_path(path: ImageSource, size: Size = SIZE) -> Pixels:
    """The picture as an RGB array (height, width, 3) uint8, resized to `size` (width, height) without cropping.

    Raises ImageError.
    """
    return np.asarray(load_image(path).resize(size, Image.Resampling.BICUBIC))


def folder_to_images(folder: Folder, size: Size = SIZE) -> tuple[Pixels, npt.NDArray[np.str_]]:
    """All pictures of a class folder, (N, height, width, 3) uint8, and their paths (N,), in the order of the paths.

    The course keeps the pictures as float64, eight times as large. A file that is no picture is left out. Raises
    LibraryError for a folder without pictures.
    """
    found = list(read_all(folder, size))
    return np.stack([picture for _, picture in found]), np.array([path for path, _ in found])


def read_all(folder: Folder, size: Size) -> Iterator[tuple[str, Pixels]]:
    """Path and array of each picture below `folder`, one after the other; a file that is no picture is left out.

    Raises LibraryError for a folder without pictures.
    """
    nothing = True
    for path in get_files_path(folder):
        try:
            picture = read_image_from_path(path, size)
        except ImageError:
            continue
        nothing = False
        yield path, picture
    if nothing:
        raise _no_pictures(folder)


def _no_pictures(folder: Folder) -> LibraryError:
    return LibraryError(
        "There are no pictures in {root}; it must hold picture files, in class folders or not.", root=fspath(folder)
    )
