"""Which rows of a uint8 matrix are the most similar to a query under the four metrics, exactly?

All rows of a small matrix are read for each query, by numpy. For a large one, `imgret.sketches` keeps a few numbers
about every row that rule most of them out unread; it compiles code for that, which a small one does without.

A row's "key" is what a search makes small: the L1 distance, the squared L2 distance, or minus the similarity.
"""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from imgret.arrays import lies_in, open_array, read_only, reserve, write_array
from imgret.errors import shown
from imgret.metrics import LARGER_IS_CLOSER, METRICS, best_first
from imgret.shards import cut

if TYPE_CHECKING:
    from imgret.sketches import Sketches

Array = npt.NDArray[Any]
Vectors = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Keys = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

SMALL_ROWS, SMALL_BYTES = 1024, 1 << 23
"""A matrix of no more is small: numpy reads it in 2 ms where compiled code takes 0.5, 125 MB of memory, 0.7 s of each
process and, on a new installation, 11 s of compiling.
"""

_WIDENED = 1 << 19
"""Values of a small matrix that are widened at once: 4 MiB as float64, which stay in the processor's cache."""

_FORMAT = 1
_HEADER_BYTES = 64


def is_small(n: int, dim: int) -> bool:
    """Whether a matrix (N, D) is searched without compiled code."""
    return n <= SMALL_ROWS and n * dim <= SMALL_BYTES


@dataclass(frozen=True)
class Answer:
    """The k best rows for one query.

    rows: (k,) int64, best first. scores: (k,) float64, as `imgret.metrics` gives them. visited: how many rows of the
    matrix were read for it; all others were ruled out by their sketch.
    """

    rows: Rows
    scores: Scores
    visited: int


class PixelIndex:
    """Exact search of the rows of a uint8 matrix (N, D) under "l1", "l2", "cosine" and "correlation".

    `fit` learns, `save` and `load` keep it in a folder of two files, `search` asks. It never changes after `fit`, so
    any number of threads may search at once.
    """

    def __init__(self, vectors: Vectors, arena: Vectors) -> None:
        """For `fit` and `load`: the matrix, and the bytes of its header and of its sketches."""
        self.vectors = vectors
        self._arena = arena
        self._pixels = read_only(vectors)
        small = is_small(*vectors.shape)
        self._sketches = None if small else _sketches()(vectors, arena[_HEADER_BYTES:])

    @classmethod
    def fit(cls, vectors: Vectors, progress: Progress = lambda done, total: None) -> Self:
        """The index of `vectors`, uint8 (N, D), ndarray or memmap, which it keeps and neither copies nor changes.

        The matrix is read in pieces, and the sketches, at most 1.7 kB a row, go to an unnamed temporary file: memory
        does not grow with N. `progress` hears (rows done, N). Any other dtype or shape raises ValueError.
        """
        is_array = isinstance(vectors, np.ndarray)
        if not is_array or vectors.dtype != np.uint8 or vectors.ndim != 2 or vectors.shape[1] == 0:
            raise ValueError(f"The vectors must be uint8 of shape (N, D), D at least 1, not {_described(vectors)}.")
        if not vectors.flags.c_contiguous:
            vectors = np.ascontiguousarray(vectors)
        with tempfile.TemporaryFile() as file:
            arena = np.memmap(file, np.uint8, "w+", shape=(_arena_bytes(*vectors.shape),))
            reserve(file)
        arena[:_HEADER_BYTES].view(np.int64)[:3] = _FORMAT, *vectors.shape
        index = cls(vectors, arena)
        if index._sketches is not None:
            index._sketches.fit(vectors, progress)
        progress(len(index), len(index))
        return index

    def save(self, folder: str | Path) -> None:
        """Write `vectors.npy` and `sketch.npy` into `folder`, made if needed; a file the index lies in stays as it is.

        Each file takes its name only when it is complete, and a long one is then cut (see `imgret.shards`).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for array, name in ((self.vectors, "vectors.npy"), (self._arena, "sketch.npy")):
            if not lies_in(array, folder / name):
                write_array(array, folder / f"{name}.partial")
                (folder / f"{name}.partial").replace(folder / name)
                cut(folder / name)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The index that `save` left in `folder`, memory-mapped: it reads two headers and writes nothing.

        A file that is missing, damaged, of another version or of another matrix raises ValueError.
        """
        try:
            vectors = open_array(Path(folder, "vectors.npy"))
            arena = open_array(Path(folder, "sketch.npy"))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"No pixel index can be read from {folder} ({error}); build it again.") from error
        fits = vectors.ndim == 2 and vectors.dtype == arena.dtype == np.uint8 and vectors.shape[1] > 0
        if fits and is_small(*vectors.shape):
            arena = arena[:_HEADER_BYTES]  # earlier releases wrote sketches of these, too
        fits = fits and arena.shape == (_arena_bytes(*vectors.shape),)
        if not fits or tuple(arena[:_HEADER_BYTES].view(np.int64)[:3]) != (_FORMAT, *vectors.shape):
            raise ValueError(f"The files in {folder} are not of one matrix, or not of this version; build them again.")
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
        answer = self.answer(query, metric, k)
        return answer.rows, answer.scores

    def search_many(self, queries: Vectors, metric: str, k: int) -> tuple[Rows, Scores]:
        """`search` for uint8 queries (Q, D), on all processors: rows (Q, k) int64 and scores (Q, k) float64."""
        asked = len(queries) if isinstance(queries, np.ndarray) and queries.ndim else 0
        k = self._checked(queries, "queries", (asked, self.dim), metric, k)
        rows, scores = np.empty((asked, k), np.int64), np.empty((asked, k), np.float64)
        workers = os.cpu_count() or 1

        def ask(first: int) -> None:
            for i in range(first, asked, workers):
                answer = self._answer(queries[i], metric, k)
                rows[i], scores[i] = answer.rows, answer.scores

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(ask, range(workers)))
        return rows, scores

    def answer(self, query: Vectors, metric: str, k: int) -> Answer:
        """`search`, and how many rows it read."""
        return self._answer(query, metric, self._checked(query, "query", (self.dim,), metric, k))

    def _checked(self, asked: Vectors, name: str, shape: tuple[int, ...], metric: str, k: int) -> int:
        if not isinstance(metric, str) or metric not in METRICS:
            raise ValueError(f"There is no metric {shown(metric)}; choose one of {', '.join(METRICS)}.")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k is {shown(k)}; it must be a whole number of at least 1.")
        if not isinstance(asked, np.ndarray) or asked.dtype != np.uint8 or asked.shape != shape:
            raise ValueError(f"The {name} must be uint8 of shape {shape}, not {_described(asked)}.")
        return min(int(k), len(self))

    def _answer(self, query: Vectors, metric: str, k: int) -> Answer:
        query = np.ascontiguousarray(query)
        if self._sketches is None:
            rows, keys, visited = np.arange(len(self)), self._keys(query, metric), len(self)
        else:
            rows, keys, visited = self._sketches.nearest(query, metric, k)
        scores = np.sqrt(keys) if metric == "l2" else 0.0 - keys if metric in LARGER_IS_CLOSER else keys
        order = best_first(scores, metric)[:k]
        return Answer(rows[order], scores[order], visited)

    def warm(self) -> None:
        """Do what the first search of a process would have to wait for."""
        if self._sketches is not None:
            self._sketches.warm()

    def _keys(self, query: Vectors, metric: str) -> Keys:
        """The keys (N,) of all rows, in whole numbers up to the last step, as `imgret.metrics` has them."""
        if metric == "l1":
            differences = self._of_each(lambda rows: (np.maximum(rows, query) - np.minimum(rows, query)).sum(axis=1))
            return differences.astype(np.float64)
        a = query.astype(np.float64)
        dots, (totals, squares) = self._of_each(lambda rows: rows.astype(np.float64) @ a), self._sums
        total, square = int(query.sum()), int(a @ a)
        if metric == "l2":
            return (squares + square - 2 * dots).astype(np.float64)
        if metric == "correlation":
            dots = self.dim * dots - total * totals
            squares, square = self.dim * squares - totals**2, self.dim * square - total**2
        norms = np.sqrt(square) * np.sqrt(squares)
        return np.divide(-dots, norms, out=np.zeros(len(self)), where=norms > 0)

    @cached_property
    def _sums(self) -> tuple[Rows, Rows]:
        """Of each row's values, and of their squares, (N,) int64."""
        return (
            self._of_each(lambda rows: rows.sum(axis=1)),
            self._of_each(lambda rows: (rows.astype(np.float64) ** 2).sum(axis=1)),
        )

    def _of_each(self, said: Callable[[Vectors], Array]) -> Rows:
        """What `said` makes of each row, (N,) int64, a few rows at a time; sums below 2^53 are exact in float64."""
        values, step = np.empty(len(self), np.int64), max(1, _WIDENED // self.dim)
        for start in range(0, len(self), step):
            values[start : start + step] = said(self._pixels[start : start + step])
        return values


def _arena_bytes(n: int, dim: int) -> int:
    return _HEADER_BYTES + (0 if is_small(n, dim) else _sketches().bytes_of(n, dim))


def _sketches() -> type["Sketches"]:
    from imgret.sketches import Sketches  # here, as it takes numba along

    return Sketches


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
