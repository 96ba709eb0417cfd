"""The shapes and sizes of the sketches of a matrix. Opening an index needs them, and this module imports no numba."""

import math

import numpy as np

Section = tuple[type[np.generic], tuple[int, ...]]

DIRECTIONS = (32, 128, 256)
"""Principal directions in the sketches of L2, cosine and correlation, level by level; 2 bytes each."""

BLOCKS = (16, 64, 256, 768)
"""Blocks in the sketches of L1, likewise; 1 byte each. Each level divides the blocks of the one before."""

FORMAT = 2
"""The sketches that are written today; those of format 1 have no level of channels."""


def block_widths(dim: int, version: int) -> list[int]:
    """The codes of each level of blocks.

    Where the last one has no room for the channels apart, a level follows of the three channels of each four blocks.
    """
    widths = [width for width in BLOCKS if width * 8 <= dim]
    if version > 1 and 1 < len(widths) < len(BLOCKS):
        widths.append(3 * widths[-1] // 4)
    return widths


def sketch_sections(n: int, dim: int, version: int) -> list[Section]:
    """Type and shape of each section for a matrix (N, D), in their order: five of directions, then three of blocks."""
    # Levels that pay: codes much shorter than their row, and a basis smaller than the matrix and than memory.
    directions = [width for width in DIRECTIONS if width * 16 <= dim and width * 32 <= n and width * dim <= 1 << 24]
    blocks = block_widths(dim, version)
    return [
        (np.float32, (max(directions, default=0), dim)),
        (np.float32, (4, n if directions else 0)),
        (np.float32, (len(directions), n)),
        (np.int16, (min(directions, default=0), n)),
        (np.int16, (n, max(directions[1:], default=0))),
        (np.float32, (len(blocks), n)),
        (np.uint8, (sum(blocks[:1]), n)),
        (np.uint8, (n, sum(blocks[1:]))),
    ]


def section_bytes(dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    """The distance between the starts of two sections, in bytes."""
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 64) * 64


def sketch_bytes(n: int, dim: int, version: int = FORMAT) -> int:
    """The bytes of the sketches of a matrix (N, D): at most 1.7 kB a row."""
    return sum(section_bytes(*section) for section in sketch_sections(n, dim, version))
