"""Measures how alike two small pictures are, if one of them may be a part of the other, as after a crop or in a frame.

A picture is compared with windows of the other one: a coarse grid of windows first, and where one of them is close,
the window is moved and scaled until it fits best (Lucas and Kanade, 1981; here four parameters and brightness).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

SIDE, FINE, COARSE = 64, 48, 16
"""The sides of the squares that are given, of those that are compared in the end, as a window of a picture is less
sharp than a whole one, and of those that the grid of windows is tried on.
"""

CENTRED = (1.0, 0.91, 0.83, 0.75)
SHIFTED = (0.95, 0.9)
"""The sides of the windows that are tried, as fractions: those in the middle of the picture, whose height and width may
differ, and those that touch an edge.
"""

SIGMA, NOISE = 1.9, 4.0
"""How far around a point its details are compared, in points of the last squares; and how many grey levels are no
detail but what a recompressed copy may differ in.
"""

ROUNDS = {32: 6, 64: 5}
"""How often a window is moved, on squares of which side."""

SMALLEST, LARGEST, FLAT = 0.6, 1.04, 3.0
"""The smallest and the largest window that is believed, as fractions of a side; and the standard deviation of grey
levels below which a square shows nothing that could be compared.
"""

TOGETHER = 16
"""How many windows are moved at once: their squares fit into a processor's cache."""

Array = npt.NDArray[np.float32]
Fractions = float | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Likeness:
    """How alike two squares are, 1 for equal ones: `colours` is the correlation of all values of the squares, `details`
    that of their grey levels without what is coarser than a twenty-fifth of a side, and as strong everywhere.
    """

    colours: float
    details: float


_UNLIKE = Likeness(-1, -1)


def square_pixels(vectors: npt.NDArray[np.uint8], side: int) -> Array:
    """Pixel vectors (n, 3 side^2) as squares (n, 3, SIDE, SIDE)."""
    squares = vectors.reshape(-1, side, side, 3).transpose(0, 3, 1, 2).astype(np.float32)
    return squares if side == SIDE else _resampled(squares, _interval(0, 1, side, SIDE))


@dataclass(frozen=True)
class Squares:
    """Squares of pixels (n, 3, SIDE, SIDE), and what the grid of windows needs of each: the whole square made small,
    `whole` (n, d), and each of its windows, `windows` (W, n, d); all of those without their mean and of norm 1.
    """

    pixels: Array
    whole: Array
    windows: Array

    @classmethod
    def of(cls, pixels: Array) -> "Squares":
        whole = _unit(_resampled(pixels, _interval(0, 1, SIDE, COARSE)))
        windows = np.empty((len(_windows()), *whole.shape), np.float32)
        for interval in {(top, height) for top, _, height, _ in _windows()}:  # many windows have the same rows
            strips = np.asarray(_interval(*interval, SIDE, COARSE) @ pixels, np.float32)
            for number, (top, left, height, width) in enumerate(_windows()):
                if (top, height) == interval:
                    windows[number] = _unit(strips @ _interval(left, width, SIDE, COARSE).T)
        return cls(pixels, whole, windows)


def coarse_likeness(
    wholes: Squares, parts: Squares, pairs: npt.NDArray[np.int64]
) -> tuple[Array, npt.NDArray[np.int64]]:
    """For `pairs` (p, 2) of a square of `wholes` and one of `parts`: the correlation of the whole with the best window
    of the part, and the number of that window.
    """
    whole, part = wholes.whole[pairs[:, 0]], pairs[:, 1]
    said = np.stack([np.einsum("pd,pd->p", whole, windows[part]) for windows in parts.windows])
    best = np.argmax(said, axis=0)
    return said[best, np.arange(len(pairs))], best


def likeness(wholes: Array, parts: Array, windows: npt.NDArray[np.int64]) -> list[Likeness]:
    """How alike each of `wholes` (p, 3, SIDE, SIDE) is to the best window of its part (p, 3, SIDE, SIDE), near the one
    of the number in `windows` (p,) or near all of it.

    Where brightness was cut off at white, the grid's best window can be one from which the right one is not reached.
    """
    best = [_UNLIKE] * len(windows)
    tried = [(pair, number) for pair, window in enumerate(windows.tolist()) for number in {0, window}]
    for start in range(0, len(tried), TOGETHER):
        some = tried[start : start + TOGETHER]
        pairs = [pair for pair, _ in some]
        begun = np.array([_windows()[number] for _, number in some])
        for pair, window in zip(pairs, _fitted(wholes[pairs], parts[pairs], begun).tolist(), strict=True):
            found = _likeness(wholes[pair], parts[pair], *window)
            best[pair] = max(best[pair], found, key=lambda one: one.details)
    return best


def _likeness(whole: Array, part: Array, top: float, left: float, height: float, width: float) -> Likeness:
    """How alike `whole` (3, SIDE, SIDE) is to a window of `part`."""
    if min(height, width) < SMALLEST or max(height, width) > LARGEST:
        return _UNLIKE
    shown = _resampled(whole, _interval(0, 1, SIDE, FINE))
    seen = _resampled(part, _averages(top, height, SIDE, FINE), _averages(left, width, SIDE, FINE))
    # What of a window lies outside of the picture says nothing.
    rows, columns = _within(top, height), _within(left, width)
    a, b = shown[:, rows][:, :, columns], seen[:, rows][:, :, columns]
    if min(a.mean(axis=0).std(), b.mean(axis=0).std()) < FLAT:
        return _UNLIKE
    fine_a, fine_b = (_details(x.mean(axis=0)) for x in (a, b))
    return Likeness(_correlation(a, b), _correlation(fine_a, fine_b))


def _fitted(wholes: Array, parts: Array, windows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each of `windows` (n, 4), the window near it of its part (n, 3, SIDE, SIDE) that shows its whole best."""
    greys = [squares.mean(axis=1) for squares in (wholes, parts)]
    for side, rounds in ROUNDS.items():
        targets, sources = (_resampled(grey, _interval(0, 1, SIDE, side)) for grey in greys)
        windows = _moved(targets, sources, windows, rounds)
    return windows


def _moved(targets: Array, sources: Array, windows: npt.NDArray[np.float64], rounds: int) -> npt.NDArray[np.float64]:
    """The windows of `sources` (n, s, s), after some rounds towards those that show `targets` (n, s, s)."""
    count, side = targets.shape[:2]
    at = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    down, across = np.gradient(sources, axis=(1, 2))
    top, left, height, width = windows.T
    y, x, h, w = top + height / 2, left + width / 2, height, width
    for _ in range(rounds):
        rows, columns = _points(y - h / 2, h, side), _points(x - w / 2, w, side).transpose(0, 2, 1)
        seen, dy, dx = (rows @ values @ columns for values in (sources, down, across))
        terms = np.stack([dy, dy * at[:, None], dx, dx * at, -targets, -np.ones_like(targets)], axis=1)
        terms = terms.reshape(count, 6, -1)
        products = terms @ terms.transpose(0, 2, 1) + 1e-3 * np.eye(6)
        step = (np.linalg.pinv(products, hermitian=True) @ -(terms @ seen.reshape(count, -1, 1)))[..., 0]
        moved = np.clip(step[:, :4] / side, -0.1, 0.1).T
        y, h, x, w = y + moved[0], h + moved[1], x + moved[2], w + moved[3]
        h, w = np.clip(h, 0.5, 1.2), np.clip(w, 0.5, 1.2)
        y, x = np.clip(y, 0.2, 0.8), np.clip(x, 0.2, 0.8)
    return np.stack([y - h / 2, x - w / 2, h, w], axis=1)


@cache
def _windows() -> tuple[tuple[float, float, float, float], ...]:
    """Top, left, height and width of the windows that are tried, as fractions."""
    centred = [((1 - h) / 2, (1 - w) / 2, h, w) for h in CENTRED for w in CENTRED if abs(h - w) < 0.17]
    edges = [
        ((1 - s) * y / 2, (1 - s) * x / 2, s, s)
        for s in SHIFTED
        for y in range(3)
        for x in range(3)
        if (y, x) != (1, 1)
    ]
    return (*centred, *edges)


@cache
def _interval(start: float, length: float, old: int, new: int) -> Array:
    """`_averages`, for intervals that are asked for again and again."""
    return _averages(start, length, old, new)


def _averages(start: float, length: float, old: int, new: int) -> Array:
    """A matrix (new, old) that averages `old` values over `new` equal parts of an interval, given as fractions."""
    if length * old < new:  # an enlargement interpolates
        return _points(start, length, old, new)
    edges = np.clip((start + length * np.arange(new + 1) / new) * old, 0, old)
    cell = np.arange(old)
    shares = np.clip(np.minimum(edges[1:, None], cell + 1) - np.maximum(edges[:-1, None], cell), 0, None)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-6), np.float32)


def _points(start: Fractions, length: Fractions, old: int, new: int | None = None) -> Array:
    """A matrix (new, old) that interpolates `old` values at the middles of `new` parts of an interval; of n intervals
    n matrices.
    """
    new = new or old
    start, length = np.asarray(start)[..., None], np.asarray(length)[..., None]
    places = (start + length * (np.arange(new) + 0.5) / new) * old - 0.5
    distances = np.abs(np.clip(places, 0, old - 1)[..., None] - np.arange(old))
    return np.clip(1 - distances, 0, None).astype(np.float32)


def _within(start: float, length: float) -> npt.NDArray[np.bool_]:
    """Which of the points of an interval lie in the picture."""
    places = start + length * (np.arange(FINE) + 0.5) / FINE
    return (places > -0.5 / FINE) & (places < 1 + 0.5 / FINE)


def _resampled(squares: Array, rows: Array, columns: Array | None = None) -> Array:
    return np.asarray(rows @ squares @ (rows if columns is None else columns).T, np.float32)


def _details(grey: Array) -> Array:
    """Grey levels without what is coarser than a twenty-fifth of a side, over how much they vary around: the texture
    within a shape counts as much as its outline, which many shapes share.
    """
    rows, columns = (_blur(n) for n in grey.shape)
    fine = grey - rows @ grey @ columns.T
    return np.asarray(fine / np.sqrt(rows @ fine**2 @ columns.T + NOISE**2), np.float32)


@cache
def _blur(side: int) -> Array:
    """A matrix (side, side) that averages around each value, by a Gaussian of `SIGMA`."""
    at = np.arange(side)
    weights = np.exp(-((at[:, None] - at) ** 2) / (2 * SIGMA**2))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _unit(values: Array) -> Array:
    """Each row without its mean, and of norm 1."""
    rows = values.reshape(len(values), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _correlation(a: Array, b: Array) -> float:
    return float((_unit(a[None]) @ _unit(b[None]).T)[0, 0])
