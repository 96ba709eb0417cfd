"""A library: pictures with ids, labels and captions, from a folder, a table of pictures or a data set of the Hub."""

from imgret.library.hub import commit_of, is_commit
from imgret.library.loading import ImageLibrary
from imgret.library.records import Description, Entry, LibraryError, Record, composed
from imgret.library.tree import pictures_below

__all__ = [
    "Description", "Entry", "ImageLibrary", "LibraryError", "Record", "commit_of", "composed", "is_commit",
    "pictures_below",
]  # fmt: skip
