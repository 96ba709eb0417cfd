"""Explains the score of a hit: each pixel's share of a pixel metric, the regions that CLIP's similarity depends on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.errors import ImgretError
from imgret.images import ImageSource, load_image
from imgret.metrics import METRICS, checked_metric
from imgret.search import Retriever, SearchError

Values = npt.NDArray[np.float64]

# Vermilion and blue of Okabe and Ito's palette (Color Universal Design, 2008), which all kinds of colour vision tell
# apart.
WARM, COOL = np.array([213.0, 94.0, 0.0]), np.array([0.0, 114.0, 178.0])
NEUTRAL = 245.0

OPACITY = 0.8
"""The opacity of the strongest colour; the picture below must stay visible."""


@dataclass(frozen=True)
class PixelReason:
    """Where the score of a hit by a pixel metric comes from.

    `query` and `hit` (S, S, 3) uint8 are the two pictures as the metric sees them, S being the index's pixel size;
    `terms` (S, S) float64 is each pixel's share, its three channels summed, of the sum behind the score, and `total`
    their sum; `score` is the metric's.
    """

    query: npt.NDArray[np.uint8]
    hit: npt.NDArray[np.uint8]
    terms: Values
    total: float
    score: float


@dataclass(frozen=True)
class ClipReason:
    """Which regions of a hit carry its similarity.

    `drops` (rows, cols) float64 is how much the similarity falls when that region of the hit is covered: positive where
    it carries the similarity, negative where it speaks against it. `score` is the similarity that the hit was found
    with.
    """

    drops: Values
    score: float


def explain_pixels(
    retriever: Retriever,
    image: ImageSource | None,
    id: str,
    metric: str,
    *,
    like: str | None = None,
    likes: Sequence[str] | None = None,
) -> PixelReason:
    """The terms of the sum that is the score of picture `id` for a query, one for each value of the pixel vectors.

    The query is `image`, or else the picture of the library with the id `like`; with `likes` the mean of them, as in
    `by_pixels`. With a and b the two pixel vectors, the terms and their sum are:

        l1           |a - b|                                      the score
        l2           (a - b)^2                                    the score squared
        cosine       a b / (norm a * norm b)                      the score; all 0 where a norm is 0
        correlation  the same of a - mean a and b - mean b        the score; all 0 where a variance is 0

    Raises SearchError for an unknown metric or id, ImageError for a bad picture.
    """
    formula = _TERMS[checked_metric(metric, SearchError)]
    row = retriever.row_of(id)
    size = retriever.index.manifest.pixel_size
    query, hit = retriever.pixel_query(image, like, likes), np.array(retriever.index.pixels.vectors[row])
    shape = (size, size, 3)
    terms = formula(query.astype(np.float64), hit.astype(np.float64)).reshape(shape).sum(axis=2)
    score = METRICS[metric](query, hit[np.newaxis])[0]
    return PixelReason(query.reshape(shape), hit.reshape(shape), terms, float(terms.sum()), float(score))


def explain_clip(retriever: Retriever, vector: npt.NDArray[np.float32], id: str, grid: int = 7) -> ClipReason:
    """Which regions of the picture called `id` make it similar to a query, by occlusion (Zeiler and Fergus, 2014).

    `vector` (d,) is the query's unit vector, as `Retriever.embed_query` gives it. The thumbnail is embedded once as it
    is, and once for each cell of a `grid` x `grid` raster, with a patch of the picture's mean colour over the cell. The
    patch is twice as wide and high as the cell, so that one patch covers an object on a border of cells. Raises
    SearchError for an unknown id, ValueError for a grid below 1, EncoderError.
    """
    if grid < 1:
        raise ImgretError("The grid is {grid}; it must be at least 1.", grid=grid)
    picture = load_image(retriever.thumbnail(id))
    mean = np.asarray(picture).mean(axis=(0, 1))
    colour = (round(mean[0]), round(mean[1]), round(mean[2]))
    pictures = [picture]
    for row in range(grid):
        for col in range(grid):
            covered = picture.copy()
            left, right = _patch(col, grid, picture.width)
            top, bottom = _patch(row, grid, picture.height)
            covered.paste(colour, (left, top, right, bottom))
            pictures.append(covered)
    query = vector.astype(np.float64)
    scores = retriever.encoder.embed_images(pictures).astype(np.float64) @ query
    stored = retriever.index.embeddings[retriever.row_of(id)].astype(np.float64)
    return ClipReason((scores[0] - scores[1:]).reshape(grid, grid), float(stored @ query))


def heat_map(
    values: Values, background: Image.Image | None = None, size: int = 256, *, smooth: bool = True
) -> Image.Image:
    """A map (rows, cols) as an RGB picture: positive values warm, negative ones cool, 0 neutral.

    The strength of a colour is the value's share of the largest magnitude. `size` is the longer side in pixels.
    `background` shows through in dimmed grey and gives the proportions; without it the map does. `smooth` interpolates
    between the values of a coarse map; without it each value is a rectangle.
    """
    rows, cols = values.shape
    width, height = (cols, rows) if background is None else background.size
    scale = size / max(width, height)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    largest = float(np.abs(values).max())
    shares = Image.fromarray((values / (largest or 1.0)).astype(np.float32))
    resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    share = np.clip(np.asarray(shares.resize(shape, resampling), np.float64), -1, 1)[..., np.newaxis]
    ground: Values = np.full((1, 1, 3), NEUTRAL)
    strength = np.abs(share)
    if background is not None:
        strength *= OPACITY
        grey = background.convert("L").convert("RGB").resize(shape, Image.Resampling.BICUBIC)
        ground = (np.asarray(grey, np.float64) + NEUTRAL) / 2
    colour = np.where(share > 0, WARM, COOL)
    return Image.fromarray(np.rint(ground + strength * (colour - ground)).astype(np.uint8))


def _products(a: Values, b: Values) -> Values:
    norms = np.sqrt(a @ a) * np.sqrt(b @ b)
    return a * b / norms if norms > 0 else np.zeros_like(a)


_TERMS: dict[str, Callable[[Values, Values], Values]] = {
    "l1": lambda a, b: np.abs(a - b),
    "l2": lambda a, b: (a - b) ** 2,
    "cosine": _products,
    # Sums of uint8 values are exact, so the mean of a flat picture is, and its variance 0.
    "correlation": lambda a, b: _products(a - a.mean(), b - b.mean()),
}


def _patch(cell: int, grid: int, side: int) -> tuple[int, int]:
    """The first and last pixel of the patch over a cell, along one side of the picture."""
    return max(0, round((cell - 0.5) * side / grid)), min(side, round((cell + 1.5) * side / grid))
