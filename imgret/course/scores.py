"""Ranks a folder of pictures by the four metrics, reading it anew for each query, as sections 3.1 and 3.2.1 teach it.

`imgret.search` answers the same questions from an index, without reading the library again.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.course.embeddings import get_single_image_embedding
from imgret.course.pictures import SIZE, Folder, Pixels, Size, read_all, read_image_from_path
from imgret.errors import ImgretError, repr_short
from imgret.images import ImageSource
from imgret.metrics import METRICS, best_first

Embedding = Callable[[Pixels], npt.ArrayLike] | bool
Ranking = tuple[Pixels, list[tuple[str, float]]]
_BLOCK = 64


def get_l1_score(
    root_img_path: Folder, query_path: ImageSource, size: Size = SIZE, *, embedding: Embedding = False
) -> Ranking:
    """The query as an array (H, W, 3) uint8, and `(path, score)` for every picture below `root_img_path`, best first.

    `size` is (width, height); pictures are resized to it without cropping. Equal scores stand in the order of their
    paths. A file that is no picture is left out. With `embedding`, a function from such an array to a vector, the
    metric compares the vectors instead of the pixels; True stands for `get_single_image_embedding`. Raises LibraryError
    for a folder without pictures, ImageError for the query.
    """
    return _scores("l1", root_img_path, query_path, size, embedding)


def get_l2_score(
    root_img_path: Folder, query_path: ImageSource, size: Size = SIZE, *, embedding: Embedding = False
) -> Ranking:
    """As `get_l1_score`, by L2."""
    return _scores("l2", root_img_path, query_path, size, embedding)


def get_cosine_similarity_score(
    root_img_path: Folder, query_path: ImageSource, size: Size = SIZE, *, embedding: Embedding = False
) -> Ranking:
    """As `get_l1_score`, by cosine similarity."""
    return _scores("cosine", root_img_path, query_path, size, embedding)


def get_correlation_coefficient_score(
    root_img_path: Folder, query_path: ImageSource, size: Size = SIZE, *, embedding: Embedding = False
) -> Ranking:
    """As `get_l1_score`, by the correlation coefficient."""
    return _scores("correlation", root_img_path, query_path, size, embedding)


def _scores(metric: str, root: Folder, query_path: ImageSource, size: Size, embedding: Embedding) -> Ranking:
    vector_of = _checked(embedding)
    query = read_image_from_path(query_path, size)
    query_vector = np.asarray(vector_of(query))
    paths: list[str] = []
    scores: list[float] = []
    # A block at a time, so that a folder never has to fit in memory.
    pictures = read_all(root, size)
    while block := list(islice(pictures, _BLOCK)):
        paths += [path for path, _ in block]
        scores += METRICS[metric](query_vector, _stacked(vector_of(picture) for _, picture in block)).tolist()
    return query, [(paths[row], scores[row]) for row in best_first(np.array(scores), metric)]


def _checked(embedding: Any) -> Callable[[Pixels], npt.ArrayLike]:
    if embedding is True:
        return get_single_image_embedding
    if embedding is False or embedding is None:
        return lambda picture: picture
    if not callable(embedding):
        raise ImgretError(
            "embedding is {given}; it must be True, or a function that makes a vector of a picture.",
            given=repr_short(embedding),
        )
    return embedding


def _stacked(vectors: Iterable[npt.ArrayLike]) -> npt.NDArray[Any]:
    rows = [np.asarray(vector) for vector in vectors]
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1:
        raise ImgretError(
            "The function embedding made vectors of the shapes {one} and {other}; all must have one shape.",
            one=shapes[0],
            other=shapes[1],
        )
    return np.stack(rows)
