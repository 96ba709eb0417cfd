"""Which rows of a uint8 matrix are the most similar to a query under each of the four metrics: exactly, without reading most of them.

Bound, then refine. Beside the matrix lies a sketch of every row: a few numbers that already say "no closer than this". A
search scans the shortest sketches of all rows, looks at longer ones of the rows that these could not rule out, and reads
pixels only of what is left, in the order of the bound. A bound never exceeds the true distance, so no neighbour is lost.

- L1 sketches a row by sums over blocks of its values, a coarser picture.
- L2, cosine and correlation share one sketch: the coefficients of the mean-centred row in principal directions, and the norm
  of what these leave over. It bounds the covariance with the query; the row's mean and norms turn that into all three.

A row's "key" is what a search makes small: the L1 distance, the squared L2 distance, or minus the similarity.
"""

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from imgret.metrics import LARGER_IS_CLOSER, best_first

Array = npt.NDArray[Any]
Vectors = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Bounds = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Function = TypeVar("Function", bound=Callable[..., Any])

_L1, _L2, _COSINE, _CORRELATION = range(4)
_CODES = {"l1": _L1, "l2": _L2, "cosine": _COSINE, "correlation": _CORRELATION}

_DIRECTIONS = (16, 64, 128)
"""Principal directions in the sketches of L2, cosine and correlation, shortest first; 2 bytes each."""

_BLOCKS = (16, 64, 256)
"""Blocks in the sketches of L1, likewise; 1 byte each. Four blocks of a level make one block of the level before."""

_ROUNDING = 2.0**-15
"""Share of its largest term by which a float32 bound may be off, and by which it is therefore widened.

A sum of m products in float32, in whatever order, is off by at most (m + 1) 2^-24 of the sum of their magnitudes (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1); with m <= 128 and a dozen operations around it: below 2^-16."""

_RESIDUAL = 2.0**-18
"""The same for the squared norm of what the principal directions leave over: these are stored in float32, so P P^T is the identity
only up to 2 sqrt(m) 2^-24 < 2^-19, and so is |c|^2 - |P c|^2 the norm of the rest."""

_FIRST = 32
"""Rows read before all others, for a first idea of the k-th best: so many that it is nearly the final one."""

_JUMP_BYTES = 2048
"""What going to a row out of turn costs, in bytes read in turn: says when rows are better visited as they lie."""

_CHUNK_VALUES = 1 << 22
"""Values of the matrix that `fit` widens at once: 32 MiB as float64."""

_SAMPLE = 4096
"""Rows that the principal directions are learned from."""

_FORMAT = 1


@dataclass(frozen=True)
class Answer:
    """The k best rows for one query.

    rows: (k,) int64, best first. scores: (k,) float64, as `imgret.metrics` gives them. visited: how many rows of the matrix
    were read for it; all others were ruled out by their sketch.
    """

    rows: Rows
    scores: Scores
    visited: int


class PixelIndex:
    """Exact search of the rows of a uint8 matrix (N, D) under "l1", "l2", "cosine" and "correlation".

    `fit` learns, `save` and `load` keep it in a folder of two files, `search` asks. It never changes after `fit`, so any
    number of threads may search at once.
    """

    def __init__(self, vectors: Vectors, arena: Vectors) -> None:
        """For `fit` and `load`: the matrix, and the bytes of its sketches."""
        self.vectors = vectors
        self._arena = arena
        self._pixels = _read_only(vectors)
        _, self._directions, self._blocks = _sketches(_read_only(arena), *vectors.shape)

    @classmethod
    def fit(cls, vectors: Vectors, progress: Progress | None = None) -> Self:
        """The index of `vectors`, uint8 (N, D), ndarray or memmap, which it keeps and neither copies nor changes.

        The matrix is read in pieces, and the sketch, about a tenth of its size, goes to an unnamed temporary file: memory does
        not grow with N. `progress` is told (rows done, N). Any other dtype or shape raises ValueError.
        """
        if not isinstance(vectors, np.ndarray) or vectors.dtype != np.uint8 or vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ValueError(f"The vectors are {_described(vectors)}; they must be uint8 of shape (N, D) with D at least 1.")
        if not vectors.flags.c_contiguous:
            vectors = np.ascontiguousarray(vectors)
        n, dim = vectors.shape
        with tempfile.TemporaryFile() as file:
            arena = np.memmap(file, np.uint8, "w+", shape=(_arena_bytes(n, dim),))
        header, directions, blocks = _sketches(arena, n, dim)
        header[:] = _FORMAT, n, dim
        directions.learn(vectors)
        step = max(1, _CHUNK_VALUES // dim)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            for sketch in (directions, blocks):
                sketch.write(rows, vectors[rows])
            _forget_pages(vectors)
            _forget_pages(arena)
            if progress is not None:
                progress(rows.stop, n)
        return cls(vectors, arena)

    def save(self, folder: str | Path) -> None:
        """Write `vectors.npy` and `sketch.npy` into `folder`, made if needed. A file that the index already lies in stays as it is.

        Each file takes its name only when it is complete.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for array, name in ((self.vectors, "vectors.npy"), (self._arena, "sketch.npy")):
            if not _lies_in(array, folder / name):
                partial_file = folder / f"{name}.partial"
                with partial_file.open("wb") as file:
                    np.save(file, array)
                partial_file.replace(folder / name)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The index that `save` left in `folder`, memory-mapped: it reads two headers and writes nothing.

        A file that is missing, damaged, of another version or of another matrix raises ValueError.
        """
        try:
            vectors = np.load(Path(folder, "vectors.npy"), mmap_mode="r")
            arena = np.load(Path(folder, "sketch.npy"), mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"No pixel index can be read from {folder} ({error}); build it again.") from error
        fits = vectors.ndim == 2 and vectors.dtype == arena.dtype == np.uint8 and arena.shape == (_arena_bytes(*vectors.shape),)
        if not fits or tuple(_sketches(arena, *vectors.shape)[0]) != (_FORMAT, *vectors.shape):
            raise ValueError(f"The vectors and the sketch in {folder} do not fit each other or this version; build them again.")
        return cls(vectors, arena)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """D, the number of values in a row."""
        return int(self.vectors.shape[1])

    def search(self, query: Vectors, metric: str, k: int) -> tuple[Rows, Scores]:
        """The rows (k,) int64 and scores (k,) float64 of the k best, best first, for a uint8 query of shape (D,).

        They are those of `imgret.metrics` on all N rows: L1 and L2 exactly, equal scores by smaller row; cosine and correlation
        to 1e-12. k above N means N. Another shape, dtype or metric, or a k below 1 or not whole, raises ValueError.
        """
        answer = self.answer(query, metric, k)
        return answer.rows, answer.scores

    def search_many(self, queries: Vectors, metric: str, k: int) -> tuple[Rows, Scores]:
        """`search` for uint8 queries (Q, D), on all processors: rows (Q, k) int64 and scores (Q, k) float64."""
        asked = queries.shape[0] if isinstance(queries, np.ndarray) and queries.ndim else 0
        k = self._checked(queries, "queries", (asked, self.dim), metric, k)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = list(pool.map(partial(self._answer, metric=metric, k=k), queries))
        rows = np.array([answer.rows for answer in answers], np.int64).reshape(len(queries), k)
        scores = np.array([answer.scores for answer in answers], np.float64).reshape(len(queries), k)
        return rows, scores

    def answer(self, query: Vectors, metric: str, k: int) -> Answer:
        """`search`, and how many rows it read."""
        k = self._checked(query, "query", (self.dim,), metric, k)
        return self._answer(query, metric, k)

    def _checked(self, asked: Vectors, name: str, shape: tuple[int, ...], metric: str, k: int) -> int:
        if metric not in _CODES:
            raise ValueError(f"There is no metric {metric!r}; choose one of {', '.join(_CODES)}.")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k is {k!r}; it must be a whole number of at least 1.")
        if not isinstance(asked, np.ndarray) or asked.dtype != np.uint8 or asked.shape != shape:
            raise ValueError(f"The {name} must be uint8 of shape {shape}, not {_described(asked)}.")
        return min(int(k), len(self))

    def _answer(self, query: Vectors, metric: str, k: int) -> Answer:
        query = _read_only(np.ascontiguousarray(query))
        n, first = len(self), max(_FIRST, 2 * k)
        keys, rows = np.full(k, np.inf), np.full(k, n, np.int64)
        visit = partial(_visit, self._pixels, query, _CODES[metric], keys, rows)
        sketch = self._blocks if metric == "l1" else self._directions
        if not sketch.widths or 8 * first >= n:
            visited = visit(np.arange(n), np.full(n, -np.inf, np.float32))
        else:
            scan, *finer = sketch.levels(query, metric)
            bounds = scan()
            near = _smallest(bounds, 2 * first)
            if finer:
                near, near_bounds = finer[-1](near, np.inf)
                near = near[np.argsort(near_bounds)]
            visited = visit(near[:first], np.full(first, -np.inf, np.float32))
            bounds[near[:first]] = np.inf
            # Rounded up: an equal key may come first by its row, so the limit must not fall below the k-th best one in float32.
            limit = np.nextafter(np.float32(keys[0]), np.float32(np.inf))
            before, (left, bounds) = n, _within(bounds, limit)
            for level in finer:
                if len(left) > 0.9 * before:
                    break  # these sketches hardly tell rows apart, and longer ones would cost more than they save
                before, (left, bounds) = len(left), level(left, limit)
            if len(left) * (self.dim + _JUMP_BYTES) < n * self.dim:
                order = np.argsort(bounds)
                left, bounds = left[order], bounds[order]
            visited += visit(left, bounds)
        by_row = np.argsort(rows)
        rows, keys = rows[by_row], keys[by_row]
        scores = np.sqrt(keys) if metric == "l2" else 0.0 - keys if metric in LARGER_IS_CLOSER else keys
        order = best_first(scores, metric)
        return Answer(rows[order], scores[order], int(visited))


def warm() -> None:
    """Compile the kernels, or read them from numba's cache, by one small search for each metric.

    Seconds on a machine's first time, then 0.3 s a process. The cache is `__pycache__` beside this file, or where that cannot be
    written the user's cache folder or `NUMBA_CACHE_DIR`; where nothing can be written, every process compiles anew.
    """
    vectors = np.random.default_rng(0).integers(0, 256, (64 * _DIRECTIONS[1], 8 * _DIRECTIONS[1]), np.uint8)
    index = PixelIndex.fit(vectors)
    for metric in _CODES:
        index.search(vectors[0], metric, 1)


Part = tuple[type[np.generic], tuple[int, ...]]


def _parts(n: int, dim: int) -> list[Part]:
    return [(np.int64, (3,)), *_Directions.parts(n, dim), *_Blocks.parts(n, dim)]


def _part_bytes(part: Part) -> int:
    return -(-math.prod(part[1]) * np.dtype(part[0]).itemsize // 64) * 64


def _arena_bytes(n: int, dim: int) -> int:
    return sum(map(_part_bytes, _parts(n, dim)))


def _sketches(arena: Vectors, n: int, dim: int) -> tuple[Array, "_Directions", "_Blocks"]:
    """The header (format, N, D) and the sketches, as views into the one array that holds them."""
    views, start = [], 0
    for dtype, shape in _parts(n, dim):
        values = np.asarray(arena)[start : start + math.prod(shape) * np.dtype(dtype).itemsize]
        views.append(values.view(dtype).reshape(shape))
        start += _part_bytes((dtype, shape))
    split = 1 + len(_Directions.parts(n, dim))
    return views[0], _Directions(*views[1:split]), _Blocks(dim, *views[split:])


class _Directions:
    """The sketch for L2, cosine and correlation.

    Here and in _Blocks the first level lies transposed, so that a scan of all rows runs along memory for any number of them at once.
    """

    @staticmethod
    def parts(n: int, dim: int) -> list[Part]:
        # Levels that pay: codes much shorter than their row, and a basis much smaller than the matrix and than memory.
        widths = [width for width in _DIRECTIONS if width * 8 <= dim and width * 32 <= n and width * dim <= 1 << 24]
        return [
            (np.float32, (max(widths, default=0), dim)),
            (np.float32, (4, n if widths else 0)),
            (np.float32, (len(widths), n)),
            (np.int16, (min(widths, default=0), n)),
            (np.int16, (n, max(widths[1:], default=0))),
        ]

    def __init__(self, basis: Array, moments: Array, residuals: Array, coarse: Array, fine: Array) -> None:
        self.widths = _DIRECTIONS[: len(residuals)]
        self._ends = np.array(self.widths, np.int64) - 1
        self.basis = basis  # (m, D), orthonormal, orthogonal to the constant vector
        self.moments = moments  # (4, N), see `_moments`
        self.residuals = residuals  # (levels, N), norm of what the level's directions leave over of the centred row
        self.coarse = coarse  # (16, N), coefficients in `unit`
        self.fine = fine  # (N, m), likewise
        # A unit vector orthogonal to the constant one has a coefficient of at most 127.5 sqrt(D) with values from 0 to 255.
        self.unit = 127.5 * math.sqrt(basis.shape[1]) / 32766

    def learn(self, vectors: Vectors) -> None:
        if self.widths:
            self.basis[:] = _principal_directions(vectors, len(self.basis))

    def write(self, rows: slice, vectors: Vectors) -> None:
        if not self.widths:
            return
        values = vectors.astype(np.float64)
        # Sums of whole numbers are exact in float64 below 2^53, in whatever order.
        totals, squares = values.sum(axis=1).astype(np.int64), np.einsum("ij,ij->i", values, values).astype(np.int64)
        values -= totals[:, None] / self.basis.shape[1]
        coefficients = values @ self.basis.T.astype(np.float64)
        codes = np.rint(coefficients / self.unit)
        self.moments[:, rows] = moments = _moments(totals, squares, self.basis.shape[1])
        self.residuals[:, rows] = self._residuals(moments[1], coefficients)
        self.coarse[:, rows] = codes[:, : len(self.coarse)].T
        self.fine[rows] = codes[:, : self.fine.shape[1]]

    def levels(self, query: Vectors, metric: str) -> list[Callable[..., Any]]:
        """Lower bounds on keys: a function for all rows; then, ever tighter, functions from (rows, limit) to the rows within it."""
        inverse = 2 if metric == "cosine" else 3
        total, square = _total_and_square(query)
        coefficients = _project(self.basis, query, total / query.size)
        moments = _moments(np.array([total]), np.array([square]), query.size)[:, 0]
        weights = coefficients * self.unit
        terms = np.empty((len(self.widths), 6), np.float32)
        terms[:, :3] = moments[[0, 1, inverse]]
        terms[:, 3] = self._residuals(moments[1:2], coefficients[None])[:, 0]
        # A code is off by at most one half, so the sum of products by at most half the sum of the weights' magnitudes.
        terms[:, 4] = np.cumsum(np.abs(weights))[self._ends] / 2
        terms[:, 5] = _ROUNDING
        weights = weights.astype(np.float32)
        rows = self.moments[0], self.moments[1], self.moments[inverse]
        return [
            partial(
                _bound_dots if level else _scan_dots,
                self.fine if level else self.coarse,
                weights[:width],
                terms[level],
                _CODES[metric],
                *rows,
                self.residuals[level],
            )
            for level, width in enumerate(self.widths)
        ]

    def _residuals(self, spreads: Array, coefficients: Array) -> Array:
        squares = np.cumsum(coefficients**2, axis=1)[:, self._ends].T
        return np.sqrt(np.maximum(spreads**2 - squares, 0) + _RESIDUAL * spreads**2)


def _principal_directions(vectors: Vectors, m: int) -> Array:
    """(m, D) float64, orthonormal, orthogonal to the constant vector, those in which centred rows vary most first.

    By subspace iteration on a sample (Halko, Martinsson, Tropp 2011, algorithm 4.4). Bounds hold for any orthonormal directions;
    good ones only make them tight.
    """
    n, dim = vectors.shape
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.choice(n, min(n, _SAMPLE), replace=False))]
    step = max(1, _CHUNK_VALUES // dim)

    def centred() -> Iterator[Array]:
        for start in range(0, len(sample), step):
            rows = sample[start : start + step].astype(np.float32)
            yield rows - rows.mean(axis=1, keepdims=True)

    directions = rng.standard_normal((dim, m + 8)).astype(np.float32)
    for _ in range(3):
        directions = np.linalg.qr(sum(rows.T @ (rows @ directions) for rows in centred()))[0]
    moments = sum((rows @ directions).T @ (rows @ directions) for rows in centred())
    directions = directions @ np.linalg.eigh(moments)[1][:, :-m - 1:-1]
    # The constant direction goes first and is taken off again: QR leaves the others orthogonal to it, whatever they were.
    return np.linalg.qr(np.column_stack([np.ones(dim), directions]).astype(np.float64))[0][:, 1:].T


class _Blocks:
    """The sketch for L1. The blocks of each level are the finer level's, four by four."""

    @staticmethod
    def parts(n: int, dim: int) -> list[Part]:
        widths = [width for width in _BLOCKS if width * 8 <= dim]
        return [
            (np.float32, (len(widths), n)),
            (np.uint8, (min(widths, default=0), n)),
            *((np.uint8, (n, width)) for width in widths[1:]),
        ]

    def __init__(self, dim: int, slacks: Array, coarse: Array, *finer: Array) -> None:
        self.widths = _BLOCKS[: len(slacks)]
        self.slacks = slacks  # (levels, N), sum over blocks of |sum - code * size|
        self.codes = [coarse, *finer]  # (16, N), (N, 64), (N, 256), block sums in units of the largest block's size
        self.labels = _block_labels(dim, max(self.widths, default=1))
        sizes = np.bincount(self.labels, minlength=max(self.widths, default=1))
        self.sizes = [int(sizes.reshape(width, -1).sum(axis=1).max()) for width in self.widths]

    def write(self, rows: slice, vectors: Vectors) -> None:
        for level, (codes, slacks) in enumerate(self._parts_of(vectors)):
            self.slacks[level, rows] = slacks
            if level:
                self.codes[level][rows] = codes
            else:
                self.codes[0][:, rows] = codes.T

    def levels(self, query: Vectors, metric: str) -> list[Callable[..., Any]]:
        """Lower bounds on keys: a function for all rows; then, ever tighter, functions from (rows, limit) to the rows within it."""
        bounds = []
        for level, (codes, slacks) in enumerate(self._parts_of(query[None])):
            terms = np.array([self.sizes[level], slacks[0], _ROUNDING], np.float32)
            kernel = _bound_blocks if level else _scan_blocks
            bounds.append(partial(kernel, self.codes[level], codes[0], terms, self.slacks[level]))
        return bounds

    def _parts_of(self, vectors: Vectors) -> list[tuple[Vectors, Array]]:
        """Codes (n, width) and slacks (n,) at each level."""
        parts: list[tuple[Vectors, Array]] = []
        if self.widths:
            sums = _sums_by_label(_read_only(vectors), self.labels, self.widths[-1])
        for width, size in zip(reversed(self.widths), reversed(self.sizes), strict=True):
            sums = sums.reshape(len(vectors), width, -1).sum(axis=2)
            codes = (2 * sums + size) // (2 * size)
            parts.insert(0, (codes.astype(np.uint8), np.abs(sums - codes * size).sum(axis=1)))
        return parts


def _block_labels(dim: int, blocks: int) -> Rows:
    """Which block each of the D values is in, (D,) int64, such that four consecutive blocks make one of the next coarser level.

    A square RGB picture is cut into squares across its channels, whose differences mostly share their sign; all else into runs.
    """
    side = math.isqrt(dim // 3)
    if 3 * side * side != dim:
        return np.arange(dim) * blocks // dim
    grid = math.isqrt(blocks)
    place = np.arange(side) * grid // side
    # Morton order: the bits of a block's row and column take turns.
    spread = np.array([sum((i >> bit & 1) << 2 * bit for bit in range(8)) for i in range(grid)])
    return np.repeat((2 * spread[place][:, None] + spread[place]).reshape(-1), 3)


# --- Kernels ---
#
# They release the interpreter, so several run at once, and never divide the work themselves: numba's own threads abort a process
# that enters them twice. numba widens whole numbers to 64 bits at each operation; casting back keeps them in short vector lanes.
# On 50,000 x 3,072 (Zen 4, one thread) reading all pixels through them takes 5.8 to 8.6 ms, a full read 7.4 ms; FAISS 29 to 36 ms
# on two threads; numpy 0.9 s. numkong (46 MB) and simsimd (2 MB) are as fast on uint8 dot products, but have no L1 and no sketch
# scan, which in numpy takes ten passes over memory. The price: 208 MB on disk, 0.35 s to import, and `warm`.


def _compiled(function: Function, **options: Any) -> Function:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # numba found no folder where it may write its cache
        return numba.njit(function, **options)


_reordered = partial(_compiled, fastmath={"reassoc", "contract"})
"""For float32 sums that _ROUNDING covers in any order."""


@intrinsic
def _prefetch(typing: Any, array: Any, offset: Any) -> Any:
    """Ask for the memory at `offset` items behind the array's first one."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [byte], kind), [pointer, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@_compiled
def _prefetch_row(array: Any, rows: Any, i: int, width: int) -> None:
    """Have the first values of the i-th of the rows on their way while others are worked on: rows out of turn are all waiting for memory.

    It makes visits and finer bounds 1.5 to 1.8 times as fast on what no cache holds.
    """
    if i < rows.size:
        for start in range(0, width, 64 // array.itemsize):
            _prefetch(array, rows[i] * array.shape[1] + start)


@_compiled
def _dot_key(
    code: int, covariance: Any, mean: Any, spread: Any, inverse: Any, q_mean: Any, q_spread: Any, q_inverse: Any, rounding: Any
) -> Any:
    # With a = mean * sqrt(D) and c the centred row, a picture is a u + c for the unit vector u = 1/sqrt(D), and u.c = 0. So
    # |q - x|^2 = (a_q - a_x)^2 + |c_q|^2 + |c_x|^2 - 2 c_q.c_x and q.x = a_q a_x + c_q.c_x: a covariance c_q.c_x taken too
    # large gives a squared distance too small and a similarity too large. `rounding` covers the largest term, 1 for a similarity.
    if code == _L2:
        apart = q_mean - mean
        size = q_mean * q_mean + mean * mean + q_spread * q_spread + spread * spread
        return apart * apart + (q_spread * q_spread + spread * spread - covariance - covariance) - size * rounding
    if code == _COSINE:
        return -(q_mean * mean + covariance) * q_inverse * inverse - rounding
    return -covariance * q_inverse * inverse - rounding


@_reordered
def _scan_dots(codes: Any, weights: Any, terms: Any, code: int, means: Any, spreads: Any, inverses: Any, residuals: Any) -> Any:
    q_mean, q_spread, q_inverse, q_residual, off, rounding = terms
    bounds = np.empty(codes.shape[1], np.float32)
    for start in range(0, bounds.size, 1024):
        here = slice(start, start + 1024)
        tile, mean, spread, inverse, residual = bounds[here], means[here], spreads[here], inverses[here], residuals[here]
        tile[:] = off
        for j in range(0, weights.size, 4):
            a, b, c, d = codes[j, here], codes[j + 1, here], codes[j + 2, here], codes[j + 3, here]
            for i in range(tile.size):
                tile[i] += (
                    weights[j] * np.float32(a[i])
                    + weights[j + 1] * np.float32(b[i])
                    + weights[j + 2] * np.float32(c[i])
                    + weights[j + 3] * np.float32(d[i])
                )
        for i in range(tile.size):
            # c = P p + r with P orthonormal: c_q.c_x = p_q.p_x + r_q.r_x, and r_q.r_x <= |r_q| |r_x| by Cauchy and Schwarz.
            # p_q.p_x is at most the sum with the codes plus what their rounding can add (`off`).
            covariance = tile[i] + q_residual * residual[i]
            tile[i] = _dot_key(code, covariance, mean[i], spread[i], inverse[i], q_mean, q_spread, q_inverse, rounding)
    return bounds


@_reordered
def _bound_dots(
    codes: Any, weights: Any, terms: Any, code: int, means: Any, spreads: Any, inverses: Any, residuals: Any, rows: Any, limit: float
) -> Any:
    q_mean, q_spread, q_inverse, q_residual, off, rounding = terms
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(codes, rows, i + 8, weights.size)
        row = rows[i]
        own, products = codes[row], np.float32(0)
        for j in range(weights.size):
            products += weights[j] * np.float32(own[j])
        covariance = products + off + q_residual * residuals[row]  # as in _scan_dots
        bound = _dot_key(code, covariance, means[row], spreads[row], inverses[row], q_mean, q_spread, q_inverse, rounding)
        left[count], bounds[count] = row, bound
        count += bound <= limit
    return left[:count], bounds[:count]


@_compiled
def _block_key(differences: Any, slack: Any, size: Any, q_slack: Any, rounding: Any) -> Any:
    # Within a block sum |a_i - b_i| >= |sum a_i - sum b_i|. A block's sum is size * code up to its share of the slack, so by the
    # triangle inequality the L1 distance is at least size * sum |code_q - code_x| - slack_q - slack_x. All are whole numbers, and
    # exact in float32 below 2^24; `rounding` is for rows of more than 65,000 values.
    return size * differences * (np.float32(1) - rounding) - slack - q_slack


@_compiled
def _scan_blocks(blocks: Any, q_codes: Any, terms: Any, slacks: Any) -> Any:
    size, q_slack, rounding = terms
    bounds = np.empty(blocks.shape[1], np.float32)
    sums = np.empty(1024, np.uint16)  # at most 16 * 255
    for start in range(0, bounds.size, 1024):
        here = slice(start, start + 1024)
        tile, slack = bounds[here], slacks[here]
        sums[:] = 0
        for j in range(q_codes.size):
            q_code, column = q_codes[j], blocks[j, here]
            for i in range(column.size):
                sums[i] += np.uint8(max(q_code, column[i]) - min(q_code, column[i]))
        for i in range(tile.size):
            tile[i] = _block_key(np.float32(sums[i]), slack[i], size, q_slack, rounding)
    return bounds


@_compiled
def _bound_blocks(blocks: Any, q_codes: Any, terms: Any, slacks: Any, rows: Any, limit: float) -> Any:
    size, q_slack, rounding = terms
    left, bounds, count = np.empty_like(rows), np.empty(rows.size, np.float32), 0
    for i in range(rows.size):
        _prefetch_row(blocks, rows, i + 8, q_codes.size)
        row = rows[i]
        bound = _block_key(np.float32(_absolute_difference(q_codes, blocks[row])), slacks[row], size, q_slack, rounding)
        left[count], bounds[count] = row, bound
        count += bound <= limit
    return left[:count], bounds[:count]


@_compiled
def _within(bounds: Any, limit: float) -> Any:
    """The rows whose bounds are at most `limit`, and these bounds."""
    left, kept, count = np.empty(bounds.size, np.int64), np.empty_like(bounds), 0
    for row in range(bounds.size):
        left[count], kept[count] = row, bounds[row]
        count += bounds[row] <= limit
    return left[:count], kept[:count]


@_compiled
def _absolute_difference(a: Any, b: Any) -> Any:
    total = np.int32(0)
    for i in range(b.size):
        total = np.int32(total + abs(np.int32(np.int32(a[i]) - np.int32(b[i]))))
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
    dot, square, total = np.int32(0), np.int32(0), np.int32(0)
    for i in range(b.size):
        value = np.int32(b[i])
        dot = np.int32(dot + np.int32(np.int32(a[i]) * value))
        square = np.int32(square + np.int32(value * value))
        total = np.int32(total + value)
    return dot, square, total


@_compiled
def _exact_key(code: int, query: Any, row: Any, q_square: int, q_total: int) -> float:
    """The key in whole numbers up to the last step, so that it is that of `imgret.metrics` for the same row."""
    dot, square, total, distance = 0, 0, 0, 0
    for start in range(0, row.size, 16384):  # 16384 * 255^2 < 2^31
        a, b = query[start : start + 16384], row[start : start + 16384]
        if code == _L1:
            distance += _absolute_difference(a, b)
        elif code == _L2:
            distance += _squared_difference(a, b)
        else:
            sums = _sums(a, b)
            dot, square, total = dot + sums[0], square + sums[1], total + sums[2]
    if code == _L1 or code == _L2:
        return float(distance)
    if code == _CORRELATION:
        dot = row.size * dot - q_total * total
        square, q_square = row.size * square - total * total, row.size * q_square - q_total * q_total
    norms = math.sqrt(q_square) * math.sqrt(square)
    return -dot / norms if norms > 0 else 0.0


@_compiled
def _offer(keys: Any, rows: Any, key: Any, row: Any) -> None:
    """Put a row into the heap of the best ones, in place of its root, the worst, if it is better or as good and earlier."""
    if key > keys[0] or (key == keys[0] and row > rows[0]):
        return
    at = 0
    while True:
        child = 2 * at + 1
        if child + 1 < keys.size and (keys[child + 1] > keys[child] or (keys[child + 1] == keys[child] and rows[child + 1] > rows[child])):
            child += 1
        if child >= keys.size or key > keys[child] or (key == keys[child] and row > rows[child]):
            break
        keys[at], rows[at] = keys[child], rows[child]
        at = child
    keys[at], rows[at] = key, row


@_compiled
def _smallest(bounds: Any, count: int) -> Any:
    """The rows of the `count` smallest bounds, in no order."""
    keys, rows = np.full(count, np.float32(np.inf)), np.full(count, bounds.size)
    for start in range(0, bounds.size, 64):
        tile, worst, better = bounds[start : start + 64], keys[0], np.int32(0)
        for i in range(tile.size):
            better = np.int32(better + np.int32(tile[i] < worst))
        if better:
            for i in range(tile.size):
                if tile[i] < keys[0]:
                    _offer(keys, rows, tile[i], start + i)
    return rows


@_compiled
def _moments(totals: Any, squares: Any, dim: int) -> Any:
    """From sums and sums of squares, int64 (n,): mean * sqrt(D), norm of the centred row, 1 / norm, 1 / norm of the centred row; (4, n)."""
    moments = np.zeros((4, totals.size))
    for i in range(totals.size):
        norm, spread = math.sqrt(squares[i]), math.sqrt((squares[i] * dim - totals[i] * totals[i]) / dim)
        moments[0, i], moments[1, i] = totals[i] / math.sqrt(dim), spread
        moments[2, i], moments[3, i] = 1 / norm if norm > 0 else 0.0, 1 / spread if spread > 0 else 0.0
    return moments


@_compiled
def _total_and_square(values: Any) -> Any:
    total, square = 0, 0
    for start in range(0, values.size, 16384):
        sums = _sums(values[start : start + 16384], values[start : start + 16384])
        total, square = total + sums[2], square + sums[1]
    return total, square


@_reordered
def _project(basis: Any, query: Any, mean: float) -> Any:
    """Coefficients (m,) of the centred query, summed in float64. Four at a time, as m is a multiple of it."""
    centred, coefficients = query - mean, np.empty(len(basis))
    for j in range(0, len(basis), 4):
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        basis_a, basis_b, basis_c, basis_d = basis[j], basis[j + 1], basis[j + 2], basis[j + 3]
        for i in range(centred.size):
            a += np.float64(basis_a[i]) * centred[i]
            b += np.float64(basis_b[i]) * centred[i]
            c += np.float64(basis_c[i]) * centred[i]
            d += np.float64(basis_d[i]) * centred[i]
        coefficients[j], coefficients[j + 1], coefficients[j + 2], coefficients[j + 3] = a, b, c, d
    return coefficients


@_compiled
def _visit(pixels: Any, query: Any, code: int, keys: Any, best: Any, rows: Any, bounds: Any) -> int:
    """Put the rows into the heap of the best ones by their exact keys; how many it had to read, as others were out by their bounds."""
    q_total, q_square = _total_and_square(query)
    visited = 0
    for i in range(rows.size):
        # No key is below its bound, so a bound above the worst of the k best leaves nothing to gain; an equal one may, as ties go by row.
        _prefetch_row(pixels, rows, i + 2, min(query.size, 4096))
        if bounds[i] <= keys[0]:
            visited += 1
            _offer(keys, best, _exact_key(code, query, pixels[rows[i]], q_square, q_total), rows[i])
    return visited


@_compiled
def _sums_by_label(vectors: Any, labels: Any, count: int) -> Any:
    sums = np.zeros((len(vectors), count), np.int64)
    for i in range(len(vectors)):
        row, own = vectors[i], sums[i]
        for j in range(row.size):
            own[labels[j]] += row[j]
    return sums


# --- Files and memory ---


def _read_only(array: Array) -> Array:
    """The array as a plain read-only one: one type for the kernels, whatever it came from, and nobody writes into it by accident."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _forget_pages(array: Array) -> None:
    """Let go of a mapped file's pages, which otherwise count as this process's memory until somebody else needs it."""
    if isinstance(array, np.memmap) and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def _lies_in(array: Array, file: Path) -> bool:
    if not isinstance(array, np.memmap) or array.filename is None or not file.exists() or not file.samefile(array.filename):
        return False
    return bool(np.load(file, mmap_mode="r").shape == array.shape)  # a part of a file is not the file


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
