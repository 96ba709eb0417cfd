"""How does the map of a library look? Its pictures, small, where the map puts them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from imgret.images import load_image
from imgret.index import Index

SIDE, BORDER = 1000, 24
RING = (13, 148, 136)

Points = npt.NDArray[np.float32]


def draw_map(index: Index, rows: npt.NDArray[np.int64], points: Points) -> Image.Image:
    """The pictures in `rows` at their `points` (M, 2) from 0 to 1, x to the right and y up: RGB, SIDE px square."""
    thumb = int(np.clip(SIDE / np.sqrt(max(1, len(rows))) * 0.9, 12, 64))
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    for row, centre in zip(rows.tolist(), _centres(points), strict=True):
        small = load_image(index.thumbnail(row))
        small.thumbnail((thumb, thumb))
        picture.paste(small, (int(centre[0] - small.width / 2), int(centre[1] - small.height / 2)))
    return picture


def with_ring(picture: Image.Image, point: Sequence[float]) -> Image.Image:
    """A copy of a map with a ring around `point`."""
    copy = picture.copy()
    x, y = _centres(np.array([point], np.float32))[0]
    draw = ImageDraw.Draw(copy)
    for width, colour, radius in ((9, "white", 26), (5, RING, 24)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
    return copy


def nearest(points: Points, x: float, y: float) -> int:
    """The number of the point whose picture is the closest to a click at `x`, `y` in pixels of the map."""
    return int(np.argmin(((_centres(points) - (x, y)) ** 2).sum(axis=1)))


def _centres(points: Points) -> npt.NDArray[np.float64]:
    room = SIDE - 2 * BORDER
    return np.column_stack([BORDER + points[:, 0] * room, SIDE - BORDER - points[:, 1] * room]).astype(np.float64)
