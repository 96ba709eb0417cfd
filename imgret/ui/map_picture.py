"""Draws the map of a library: small thumbnails at the points of `imgret.projection`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from imgret.images import load_image
from imgret.index import Index

SIDE, BORDER = 1000, 24
MAX_PICTURES = 1500
"""How many pictures are drawn. More would hide each other, and the first visitor waits for them."""
RING = (13, 148, 136)


class MapPicture:
    """The drawn map of an index, an RGB picture of SIDE px square, x to the right and y up."""

    def __init__(self, index: Index) -> None:
        assert index.map is not None
        rows, points = index.map
        some = np.arange(min(len(rows), MAX_PICTURES)) * len(rows) // min(len(rows), MAX_PICTURES)
        self._rows, self._centres = rows[some], _centres(points[some])
        self._image = Image.new("RGB", (SIDE, SIDE), "white")
        side = int(np.clip(SIDE / np.sqrt(len(some)) * 0.9, 12, 64))
        for row, centre in zip(self._rows.tolist(), self._centres, strict=True):
            small = load_image(index.thumbnail(row))
            small.thumbnail((side, side))
            self._image.paste(small, (int(centre[0] - small.width / 2), int(centre[1] - small.height / 2)))

    def with_ring(self, point: Sequence[float] | None) -> Image.Image:
        """The picture, with a ring around a point of the map if one is given."""
        if point is None:
            return self._image
        copy = self._image.copy()
        x, y = _centres(np.array([point]))[0]
        draw = ImageDraw.Draw(copy)
        for width, colour, radius in ((9, "white", 26), (5, RING, 24)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
        return copy

    def row_at(self, x: float, y: float) -> int:
        """The row of the picture that is nearest to a point, in pixels."""
        return int(self._rows[np.argmin(((self._centres - (x, y)) ** 2).sum(axis=1))])


def _centres(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Points of the map (M, 2), from 0 to 1, in pixels."""
    room = SIDE - 2 * BORDER
    return np.column_stack([BORDER + points[:, 0] * room, SIDE - BORDER - points[:, 1] * room]).astype(np.float64)
