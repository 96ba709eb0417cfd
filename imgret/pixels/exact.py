"""`PixelIndex`: the exact nearest rows of a uint8 matrix under the four metrics.

A small matrix is read whole for each query, by numpy. For a large one, `imgret.pixels.sketches` rules most rows out
unread; its compiled code is imported only then.

The "key" of a row is the number that a search minimises: the L1 distance, the squared L2 distance, or the negative of
the similarity.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from imgret.errors import ImgretError, repr_short
from imgret.files.npy import lies_in, open_array, read_only, reserve, write_array
from imgret.metrics import LARGER_IS_CLOSER, best_first, checked_metric
from imgret.pixels.sketch_layout import FORMAT, sketch_bytes
from imgret.progress import StageProgress

if TYPE_CHECKING:
    from imgret.pixels.sketches import Sketches

Array = npt.NDArray[Any]
Vectors = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Keys = npt.NDArray[np.float64]

SMALL_BYTES = 1 << 23
SMALL_ROWS = SMALL_BYTES // (3 * 64 * 64)
"""A matrix up to this size is small, for instance 682 pictures of 64 px: numpy searches it in 2 ms. Compiled code takes
0.5 ms, but 125 MB of memory, 0.7 s in each process, and 11 s of compiling on a new installation. Files of small
matrices have no sketches, so lower values would change the format.
"""

_WIDENED = 1 << 17
"""How many values of a small matrix become float64 at once for one query (at least a row): 1 MiB. malloc returns larger
pieces to the system each time, and a query then takes up to five times as long.
"""

_TOGETHER = 128
"""Queries of a small matrix that are asked at once, at most, where many are."""

_HEADER_BYTES = 64


def is_small(n: int, dim: int) -> bool:
    """Whether a matrix (N, D) is searched without compiled code."""
    return n <= SMALL_ROWS and n * dim <= SMALL_BYTES


@dataclass(frozen=True)
class Neighbours:
    """The k best rows for one query.

    rows: (k,) int64, best first. scores: (k,) float64, as `imgret.metrics` gives them.
    rows_scanned: how many rows of the matrix were read; the sketches ruled out all others.
    """

    rows: Rows
    scores: Scores
    rows_scanned: int


class PixelIndex:
    """Exact search of the rows of a uint8 matrix (N, D) under "l1", "l2", "cosine" and "correlation".

    `fit` learns, `save` and `load` keep it in a folder of two files, `search` asks. It never changes after `fit`, so
    any number of threads may search at once.
    """

    def __init__(self, vectors: Vectors, arena: Vectors) -> None:
        """Used by `fit` and `load`: the matrix, and the bytes of its header and sketches."""
        self.vectors = vectors
        self._arena = arena
        self._pixels = read_only(vectors)
        self._small = is_small(*vectors.shape)

    @classmethod
    def fit(cls, vectors: Vectors, progress: StageProgress = lambda done, total: None) -> Self:
        """The index of `vectors`, uint8 (N, D), ndarray or memmap, which it keeps and neither copies nor changes.

        The matrix is read in pieces, and the sketches, at most 1.7 kB a row, go to an unnamed temporary file: memory
        does not grow with N. `progress` gets (rows done, N). Any other dtype or shape raises ValueError.
        """
        is_array = isinstance(vectors, np.ndarray)
        if not is_array or vectors.dtype != np.uint8 or vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ImgretError(
                "The vectors must be uint8 of shape (N, D), D at least 1, not {given}.", given=_described(vectors)
            )
        if not vectors.flags.c_contiguous:
            vectors = np.ascontiguousarray(vectors)
        if is_small(*vectors.shape):
            arena = np.zeros(_HEADER_BYTES, np.uint8)
            progress(len(vectors), len(vectors))
        else:
            with tempfile.TemporaryFile() as file:
                arena = np.memmap(file, np.uint8, "w+", shape=(_arena_bytes(*vectors.shape),))
                reserve(file)
            _sketches_type().fit(vectors, arena[_HEADER_BYTES:], progress)
        arena[:_HEADER_BYTES].view(np.int64)[:3] = FORMAT, *vectors.shape
        return cls(vectors, arena)

    def save(self, folder: str | Path) -> None:
        """Write `vectors.npy` and `sketch.npy` into `folder`, made if needed; a file the index lies in stays as it is.

        Each file takes its name only when it is complete.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for array, name in ((self.vectors, "vectors.npy"), (self._arena, "sketch.npy")):
            if not lies_in(array, folder / name):
                write_array(array, folder / f"{name}.partial")
                (folder / f"{name}.partial").replace(folder / name)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The index that `save` left in `folder`, memory-mapped: it reads two headers and writes nothing.

        A file that is missing, damaged, of another version or of another matrix raises ValueError.
        """
        try:
            vectors = open_array(Path(folder, "vectors.npy"))
            arena = open_array(Path(folder, "sketch.npy"))
        except (OSError, ValueError, EOFError) as error:
            raise ImgretError(
                "No pixel index can be read from {folder} ({error}); build it again.", folder=folder, error=error
            ) from error
        fits = (vectors.ndim, arena.ndim) == (2, 1) and vectors.dtype == arena.dtype == np.uint8
        fits = fits and vectors.shape[1] > 0
        if fits and is_small(*vectors.shape):
            arena = arena[:_HEADER_BYTES]  # earlier releases wrote sketches for small matrices too
        version, *shape = arena[:_HEADER_BYTES].view(np.int64)[:3] if fits and len(arena) >= _HEADER_BYTES else (0,)
        fits = 1 <= version <= FORMAT and tuple(shape) == vectors.shape
        if not fits or arena.shape != (_arena_bytes(len(vectors), vectors.shape[1], version),):
            raise ImgretError(
                "The files in {folder} are not of one matrix, or not of this version; build them again.", folder=folder
            )
        return cls(vectors, arena)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """D, the number of values in a row."""
        return int(self.vectors.shape[1])

    def search(self, query: Vectors, metric: str, k: int) -> tuple[Rows, Scores]:
        """The rows (k,) int64 and scores (k,) float64 of the k best, best first, for a uint8 query of shape (D,).

        They are those of `imgret.metrics` on all N rows: L1 and L2 exactly, equal scores by smaller row; cosine and
        correlation to 1e-12. k above N means N. Another shape, dtype or metric, or a k below 1 or not whole, raises
        ValueError.
        """
        nearest = self.nearest(query, metric, k)
        return nearest.rows, nearest.scores

    def search_many(self, queries: Vectors, metric: str, k: int) -> tuple[Rows, Scores]:
        """`search` for uint8 queries (Q, D), on all processors: rows (Q, k) int64 and scores (Q, k) float64."""
        count = len(queries) if isinstance(queries, np.ndarray) and queries.ndim else 0
        k = self._checked(queries, "queries", (count, self.dim), metric, k)
        rows, scores = np.empty((count, k), np.int64), np.empty((count, k), np.float64)
        # Of a small matrix, all but L1 are matrix products, which BLAS shares out. Products of several threads wait for
        # each other, on busy cores for fifty times as long as they compute.
        workers = 1 if self._sketches is None and metric != "l1" else os.cpu_count() or 1
        together = min(_TOGETHER, -(-count // workers), SMALL_BYTES // self.dim) if self._sketches is None else 1
        step = max(1, together)

        def ask(first: int) -> None:
            for i, nearest in enumerate(self._nearest_of_each(queries[first : first + step], metric, k), first):
                rows[i], scores[i] = nearest.rows, nearest.scores

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(ask, range(0, count, step)))
        return rows, scores

    def nearest(self, query: Vectors, metric: str, k: int) -> Neighbours:
        """`search` for one query, with the number of rows that it read."""
        k = self._checked(query, "query", (self.dim,), metric, k)
        return next(self._nearest_of_each(query[None], metric, k))

    def _checked(self, queries: Vectors, name: str, shape: tuple[int, ...], metric: str, k: int) -> int:
        checked_metric(metric)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ImgretError("k is {k}; it must be a whole number of at least 1.", k=repr_short(k))
        if not isinstance(queries, np.ndarray) or queries.dtype != np.uint8 or queries.shape != shape:
            raise ImgretError(
                "The {name} must be uint8 of shape {shape}, not {given}.",
                name=name,
                shape=shape,
                given=_described(queries),
            )
        return min(int(k), len(self))

    def _nearest_of_each(self, queries: Vectors, metric: str, k: int) -> Iterator[Neighbours]:
        queries = np.ascontiguousarray(queries)
        found: Iterable[tuple[Rows, Keys, int]]
        if self._sketches is None:
            every = np.arange(len(self))
            found = ((every, keys, len(self)) for keys in self._keys(queries, metric))
        else:
            found = (self._sketches.nearest(query, metric, k) for query in queries)
        for rows, keys, rows_scanned in found:
            scores = np.sqrt(keys) if metric == "l2" else 0.0 - keys if metric in LARGER_IS_CLOSER else keys
            order = best_first(scores, metric)[:k]
            yield Neighbours(rows[order], scores[order], rows_scanned)

    @cached_property
    def _sketches(self) -> "Sketches | None":
        """The sketches of a large matrix, loaded by the first search, as they import compiled code."""
        version = int(self._arena[:8].view(np.int64)[0])
        return None if self._small else _sketches_type()(self.vectors, self._arena[_HEADER_BYTES:], version)

    def warm(self) -> None:
        """Loads what the first search of a process needs, so that it does not wait."""
        if self._sketches is not None:
            self._sketches.warm()

    def _keys(self, queries: Vectors, metric: str) -> Keys:
        """The keys (Q, N) of all rows, in whole numbers up to the last step, as `imgret.metrics` has them."""
        if metric == "l1":
            return self._of_all_rows(len(queries), partial(_absolute_differences, queries)).astype(np.float64)
        a = queries.astype(np.float64)
        dots = self._of_all_rows(len(a), lambda rows: a @ rows.astype(np.float64).T)
        (totals, squares), (q_totals, q_squares) = self._sums, _sums_of(queries)[:, :, None]
        if metric == "l2":  # |a - b|^2 = a.a + b.b - 2 a.b
            return (q_squares + squares - 2 * dots).astype(np.float64)
        if metric == "cosine":
            return _negative_cosines(dots, q_squares, squares)
        assert metric == "correlation"  # D times the covariance and the variances, which stay whole numbers
        return _negative_cosines(
            self.dim * dots - q_totals * totals, self.dim * q_squares - q_totals**2, self.dim * squares - totals**2
        )

    @cached_property
    def _sums(self) -> Rows:
        """Of each row's values, and of their squares, (2, N) int64."""
        return self._of_all_rows(2, _sums_of)

    def _of_all_rows(self, count: int, formula: Callable[[Vectors], Array]) -> Rows:
        """What `formula` gives for all rows, (count, N) int64. It gets a few rows at a time; more for many queries."""
        values, step = np.empty((count, len(self)), np.int64), max(1, _WIDENED * min(count, 8) // self.dim)
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            values[:, some] = formula(self._pixels[some])
        return values


def _negative_cosines(dots: Array, q_squares: Array, squares: Array) -> Keys:
    """-a.b / (|a| |b|), and 0 where a norm is 0; from the products and the squared norms."""
    norms = np.sqrt(q_squares) * np.sqrt(squares)
    keys = np.divide(-dots, norms, out=np.zeros(norms.shape), where=norms > 0)
    return np.clip(keys, -1, 1, out=keys)  # rounding may go beyond


def _absolute_differences(queries: Vectors, rows: Vectors) -> Array:
    """(Q, n) uint32."""
    return np.array([(np.maximum(a, rows) - np.minimum(a, rows)).sum(axis=1, dtype=np.uint32) for a in queries])


def _sums_of(rows: Vectors) -> Array:
    """Of each row's values, and of their squares, (2, n) int64: whole numbers below 2^53, so exact in float64."""
    values = rows.astype(np.float64)
    return np.array([values.sum(axis=1), np.einsum("ij,ij->i", values, values)], np.int64)


def _arena_bytes(n: int, dim: int, version: int = FORMAT) -> int:
    return _HEADER_BYTES + (0 if is_small(n, dim) else sketch_bytes(n, dim, version))


def _sketches_type() -> type["Sketches"]:
    from imgret.pixels.sketches import Sketches  # here, as it imports numba

    return Sketches


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
