"""A library: pictures with ids, labels and captions, from a folder, a parquet file or a data set of the Hub."""

from imgret.library.loading import (
    Entry,
    ImageLibrary,
    LibraryError,
    Record,
    commit_of,
    is_commit,
    pictures_below,
)

__all__ = ["Entry", "ImageLibrary", "LibraryError", "Record", "commit_of", "is_commit", "pictures_below"]
