"""Puts embeddings into a Chroma collection and asks it for the nearest ones, as section 3.2.2 of the course does.

The collection is the student's own, made with any `hnsw:space`; an index of `imgret build` keeps its vectors by itself.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from imgret.course.embeddings import get_single_image_embedding
from imgret.images import ImageSource

_BLOCK = 64


def add_embedding(collection: Any, files_path: Sequence[str | PathLike[str]], encoder: str = "starter") -> None:
    """Adds the embedding of each picture to a Chroma collection; the id of `files_path[7]` is "id_7".

    An id that is there already gets its new embedding, so that the cell may run twice. Raises ImageError for a file
    that is no picture; those before it may have been added.
    """
    # A block at a time: Chroma refuses more than about 5,000 at once.
    for start in range(0, len(files_path), _BLOCK):
        block = files_path[start : start + _BLOCK]
        collection.upsert(
            ids=[f"id_{start + number}" for number in range(len(block))],
            embeddings=[get_single_image_embedding(path, encoder) for path in block],
        )


def search(image_path: ImageSource, collection: Any, n_results: int, encoder: str = "starter") -> Any:
    """What Chroma's `query` answers for the embedding of one picture: `ids` and `distances`, nearest first.

    The distance is that of the collection: 1 - cos for `cosine`, and for `l2` the sum of squares without its root,
    2 - 2 cos for vectors of norm 1.
    """
    return collection.query(query_embeddings=[get_single_image_embedding(image_path, encoder)], n_results=n_results)
