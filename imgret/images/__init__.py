"""Decodes pictures within limits, and makes pixel vectors and thumbnails of them."""

from imgret.images.decode import (
    MAX_BYTES,
    ImageError,
    ImageSource,
    PixelVector,
    check_size,
    load_image,
    picture_suffixes,
    pixel_vector,
    read_picture,
    thumbnail,
)

__all__ = [
    "MAX_BYTES", "ImageError", "ImageSource", "PixelVector", "check_size", "load_image", "picture_suffixes",
    "pixel_vector", "read_picture", "thumbnail",
]  # fmt: skip
