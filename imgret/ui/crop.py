"""Which part of a query picture is searched with? Its edges as fractions of the picture: "left,top,right,bottom"."""

from typing import Any

from PIL import Image

from imgret.search import SearchError

WHOLE = ""


def cut_out(picture: Image.Image, part: Any) -> Image.Image:
    """The part of a picture, of at least one pixel; all of it for WHOLE. Raises SearchError."""
    if part == WHOLE:
        return picture
    try:
        left, top, right, bottom = (float(edge) for edge in part.split(","))
    except (AttributeError, ValueError):
        left = right = top = bottom = 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise SearchError("A part of a picture is left,top,right,bottom: four fractions from 0 to 1, in this order.")
    x, y = min(int(left * picture.width), picture.width - 1), min(int(top * picture.height), picture.height - 1)
    return picture.crop((x, y, max(x + 1, round(right * picture.width)), max(y + 1, round(bottom * picture.height))))
