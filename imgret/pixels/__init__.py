"""Exact nearest-neighbour search over uint8 pixel vectors. Importing it takes no numba along."""

from imgret.pixels.exact import PixelIndex, is_small

__all__ = ["PixelIndex", "is_small"]
