"""Exact search in a large uint8 matrix that reads only a few of its rows: bound, then refine.

A sketch is a few numbers for each row that give a lower bound of its distance to any query. A search scans the shortest
sketches of all rows, then longer sketches of the rows that are still possible, and at last reads the pixels of the rows
that are left, in the order of their bounds. A bound never exceeds the true distance, so no neighbour is lost.

- L1: the sketch holds sums over blocks of the row's values, which is a coarser picture.
- L2, cosine and correlation share a sketch: the coefficients of the mean-centred row in principal directions, and the
  norm of the rest. It bounds the covariance with the query; the row's mean and norms are exact.

The "key" of a row is the number that a search minimises: the L1 distance, the squared L2 distance, or the negative of
the similarity.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from imgret.files.npy import CHUNK_VALUES, forget_pages, read_only
from imgret.pixels.sketch_layout import (
    BLOCKS,
    DIRECTIONS,
    FORMAT,
    block_widths,
    section_bytes,
    sketch_bytes,
    sketch_sections,
)
from imgret.pixels.sketches.kernels import (
    CODES,
    L1,
    all_keys,
    codes_of,
    find,
    inverse_of,
    moments_of,
    project,
    total_and_square,
)
from imgret.progress import StageProgress

Array = npt.NDArray[Any]
Vectors = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.float64]

_ROUNDING = 2.0**-15
"""Share of its largest term by which a float32 bound may be off, and by which it is therefore widened.

A sum of m products in float32, in whatever order, is off by at most (m + 1) 2^-24 of the sum of their magnitudes
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); with m = 256 and a dozen operations around it,
below 2^-15.9. That the directions are stored in float32 adds 2 sqrt(m) 2^-24 < 2^-18."""

_RESIDUAL = 2.0**-17
"""The same for the squared norm of what the directions leave over, as |c|^2 - |P c|^2 takes P for orthonormal."""

_FIRST = 32
"""How many rows are read first, to estimate the key of the k-th best row."""

_SAMPLE = 4096
"""How many rows the directions are learned from."""


class Sketches:
    """The sketches of all rows of a uint8 matrix (N, D), and the search with them. Safe to share between threads."""

    def __init__(self, vectors: Vectors, arena: Vectors, version: int = FORMAT) -> None:
        """The matrix, and what `fit` has written of it, in this release or an earlier one."""
        self.pixels = read_only(vectors)
        # Always read-only: the kernels would be compiled a second time for another type.
        self.directions, self.blocks = _views(read_only(arena), len(vectors), vectors.shape[1], version)

    @staticmethod
    def fit(vectors: Vectors, arena: Vectors, progress: StageProgress) -> None:
        """Write the sketches of a matrix (N, D) into `sketch_bytes(N, D)` bytes; `progress` gets (rows done, N).

        The matrix is read in pieces.
        """
        n, dim = vectors.shape
        directions, blocks = _views(arena, n, dim)
        directions.learn(vectors)
        step = max(1, CHUNK_VALUES // dim)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            directions.write(rows, vectors[rows])
            blocks.write(rows, vectors[rows])
            forget_pages(vectors)
            forget_pages(arena)
            progress(rows.stop, n)

    def nearest(self, query: Vectors, metric: str, k: int) -> tuple[Rows, Keys, int]:
        """The k rows of the smallest keys, by number; their keys (k,); and how many rows were read for it."""
        query, code = read_only(query), CODES[metric]
        if k == len(self.pixels):  # a complete ranking: no bound rules out anything
            return np.arange(k), all_keys(self.pixels, query, code), k
        weights, blocks = np.empty(0, np.float32), np.empty(0, np.uint8)
        if code == L1:
            blocks, terms = self.blocks.terms_of(query)
        else:
            weights, terms = self.directions.terms_of(query, code)
        sketches = self.directions, self.blocks
        keys, rows, rows_scanned = find(
            self.pixels, query, code, k, max(_FIRST, 2 * k), *sketches, weights, blocks, terms
        )
        by_row = np.argsort(rows)
        return rows[by_row], keys[by_row], rows_scanned

    @classmethod
    def warm(cls) -> None:
        """Compile the kernels, or read them from numba's cache, by one small search for each metric.

        About 10 s on a machine's first time, then 0.3 s a process. The cache is `NUMBA_CACHE_DIR` if set, else
        `__pycache__` beside this file or, where that cannot be written, the user's cache folder; with none of them,
        every process compiles anew.
        """
        vectors = np.random.default_rng(0).integers(0, 256, (2048, 512), np.uint8)
        arena = np.empty(sketch_bytes(*vectors.shape), np.uint8)
        cls.fit(vectors, arena, lambda done, total: None)
        sketches = cls(vectors, arena)
        for metric in CODES:
            sketches.nearest(vectors[0], metric, 1)


def _views(arena: Vectors, n: int, dim: int, version: int = FORMAT) -> tuple["_Directions", "_Blocks"]:
    """The sketches, as views into the one array that holds them."""
    views, start = [], 0
    for dtype, shape in sketch_sections(n, dim, version):
        values = np.asarray(arena)[start : start + math.prod(shape) * np.dtype(dtype).itemsize]
        views.append(values.view(dtype).reshape(shape))
        start += section_bytes(dtype, shape)
    basis, moments, residuals, coarse_codes, fine_codes, slacks, coarse_blocks, fine_blocks = views
    return (
        _Directions(basis, moments, residuals, coarse_codes, fine_codes),
        _Blocks(*_block_labels(dim, block_widths(dim, version)), slacks, coarse_blocks, fine_blocks),
    )


class _Directions(NamedTuple):
    """The sketch for L2, cosine and correlation.

    Here and in _Blocks the first level lies transposed, so that a scan runs along memory for many rows at once.
    """

    basis: Array  # (m, D) float32, orthonormal, orthogonal to the constant vector; m is the last level's width
    moments: Array  # (4, N) float32, see `kernels.moments_of`
    residuals: Array  # (levels, N) float32, norm of what a level's directions leave over of the centred row
    coarse: Array  # (first width, N) int16, coefficients in `unit`
    fine: Array  # (N, m) int16, likewise; each level takes the first ones

    @property
    def unit(self) -> float:
        """What 1 stands for in a code, as |c| <= 127.5 sqrt(D) for the centred row c: codes fit into 16 bits."""
        return 127.5 * math.sqrt(self.basis.shape[1]) / 32766

    def learn(self, vectors: Vectors) -> None:
        if len(self.basis):
            self.basis[:] = _principal_directions(vectors, len(self.basis))

    def write(self, rows: slice, vectors: Vectors) -> None:
        if not len(self.basis):
            return
        values = vectors.astype(np.float64)
        # Sums of whole numbers are exact in float64 below 2^53, in whatever order.
        totals, squares = values.sum(axis=1), np.einsum("ij,ij->i", values, values)
        values -= totals[:, None] / values.shape[1]
        coefficients = values @ self.basis.T.astype(np.float64)
        codes = np.rint(coefficients / self.unit)
        moments = moments_of(totals.astype(np.int64), squares.astype(np.int64), values.shape[1])
        self.moments[:, rows] = moments
        self.residuals[:, rows] = self._residuals(moments[1], coefficients)
        self.coarse[:, rows] = codes[:, : len(self.coarse)].T
        self.fine[rows] = codes[:, : self.fine.shape[1]]

    def terms_of(self, query: Vectors, code: int) -> tuple[Array, Array]:
        """A query's weights (m,) float32 for the codes, and for each level the terms of `kernels._dot_bound`."""
        levels = len(self.residuals)
        terms = np.empty((levels, 6), np.float32)
        if not levels:
            return np.empty(0, np.float32), terms
        total, square = total_and_square(query)
        coefficients = project(self.basis, query, total / query.size)
        moments = moments_of(np.array([total]), np.array([square]), query.size)
        weights = coefficients * self.unit
        terms[:, :3] = moments[[0, 1, inverse_of(code)], 0]
        terms[:, 3:4] = self._residuals(moments[1], coefficients[None])
        # A code is off by at most one half, so the sum of products by at most half the sum of the weights' magnitudes.
        terms[:, 4] = np.cumsum(np.abs(weights))[_ENDS[:levels]] / 2
        terms[:, 5] = _ROUNDING
        return weights.astype(np.float32), terms

    def _residuals(self, spreads: Array, coefficients: Array) -> Array:
        squares = np.cumsum(coefficients**2, axis=1)[:, _ENDS[: len(self.residuals)]].T
        return np.asarray(np.sqrt(np.maximum(spreads**2 - squares, 0) + _RESIDUAL * spreads**2))


_ENDS = np.array(DIRECTIONS) - 1


def _principal_directions(vectors: Vectors, m: int) -> Array:
    """(m, D) float64: orthonormal, orthogonal to the constant vector, those first in which centred rows vary most.

    By subspace iteration on a sample (Halko, Martinsson, Tropp 2011, algorithm 4.4). Any orthonormal directions give
    valid bounds, good ones tight bounds.
    """
    n, dim = vectors.shape
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(n, min(n, _SAMPLE), replace=False))
    step = max(1, CHUNK_VALUES // dim)
    sample = np.empty((len(chosen), dim), np.uint8)
    for start in range(0, len(chosen), step):
        sample[start : start + step] = vectors[chosen[start : start + step]]
        forget_pages(vectors)  # the system also maps pages around each row

    def centred() -> Iterator[Array]:
        for start in range(0, len(sample), step):
            rows = sample[start : start + step].astype(np.float32)
            yield rows - rows.mean(axis=1, keepdims=True)

    directions = rng.standard_normal((dim, m + 8)).astype(np.float32)
    for _ in range(3):
        directions = np.linalg.qr(sum(rows.T @ (rows @ directions) for rows in centred()))[0]
    squares = sum((rows @ directions).T @ (rows @ directions) for rows in centred())
    directions = directions @ np.linalg.eigh(squares)[1][:, : -m - 1 : -1]
    # The constant direction goes in first and is taken off again, so that the others are orthogonal to it.
    with_constant = np.column_stack([np.ones(dim), directions]).astype(np.float64)
    return np.asarray(np.linalg.qr(with_constant)[0][:, 1:].T)


class _Blocks(NamedTuple):
    """The sketch for L1."""

    labels: Rows  # (D,), see `_block_labels`
    places: Rows  # (levels, parts), likewise
    slacks: Array  # (levels, N) float32, sum over blocks of |sum - code * size|; of channels see `_bound_channels`
    coarse: Array  # (first width, N) uint8, block sums in units of the largest block's size
    fine: Array  # (N, sum of the other widths) uint8, likewise; level beside level

    def write(self, rows: slice, vectors: Vectors) -> None:
        codes, slacks, _ = codes_of(read_only(vectors), self.labels, self.places)
        width = len(self.coarse)
        self.slacks[:, rows] = slacks
        self.coarse[:, rows] = codes[:, :width].T
        self.fine[rows] = codes[:, width:]

    def terms_of(self, query: Vectors) -> tuple[Vectors, Array]:
        """A query's codes, level after level, and for each level the terms of `kernels._block_bound`."""
        codes, slacks, sizes = codes_of(query[None], self.labels, self.places)
        terms = np.empty((len(sizes), 3), np.float32)
        terms[:, 0], terms[:, 1], terms[:, 2] = sizes, slacks[:, 0], _ROUNDING
        return codes[0], terms


def _block_labels(dim: int, widths: list[int]) -> tuple[Rows, Rows]:
    """The part of each of the D values, (D,) int64, and for each level the block of each part, (levels, parts) int64.

    A part is the smallest piece of a row; a coarser level has blocks of neighbouring parts. In a square RGB picture a
    part is one channel of a small square. Only the last level tells channels apart, as the channels of two pictures
    mostly differ with one sign. Any other row is cut into runs.
    """
    plain = [width for width in widths if width in BLOCKS]
    parts = min(3 * max(plain, default=0), BLOCKS[-1])
    side = math.isqrt(dim // 3)
    if 3 * side * side == dim:
        grid = math.isqrt(parts // 3)
        place = np.arange(side) * grid // side
        # Morton order, in which the bits of a square's row and column take turns: four in a row are a coarser square.
        spread = np.array([sum((i >> bit & 1) << 2 * bit for bit in range(8)) for i in range(max(grid, 1))])
        squares = 2 * spread[place][:, None] + spread[place]
        labels = (3 * squares.reshape(-1, 1) + np.arange(3)).reshape(-1)
    else:
        labels = np.arange(dim) * parts // dim
    part = np.arange(parts)
    places = [part * width // parts for width in plain]
    if len(widths) > len(plain):  # the channels of four squares: all of red, then all of green, then all of blue
        places.append(part % 3 * (widths[-1] // 3) + part // 12)
    return labels, np.array(places, np.int64).reshape(len(widths), parts)
