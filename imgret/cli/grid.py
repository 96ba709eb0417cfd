"""Draws the hits of a search as one picture."""

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from imgret.search import Hit, Retriever

COLUMNS, CELL, LINE = 5, 200, 22


def grid_of(retriever: "Retriever", hits: "list[Hit]") -> Image.Image:
    """The thumbnails of `hits` in rows of five, each with its rank and score below."""
    rows = max(1, -(-len(hits) // COLUMNS))
    grid = Image.new("RGB", (min(COLUMNS, max(1, len(hits))) * CELL, rows * (CELL + LINE)), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(14)
    for place, hit in enumerate(hits):
        left, top = place % COLUMNS * CELL, place // COLUMNS * (CELL + LINE)
        with Image.open(io.BytesIO(retriever.thumbnail(hit.id))) as picture:
            picture.thumbnail((CELL - 8, CELL - 8))
            grid.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
        draw.text((left + CELL / 2, top + CELL + LINE / 2), f"{hit.rank}.  {hit.score:.4g}", "black", font, "mm")
    return grid
