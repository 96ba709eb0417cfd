"""How long are the sketches of a matrix, part by part? What opening an index needs to know, without compiled code."""

import math

import numpy as np

Part = tuple[type[np.generic], tuple[int, ...]]

DIRECTIONS = (32, 128, 256)
"""Principal directions in the sketches of L2, cosine and correlation, level by level; 2 bytes each."""

BLOCKS = (16, 64, 256, 768)
"""Blocks in the sketches of L1, likewise; 1 byte each. Each level divides the blocks of the one before."""


def sketch_parts(n: int, dim: int) -> list[Part]:
    """Type and shape of each part for a matrix (N, D), in their order: five of directions, then three of blocks."""
    # Levels that pay: codes much shorter than their row, and a basis smaller than the matrix and than memory.
    directions = [width for width in DIRECTIONS if width * 16 <= dim and width * 32 <= n and width * dim <= 1 << 24]
    blocks = [width for width in BLOCKS if width * 8 <= dim]
    return [
        (np.float32, (max(directions, default=0), dim)),
        (np.float32, (4, n if directions else 0)),
        (np.float32, (len(directions), n)),
        (np.int16, (min(directions, default=0), n)),
        (np.int16, (n, max(directions[1:], default=0))),
        (np.float32, (len(blocks), n)),
        (np.uint8, (min(blocks, default=0), n)),
        (np.uint8, (n, sum(blocks[1:]))),
    ]


def part_bytes(dtype: type[np.generic], shape: tuple[int, ...]) -> int:
    """How far a part's beginning is from the next one's."""
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // 64) * 64


def sketch_bytes(n: int, dim: int) -> int:
    """How long the sketches of a matrix (N, D) are: at most 1.7 kB a row."""
    return sum(part_bytes(*part) for part in sketch_parts(n, dim))
