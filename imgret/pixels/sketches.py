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
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

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

Array = npt.NDArray[Any]
Vectors = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Function = TypeVar("Function", bound=Callable[..., Any])

_L1, _L2, _COSINE, _CORRELATION = range(4)
CODES = {"l1": _L1, "l2": _L2, "cosine": _COSINE, "correlation": _CORRELATION}

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
    def fit(vectors: Vectors, arena: Vectors, progress: Progress) -> None:
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
            return np.arange(k), _all_keys(self.pixels, query, code), k
        weights, blocks = np.empty(0, np.float32), np.empty(0, np.uint8)
        if code == _L1:
            blocks, terms = self.blocks.asked(query)
        else:
            weights, terms = self.directions.asked(query, code)
        sketches = self.directions, self.blocks
        keys, rows, rows_scanned = _find(
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
    moments: Array  # (4, N) float32, see `_moments`
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
        moments = _moments(totals.astype(np.int64), squares.astype(np.int64), values.shape[1])
        self.moments[:, rows] = moments
        self.residuals[:, rows] = self._residuals(moments[1], coefficients)
        self.coarse[:, rows] = codes[:, : len(self.coarse)].T
        self.fine[rows] = codes[:, : self.fine.shape[1]]

    def asked(self, query: Vectors, code: int) -> tuple[Array, Array]:
        """A query's weights (m,) float32 for the codes, and for each level what `_dot_bound` needs to know of it."""
        levels = len(self.residuals)
        terms = np.empty((levels, 6), np.float32)
        if not levels:
            return np.empty(0, np.float32), terms
        total, square = _total_and_square(query)
        coefficients = _project(self.basis, query, total / query.size)
        moments = _moments(np.array([total]), np.array([square]), query.size)
        weights = coefficients * self.unit
        terms[:, :3] = moments[[0, 1, _inverse(code)], 0]
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
    slacks: Array  # (levels, N) float32, sum over blocks of |sum - code * size|; of channels, see `_bound_channels`
    coarse: Array  # (first width, N) uint8, block sums in units of the largest block's size
    fine: Array  # (N, sum of the other widths) uint8, likewise; level beside level

    def write(self, rows: slice, vectors: Vectors) -> None:
        codes, slacks, _ = _codes(read_only(vectors), self.labels, self.places)
        width = len(self.coarse)
        self.slacks[:, rows] = slacks
        self.coarse[:, rows] = codes[:, :width].T
        self.fine[rows] = codes[:, width:]

    def asked(self, query: Vectors) -> tuple[Vectors, Array]:
        """A query's codes, level after level, and for each level what `_block_bound` needs to know of it."""
        codes, slacks, sizes = _codes(query[None], self.labels, self.places)
        terms = np.empty((len(sizes), 3), np.float32)
        terms[:, 0], terms[:, 1], terms[:, 2] = sizes, slacks[:, 0], _ROUNDING
        return codes[0], terms


def _block_labels(dim: int, widths: list[int]) -> tuple[Rows, Rows]:
    """In which part each of the D values is, (D,) int64, and in which block of each level each part, (levels, parts).

    Neighbours make up the blocks of a coarser level. A square RGB picture is cut into squares and these by channel,
    which only the last level tells apart, as channels mostly differ with one sign; anything else is cut into runs.
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


# --- Kernels ---
#
# They release the interpreter, so several may run at once, and never divide their work: numba's own threads abort a
# process that enters them twice. numba widens whole numbers to 64 bits at each operation; casting back keeps vector
# lanes short.
#
# Why numba: reading all rows of 50,000 x 3,072 takes it 8.7 (L1) to 13.7 ms (correlation) on one thread where one full
# read takes 6.3 (Zen 4); FAISS flat 27 to 34 ms on two; numpy 340 to 1,900. simsimd (2 MB), numkong (46 MB) take 6 ms
# for dot products, but know no L1 of uint8, no scan of sketches, and no rows out of turn: an L1 scan that takes numba
# 0.03 ms takes numpy 3. The price is 208 MB on disk, 0.2 to 0.35 s to import, and `warm`.


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        compiled: Function = numba.njit(function, cache=True, **options)
    except RuntimeError:  # numba has nowhere to write its cache
        compiled = numba.njit(function, **options)
    return compiled


_reordered = partial(_compiled, fastmath={"reassoc", "contract"})
"""For float sums that are widened by their rounding in any order."""


def _prefetch_intrinsic(_: Any, array: Any, offset: Any) -> Any:
    """Ask for the memory at `offset` items after the array's first."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(prefetch, [pointer, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


_prefetch: Any = intrinsic(_prefetch_intrinsic)


@_compiled
def _prefetch_row(array: Any, rows: Any, i: int, start: int, width: int) -> None:
    """Have the i-th row on its way while others are worked on: makes rows out of turn up to 1.8 times as fast."""
    if i < rows.size:
        for at in range(start, start + width, 64 // array.itemsize):
            _prefetch(array, rows[i] * array.shape[1] + at)


@_compiled
def _find(
    pixels: Any,
    query: Any,
    code: int,
    k: int,
    first: int,
    directions: Any,
    blocks: Any,
    weights: Any,
    query_blocks: Any,
    terms: Any,
) -> Any:
    """Keys and rows of the k best, in no order, and how many rows were read."""
    n, levels = len(pixels), len(terms)
    keys, best = np.full(k, np.inf), np.full(k, n)
    if levels == 0 or 8 * first >= n:  # too short for a sketch, or too few to be worth one
        return keys, best, _visit_all(pixels, query, code, keys, best)
    if code == _L1:
        bounds = _scan_blocks(blocks.coarse, query_blocks, terms[0], blocks.slacks[0])
    else:
        bounds = _scan_dots(directions, weights, terms[0], code)
    left, left_bounds = _smallest(bounds, 4 * first)
    if left.max() == n:  # damaged or forged: most bounds are no numbers
        return keys, best, _visit_all(pixels, query, code, keys, best)
    if levels > 1:
        everything = np.float32(np.inf)
        left, left_bounds = _level(levels - 1, code, directions, blocks, weights, query_blocks, terms, left, everything)
    left = left[np.argsort(left_bounds)][:first]
    rows_scanned = _visit(pixels, query, code, keys, best, left, np.full(first, np.float32(-np.inf)))
    for row in left:
        bounds[row] = np.inf
    # Rounded up: the row of an equal key may come first, so the limit must not be below the k-th best key in float32.
    limit = np.nextafter(np.float32(keys[0]), np.float32(np.inf))
    left, left_bounds = _within(bounds, limit)
    before = n
    for level in range(1, levels):
        if left.size > 0.9 * before:
            break  # these sketches hardly tell rows apart, and longer ones would cost more than they save
        before = left.size
        left, left_bounds = _level(level, code, directions, blocks, weights, query_blocks, terms, left, limit)
    if 4 * left.size < n:  # else memory gives rows so much faster as they lie that order by bound does not pay
        order = np.argsort(left_bounds)
        left, left_bounds = left[order], left_bounds[order]
    return keys, best, rows_scanned + _visit(pixels, query, code, keys, best, left, left_bounds)


@_compiled
def _level(
    level: int,
    code: int,
    directions: Any,
    blocks: Any,
    weights: Any,
    query_blocks: Any,
    terms: Any,
    rows: Any,
    limit: Any,
) -> Any:
    """Of the rows, those whose bounds at a finer level are within the limit, and these bounds."""
    if code != _L1:
        return _bound_dots(directions, weights[: DIRECTIONS[level]], terms[level], level, code, rows, limit)
    start = 0
    for before in range(1, level):
        start += BLOCKS[before]
    codes = query_blocks[BLOCKS[0] + start :]
    if codes.size < BLOCKS[level]:
        codes = query_blocks[BLOCKS[0] + start - BLOCKS[level - 1] :]
        return _bound_channels(blocks.fine, codes, terms[level - 1 :], blocks.slacks[level], rows, limit)
    return _bound_blocks(blocks.fine, start, codes[: BLOCKS[level]], terms[level], blocks.slacks[level], rows, limit)


@_compiled
def _dot_bound(code: int, terms: Any, products: Any, residual: Any, mean: Any, spread: Any, inverse: Any) -> Any:
    q_mean, q_spread, q_inverse, q_residual, off, rounding = terms
    # The centred row is c = P p + r with P orthonormal: c_q.c_x = p_q.p_x + r_q.r_x, and r_q.r_x <= |r_q| |r_x| by
    # Cauchy and Schwarz. p_q.p_x is at most its sum with the codes (`products`) plus what rounding can add (`off`).
    covariance = products + off + q_residual * residual
    # With a = mean sqrt(D) and u the constant unit vector, the row is a u + c, and u.c = 0. So
    # |q - x|^2 = (a_q - a_x)^2 + |c_q|^2 + |c_x|^2 - 2 c_q.c_x and q.x = a_q a_x + c_q.c_x: a covariance c_q.c_x that
    # is too large makes the squared distance too small and the similarities too large, hence the key too small.
    if code == _L2:
        apart, squares = q_mean - mean, q_spread * q_spread + spread * spread
        rounding *= squares + q_mean * q_mean + mean * mean
        return apart * apart + (squares - covariance - covariance) - rounding
    if code == _COSINE:
        covariance += q_mean * mean
    return -covariance * q_inverse * inverse - rounding


@_reordered
def _scan_dots(directions: Any, weights: Any, terms: Any, code: int) -> Any:
    """Bounds (N,) float32 of all rows at the coarsest level."""
    inverses = directions.moments[_inverse(code)]
    bounds = np.empty(inverses.size, np.float32)
    for start in range(0, bounds.size, 1024):
        here = slice(start, start + 1024)
        tile, inverse, residual = bounds[here], inverses[here], directions.residuals[0, here]
        mean, spread = directions.moments[0, here], directions.moments[1, here]
        tile[:] = 0
        for j in range(0, directions.coarse.shape[0], 4):
            a, b = directions.coarse[j, here], directions.coarse[j + 1, here]
            c, d = directions.coarse[j + 2, here], directions.coarse[j + 3, here]
            for i in range(tile.size):
                ab = weights[j] * np.float32(a[i]) + weights[j + 1] * np.float32(b[i])
                tile[i] += ab + weights[j + 2] * np.float32(c[i]) + weights[j + 3] * np.float32(d[i])
        for i in range(tile.size):
            tile[i] = _dot_bound(code, terms, tile[i], residual[i], mean[i], spread[i], inverse[i])
    return bounds


@_reordered
def _bound_dots(directions: Any, weights: Any, terms: Any, level: int, code: int, rows: Any, limit: Any) -> Any:
    """Of the rows, those whose bounds with a finer level's weights are within the limit, and these bounds."""
    means, spreads = directions.moments[0], directions.moments[1]
    inverses, residuals = directions.moments[_inverse(code)], directions.residuals[level]
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(directions.fine, rows, i + 8, 0, weights.size)
        row = rows[i]
        codes, products = directions.fine[row], np.float32(0)
        for j in range(weights.size):
            products += weights[j] * np.float32(codes[j])
        bound = _dot_bound(code, terms, products, residuals[row], means[row], spreads[row], inverses[row])
        left[count], bounds[count] = row, bound
        count += not bound > limit
    return left[:count], bounds[:count]


@_compiled
def _block_bound(terms: Any, differences: Any, slack: Any) -> Any:
    size, q_slack, rounding = terms
    # Within a block sum |a_i - b_i| >= |sum a_i - sum b_i|, and a block's sum is size * code up to its share of the
    # slack: by the triangle inequality the L1 distance is at least size * sum |code_q - code_x| - slack_q - slack_x.
    # All are whole numbers, exact in float32 up to 2^24; `rounding` is for rows of more than 65,000 values.
    return size * differences * (np.float32(1) - rounding) - slack - q_slack


@_compiled
def _scan_blocks(coarse: Any, codes: Any, terms: Any, slacks: Any) -> Any:
    """Bounds (N,) float32 of all rows at the coarsest level."""
    bounds, sums = np.empty(slacks.size, np.float32), np.empty(1024, np.uint16)  # sums are at most 16 * 255
    for start in range(0, bounds.size, 1024):
        here = slice(start, start + 1024)
        tile, slack = bounds[here], slacks[here]
        sums[:] = 0
        for j in range(coarse.shape[0]):
            code, column = codes[j], coarse[j, here]
            for i in range(column.size):
                sums[i] += np.uint8(max(code, column[i]) - min(code, column[i]))
        for i in range(tile.size):
            tile[i] = _block_bound(terms, np.float32(sums[i]), slack[i])
    return bounds


@_compiled
def _bound_blocks(fine: Any, start: int, codes: Any, terms: Any, slacks: Any, rows: Any, limit: Any) -> Any:
    """Of the rows, those whose bounds with a finer level's codes are within the limit, and these bounds."""
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(fine, rows, i + 8, start, codes.size)
        row = rows[i]
        differences = _absolute_difference(codes, fine[row, start : start + codes.size])
        bound = _block_bound(terms, np.float32(differences), slacks[row])
        left[count], bounds[count] = row, bound
        count += not bound > limit
    return left[:count], bounds[:count]


@_compiled
def _bound_channels(fine: Any, codes: Any, terms: Any, slacks: Any, rows: Any, limit: Any) -> Any:
    """Of the rows, those whose bounds by squares and by their channels are within the limit, and these bounds.

    The codes are those of squares, the last but one level, and of channels: red, green and blue of each four squares.
    """
    # Four squares have twelve parts, each a square's channel. The four sums over channels bound the distance within
    # them as above, and so do the three sums over squares; hence the larger bound does, too. What rounding adds to the
    # larger one is at most the larger of what it adds to either, and the slack sums these up.
    start, groups = fine.shape[1] - codes.size, codes.size // 7
    square, channel, whole = np.int32(terms[0, 0]), np.int32(terms[1, 0]), terms[1].copy()
    whole[0] = 1  # the differences come with their sizes
    squares, channels = codes[: 4 * groups], codes[4 * groups :]
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(fine, rows, i + 8, start, codes.size)
        row, differences = rows[i], np.int32(0)
        own_squares, own_channels = fine[row, start:][: 4 * groups], fine[row, start:][4 * groups :]
        for g in range(groups):
            # Not in loops of four and of three: the compiler then no longer works on many groups at once.
            by_square = _apart(squares[4 * g], own_squares[4 * g]) + _apart(squares[4 * g + 1], own_squares[4 * g + 1])
            by_square += _apart(squares[4 * g + 2], own_squares[4 * g + 2])
            by_square += _apart(squares[4 * g + 3], own_squares[4 * g + 3])
            by_channel = _apart(channels[g], own_channels[g])
            by_channel += _apart(channels[groups + g], own_channels[groups + g])
            by_channel += _apart(channels[2 * groups + g], own_channels[2 * groups + g])
            differences = np.int32(differences + max(np.int32(square * by_square), np.int32(channel * by_channel)))
        bound = _block_bound(whole, np.float32(differences), slacks[row])
        left[count], bounds[count] = row, bound
        count += not bound > limit
    return left[:count], bounds[:count]


@_compiled
def _apart(a: Any, b: Any) -> Any:
    return np.int32(abs(np.int32(np.int32(a) - np.int32(b))))


@_compiled
def _within(bounds: Any, limit: Any) -> Any:
    """The rows whose bounds are within the limit, and these bounds."""
    left, kept, count = np.empty(bounds.size, np.int64), np.empty_like(bounds), 0
    for row in range(bounds.size):
        left[count], kept[count] = row, bounds[row]
        count += not bounds[row] > limit  # also what is no number, as a damaged sketch gives
    return left[:count], kept[:count]


@_compiled
def _smallest(bounds: Any, count: int) -> Any:
    """The rows of the `count` smallest bounds, in no order, and these bounds."""
    keys, rows = np.full(count, np.float32(np.inf)), np.full(count, bounds.size)
    for start in range(0, bounds.size, 64):
        tile, worst, better = bounds[start : start + 64], keys[0], np.int32(0)
        for i in range(tile.size):
            better = np.int32(better + np.int32(tile[i] < worst))
        if better:
            for i in range(tile.size):
                if tile[i] < keys[0]:
                    _offer(keys, rows, tile[i], start + i)
    return rows, keys


@_compiled
def _offer(keys: Any, rows: Any, key: Any, row: Any) -> None:
    """Put a row into the heap of the best in place of its root, the worst, if it is better, or equal and earlier."""
    if not _worse(keys[0], rows[0], key, row):
        return
    at = 0
    while 2 * at + 1 < keys.size:
        child = 2 * at + 1
        if child + 1 < keys.size and _worse(keys[child + 1], rows[child + 1], keys[child], rows[child]):
            child += 1
        if not _worse(keys[child], rows[child], key, row):
            break
        keys[at], rows[at] = keys[child], rows[child]
        at = child
    keys[at], rows[at] = key, row


@_compiled
def _worse(key: Any, row: Any, than_key: Any, than_row: Any) -> bool:
    return bool(key > than_key or (key == than_key and row > than_row))


@_compiled
def _visit(pixels: Any, query: Any, code: int, keys: Any, best: Any, rows: Any, bounds: Any) -> int:
    """Offer the rows to the heap of the best ones with exact keys. How many were read, the others being ruled out."""
    q_total, q_square = _total_and_square(query)
    rows_scanned = 0
    for i in range(rows.size):
        _prefetch_row(pixels, rows, i + 2, 0, min(query.size, 4096))
        # No key is below its bound, so a row whose bound is above the worst of the k best has no place among them. One
        # with an equal bound may have: of equal keys that of the smaller row is better.
        if not bounds[i] > keys[0]:
            rows_scanned += 1
            _offer(keys, best, _exact_key(code, query, pixels[rows[i]], q_square, q_total), rows[i])
    return rows_scanned


@_compiled
def _visit_all(pixels: Any, query: Any, code: int, keys: Any, best: Any) -> int:
    return _visit(pixels, query, code, keys, best, np.arange(len(pixels)), np.full(len(pixels), np.float32(-np.inf)))


@_compiled
def _all_keys(pixels: Any, query: Any, code: int) -> Any:
    """The exact keys (N,) of all rows."""
    q_total, q_square = _total_and_square(query)
    keys = np.empty(len(pixels))
    for row in range(keys.size):
        keys[row] = _exact_key(code, query, pixels[row], q_square, q_total)
    return keys


@_compiled
def _exact_key(code: int, query: Any, row: Any, q_square: int, q_total: int) -> float:
    """The key, in whole numbers up to the last step, as `imgret.metrics` has it."""
    dot, square, total, distance = 0, 0, 0, 0
    for start in range(0, row.size, 16384):  # in 32 bits, as 16384 * 255^2 < 2^31
        a, b = query[start : start + 16384], row[start : start + 16384]
        if code == _L1:
            distance += _absolute_difference(a, b)
        elif code == _L2:
            distance += _squared_difference(a, b)
        else:
            sums = _sums(a, b)
            dot, square, total = dot + sums[0], square + sums[1], total + sums[2]
    if code in (_L1, _L2):
        return float(distance)
    if code == _CORRELATION:
        dot = row.size * dot - q_total * total
        square, q_square = row.size * square - total * total, row.size * q_square - q_total * q_total
    norms = math.sqrt(q_square) * math.sqrt(square)
    return max(-1.0, min(1.0, -dot / norms)) if norms > 0 else 0.0


@_compiled
def _absolute_difference(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(b.size):
        total = np.int32(total + _apart(a[i], b[i]))
    return total


@_compiled
def _squared_difference(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(b.size):
        difference = np.int32(np.int32(a[i]) - np.int32(b[i]))
        total = np.int32(total + np.int32(difference * difference))
    return total


@_compiled
def _sums(a: Any, b: Any) -> Any:
    """Of a * b, of b * b, and of b."""
    dot, square, total = np.int32(0), np.int32(0), np.int32(0)
    for i in range(b.size):
        value = np.int32(b[i])
        dot = np.int32(dot + np.int32(np.int32(a[i]) * value))
        square = np.int32(square + np.int32(value * value))
        total = np.int32(total + value)
    return dot, square, total


@_compiled
def _total_and_square(values: Any) -> Any:
    total, square = 0, 0
    for start in range(0, values.size, 16384):
        sums = _sums(values[start : start + 16384], values[start : start + 16384])
        total, square = total + sums[2], square + sums[1]
    return total, square


@_compiled
def _moments(totals: Any, squares: Any, dim: int) -> Any:
    """mean sqrt(D), norm of the centred row, inverses of the norm and of that (0 of 0); (4, n) from int64 sums (n,)."""
    moments = np.zeros((4, totals.size))
    for i in range(totals.size):
        norm, spread = math.sqrt(squares[i]), math.sqrt((squares[i] * dim - totals[i] * totals[i]) / dim)
        moments[0, i], moments[1, i] = totals[i] / math.sqrt(dim), spread
        moments[2, i], moments[3, i] = 1 / norm if norm > 0 else 0.0, 1 / spread if spread > 0 else 0.0
    return moments


@_compiled
def _inverse(code: int) -> int:
    """Which of the moments the similarity is divided by."""
    return 2 if code == _COSINE else 3


@_reordered
def _project(basis: Any, query: Any, mean: float) -> Any:
    """The coefficients (m,) of the centred query, summed in float64; m is a multiple of 4."""
    centred, coefficients = query - mean, np.empty(len(basis))
    for j in range(0, len(basis), 4):
        a, b, c, d = basis[j], basis[j + 1], basis[j + 2], basis[j + 3]
        sum_a, sum_b, sum_c, sum_d = 0.0, 0.0, 0.0, 0.0
        for i in range(centred.size):
            sum_a += np.float64(a[i]) * centred[i]
            sum_b += np.float64(b[i]) * centred[i]
            sum_c += np.float64(c[i]) * centred[i]
            sum_d += np.float64(d[i]) * centred[i]
        coefficients[j], coefficients[j + 1], coefficients[j + 2], coefficients[j + 3] = sum_a, sum_b, sum_c, sum_d
    return coefficients


@_compiled
def _codes(vectors: Any, labels: Any, places: Any) -> Any:
    """Codes (n, sum of widths) and slacks (levels, n) of the rows, and the size of each level's largest block."""
    levels, parts = places.shape
    widths, sizes = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
    sums, counts = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    if levels:
        for j in range(labels.size):
            counts[labels[j]] += 1
    for level in range(levels):
        widths[level], sizes[level] = places[level, -1] + 1, _gathered(counts, places[level]).max()
    codes, slacks = np.zeros((len(vectors), widths.sum()), np.uint8), np.zeros((levels, len(vectors)), np.int64)
    for i in range(len(vectors) if levels else 0):
        row, end, before = vectors[i], 0, sums
        sums[:] = 0
        for j in range(row.size):
            sums[labels[j]] += row[j]
        for level in range(levels):
            size, width = sizes[level], widths[level]
            errors = _gathered(sums, places[level])
            for block in range(width):
                code = (2 * errors[block] + size) // (2 * size)
                codes[i, end + block], errors[block] = code, abs(errors[block] - code * size)
            if level and width < widths[level - 1]:  # of channels
                for g in range(width // 3):
                    slacks[level, i] += max(before[4 * g : 4 * g + 4].sum(), errors[g : width : width // 3].sum())
            else:
                slacks[level, i] = errors.sum()
            before, end = errors, end + width
    return codes, slacks, sizes


@_compiled
def _gathered(sums: Any, places: Any) -> Any:
    """The sums of blocks from those of their parts."""
    blocks = np.zeros(places[-1] + 1, np.int64)
    for part in range(places.size):
        blocks[places[part]] += sums[part]
    return blocks
