"""The course's own functions: a folder of pictures read anew for each query, the way sections 3.1 and 3.2 teach it.

`imgret.search` answers the same questions from an index, without reading the library again.
"""

from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.encoders import Encoder, load_encoder
from imgret.images import ImageError, ImageSource, load_image
from imgret.library import LibraryError, pictures_below
from imgret.metrics import METRICS, best_first

Root = str | PathLike[str]
Size = tuple[int, int]
Ranking = tuple[npt.NDArray[np.uint8], list[tuple[str, float]]]
_BLOCK = 64


def get_l1_score(root_img_path: Root, query_path: ImageSource, size: Size = (448, 448)) -> Ranking:
    """The query as an array (H, W, 3) uint8, and `(path, score)` for every picture below `root_img_path`, best first.

    `size` is (width, height); pictures are resized to it without cropping. Equal scores stand in the order of their
    paths. A file that is no picture is left out. Raises LibraryError for a folder without pictures, ImageError for the
    query.
    """
    return _scores("l1", root_img_path, query_path, size)


def get_l2_score(root_img_path: Root, query_path: ImageSource, size: Size = (448, 448)) -> Ranking:
    """As `get_l1_score`, by L2."""
    return _scores("l2", root_img_path, query_path, size)


def get_cosine_similarity_score(root_img_path: Root, query_path: ImageSource, size: Size = (448, 448)) -> Ranking:
    """As `get_l1_score`, by cosine similarity."""
    return _scores("cosine", root_img_path, query_path, size)


def get_correlation_coefficient_score(root_img_path: Root, query_path: ImageSource, size: Size = (448, 448)) -> Ranking:
    """As `get_l1_score`, by the correlation coefficient."""
    return _scores("correlation", root_img_path, query_path, size)


def get_single_image_embedding(image: ImageSource, encoder: str = "starter") -> npt.NDArray[np.float32]:
    """The embedding (d,) of one picture, of norm 1; `encoder` is a URI of `load_encoder`, loaded once a process."""
    return _encoder(encoder).embed_images([load_image(image)])[0]


@cache
def _encoder(uri: str) -> Encoder:
    return load_encoder(uri)


def _scores(metric: str, root: Root, query_path: ImageSource, size: Size) -> Ranking:
    query = _array(query_path, size)
    paths: list[str] = []
    scores: list[float] = []
    block: list[Any] = []

    def measure() -> None:
        if block:
            scores.extend(METRICS[metric](query, np.stack(block)).tolist())
            block.clear()

    for name in pictures_below(Path(root)):
        path = Path(root, name)
        try:
            block.append(_array(path, size))
        except ImageError:
            continue
        paths.append(str(path))
        if len(block) == _BLOCK:
            measure()
    measure()
    if not paths:
        raise LibraryError(
            "There are no pictures in {root}; it must hold picture files, in class folders or not.", root=root
        )
    return query, [(paths[row], scores[row]) for row in best_first(np.array(scores), metric)]


def _array(source: ImageSource, size: Size) -> npt.NDArray[np.uint8]:
    return np.asarray(load_image(source).resize(size, Image.Resampling.BICUBIC))
