"""Exact nearest-neighbour search over uint8 pixel vectors, by L1, L2, cosine and correlation."""

from imgret.pixels.exact import PixelIndex, is_small

__all__ = ["PixelIndex", "is_small"]
