"""Groups the equal and the nearly equal pictures of an index: candidates by their embeddings, confirmed by pixels.

Each picture is compared with its `NEAREST` nearest by the embeddings. Their cosines are made a block of rows at a time
and not kept, so N pictures of d dimensions take N^2 d multiplications, but memory for one block only.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from imgret.alignment import Squares, coarse_likeness, likeness, square_pixels
from imgret.index import Index
from imgret.progress import StageProgress

NEAREST, LEAST_COSINE = 8, 0.3
"""How many of the nearest of each picture are its candidates, and how near they must be. Both are generous, so that
they do not depend on the encoder: the pixels decide.
"""

LEAST_COARSE, LEAST_COLOURS, LEAST_DETAILS = 0.75, 0.9, 0.8
"""What confirms a pair, as `imgret.alignment` measures it. The last two lie between the right and the wrong pairs of
one half of the photographs of `python -m benchmarks.duplicates`, which measures them on the other half.
"""

BLOCK_BYTES, PAIRS = 64 * 2**20, 512
"""How much of the cosines is in memory at a time, and how many pairs of pictures."""

CHUNK = 64
"""How many values of a row of cosines share a maximum."""

MAX_PICTURES = 20_000
"""Above, a build does not look for groups, nor does the page: the time grows with the square of the number."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DuplicateGroup:
    """Pictures that are the same, two at least, in the order of the index.

    `kind` is "exact" where all have equal content or equal decoded pixels, else "near". `rows` are those of the index.
    """

    kind: Literal["exact", "near"]
    ids: tuple[str, ...]
    rows: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """The group as the command line and the endpoint give it."""
        return {"kind": self.kind, "ids": list(self.ids)}


def duplicates_of(index: Index) -> tuple[DuplicateGroup, ...]:
    """The groups that the build found, or else those that `find_duplicates` finds."""
    if index.duplicates is None:
        return find_duplicates(index)
    ids = index.column("id")
    return tuple(DuplicateGroup(kind, tuple(ids[row] for row in rows), rows) for kind, rows in index.duplicates)


def find_duplicates(
    index: Index, *, mirrored: bool = False, progress: StageProgress = lambda done, total: None
) -> tuple[DuplicateGroup, ...]:
    """The groups of (nearly) equal pictures of `index`, by their first rows.

    Two pictures are in a group if a chain of confirmed pairs leads from one to the other. `mirrored` takes a picture
    and its mirror image for the same, too, which takes about twice as long.
    """
    return grouped(index.column("id"), *_pairs_of(index, mirrored, progress))


def grouped(ids: list[str], equal: Rows, near: Rows) -> tuple[DuplicateGroup, ...]:
    """The connected components of pairs of rows (n, 2), of which `equal` are the exact ones."""
    exact, component = _components(len(ids), equal), _components(len(ids), np.concatenate([equal, near]))
    members: dict[int, list[int]] = {}
    for row in map(int, np.unique(np.concatenate([equal.ravel(), near.ravel()]))):
        members.setdefault(component[row], []).append(row)
    return tuple(
        DuplicateGroup(
            "exact" if len({exact[row] for row in rows}) == 1 else "near",
            tuple(ids[row] for row in rows),
            tuple(rows),
        )
        for rows in members.values()
    )


def _components(count: int, pairs: Rows) -> list[int]:
    """The first row of the component of each row."""
    first = list(range(count))

    def root(row: int) -> int:
        while first[row] != row:
            first[row] = first[first[row]]
            row = first[row]
        return row

    for a, b in pairs.tolist():
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return [root(row) for row in range(count)]


def near_pairs(
    embeddings: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.uint8],
    side: int,
    *,
    mirrored: bool = False,
    progress: StageProgress = lambda done, total: None,
) -> Rows:
    """The confirmed pairs of rows (n, 2), the smaller row first, in order; `vectors` are squares of `side` pixels."""
    found: set[tuple[int, int]] = set()
    for a, b, _ in measured_pairs(embeddings, vectors, side, mirrored=mirrored, progress=progress):
        found.add((a, b))
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def measured_pairs(
    embeddings: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.uint8],
    side: int,
    *,
    mirrored: bool = False,
    least: tuple[float, float] = (LEAST_COLOURS, LEAST_DETAILS),
    progress: StageProgress = lambda done, total: None,
) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """The pairs of rows whose colours and details are alike at least as `least` says, and how much they are."""
    progress(0, len(embeddings))
    for start, candidates in _candidates(embeddings):
        for first in range(0, len(candidates), PAIRS):
            rows, pairs = np.unique(candidates[first : first + PAIRS], return_inverse=True)
            pairs = pairs.reshape(-1, 2)
            squares = Squares.of(square_pixels(np.asarray(vectors[rows]), side))
            for others in (squares, Squares.of(squares.pixels[..., ::-1])) if mirrored else (squares,):
                for a, b, found in _confirmed(squares, others, pairs, least):
                    yield int(rows[a]), int(rows[b]), found
        progress(start, len(embeddings))


def _confirmed(
    squares: Squares, others: Squares, pairs: Rows, least: tuple[float, float]
) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """Those of `pairs`, of a square and one of the others, of which one is like a part of the other."""
    in_other, other_windows = coarse_likeness(squares, others, pairs)
    in_square, windows = coarse_likeness(others, squares, pairs[:, ::-1])
    near = np.flatnonzero(np.maximum(in_square, in_other) >= LEAST_COARSE)
    forward, pairs = (in_other >= in_square)[near], pairs[near]
    a, b = squares.pixels[pairs[:, 0]], others.pixels[pairs[:, 1]]
    wholes, parts = (np.where(forward[:, None, None, None], *both) for both in ((a, b), (b, a)))
    found = likeness(wholes, parts, np.where(forward, other_windows[near], windows[near]))
    for (one, other), alike in zip(pairs.tolist(), found, strict=True):
        if alike.colours >= least[0] and alike.details >= least[1]:
            yield one, other, (alike.colours, alike.details)


def _candidates(embeddings: npt.NDArray[np.float32]) -> Iterator[tuple[int, Rows]]:
    """Pairs of rows (n, 2), the smaller one first, that are near by their embeddings: for each block of rows, where it
    ends, and its pairs that were not in an earlier one.
    """
    count = len(embeddings)
    nearest, step = min(NEAREST, count - 1), max(1, BLOCK_BYTES // (4 * count))
    if nearest < 1:
        return
    for start in range(0, count, step):
        cosines = embeddings[start : start + step] @ embeddings.T
        rows = np.arange(len(cosines))
        cosines[rows, rows + start] = -2
        best = _largest(cosines, nearest)
        near = np.take_along_axis(cosines, best, axis=1) >= LEAST_COSINE
        pairs = np.stack([np.repeat(rows + start, nearest), best.ravel()], axis=1)[near.ravel()]
        yield start + len(rows), np.unique(np.sort(pairs, axis=1), axis=0)


def _largest(values: npt.NDArray[np.float32], k: int) -> Rows:
    """The columns of the `k` largest values of each row, unordered. (B, N) -> (B, k).

    A chunk is CHUNK columns that lie evenly apart. The k chunks of the largest maxima hold k largest values, and
    finding the maxima is a tenth of the work of partitioning whole rows.
    """
    count, chunks = values.shape[1], values.shape[1] // CHUNK
    if chunks <= k:
        return np.argpartition(values, -k, axis=1)[:, -k:]
    even = values[:, : chunks * CHUNK].reshape(-1, CHUNK, chunks)
    best = np.argpartition(even.max(axis=1), -k, axis=1)[:, -k:]
    columns = (best[:, None, :] + chunks * np.arange(CHUNK)[:, None]).reshape(len(values), -1)
    rest = np.broadcast_to(np.arange(chunks * CHUNK, count), (len(values), count - chunks * CHUNK))
    columns = np.concatenate([columns, rest], axis=1)
    among = np.argpartition(np.take_along_axis(values, columns, axis=1), -k, axis=1)[:, -k:]
    return np.take_along_axis(columns, among, axis=1)


def _pairs_of(index: Index, mirrored: bool, progress: StageProgress) -> tuple[Rows, Rows]:
    """The equal and the near pairs of an index; of equal pictures, the first stands for all of them."""
    contents, equal = index.column("content"), []
    first: dict[Any, int] = {}
    sizes = list(zip(index.column("width"), index.column("height"), strict=True))
    for row, content in enumerate(contents):
        # A thumbnail depends on nothing but the decoded pixels; a lossless copy in another format has the same.
        decoded = (sizes[row], hashlib.sha256(index.thumbnail(row) + index.pixels.vectors[row].tobytes()).digest())
        same = first.get(content, first.get(decoded, row))
        first.setdefault(content, same)
        first.setdefault(decoded, same)
        if same != row:
            equal.append((same, row))
    kept = np.setdiff1d(np.arange(len(index)), [row for _, row in equal])
    near = near_pairs(
        np.asarray(index.embeddings[kept]) if equal else index.embeddings,
        np.asarray(index.pixels.vectors[kept]) if equal else index.pixels.vectors,
        index.manifest.pixel_size,
        mirrored=mirrored,
        progress=progress,
    )
    return np.array(equal, np.int64).reshape(-1, 2), kept[near]
