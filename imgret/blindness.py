"""Finds what a metric cannot see: changes of a query that leave its ranking, and the smallest that dethrones a hit.

A changed query is a float64 pixel vector. It is clipped to 0..255, but never rounded: rounding would break what
CANNOT_MOVE states. Those statements hold up to the rounding of float64 (`TIE`), and only where nothing is clipped;
`clips` tells.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.errors import ImgretError, repr_short
from imgret.images import PixelVector
from imgret.metrics import LARGER_IS_CLOSER, METRICS, best_first
from imgret.pixels import PixelIndex

Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

CANNOT_MOVE: dict[str, dict[str, str]] = {
    "l1": {},
    "l2": {},
    "cosine": {"contrast": "blind_to_length"},
    "correlation": {"contrast": "blind_to_spread", "brightness": "blind_to_mean"},
}
"""By metric: the transforms that cannot move its ranking where nothing is clipped, and the key of the sentence why.

Cosine divides by the query's length, so a x with a > 0 has the cosines of x. Correlation takes the mean away first, so
x + b has the correlations of x, and a x + b too.
"""

TIE = 1e-12
"""Scores count as equal up to this, or this share of them: cosine and correlation are exact to it."""

_MORE, _KEPT = 8, 32
"""How many more rows than needed the index is asked for, and how many rows next to the first hit are kept in sight."""

_SLACK = 1e-7
"""What is added to a distance before it rules a row out: the arccos of a float64 near 1 is exact to 2e-8."""


@dataclass(frozen=True)
class Transform:
    """One way to change a picture, by a strength from `low` to `high`, at `neutral` by nothing.

    `change` takes a picture (S, S, 3) float64 and a strength, and does not clip where that would hide it from `clips`.
    `knots` gives, for a pixel vector, strengths between which the clipped picture is linear in the strength.
    """

    name: str
    low: float
    neutral: float
    high: float
    change: Callable[[Values, float], Values]
    knots: Callable[[PixelVector], Values]


def _blended(at: Callable[[Values, int], Values], step: Callable[[Values], float], picture: Values, s: float) -> Values:
    """The change at whole steps; between two of them the blend of both."""
    steps = s * step(picture)
    whole = round(steps) if abs(steps - round(steps)) < 1e-9 else math.floor(steps)
    share = max(0.0, steps - whole)
    below = at(picture, whole)
    return (1 - share) * below + share * at(picture, whole + 1) if share > 1e-9 else below


def _shifted(picture: Values, pixels: int) -> Values:
    columns = np.arange(picture.shape[1]) - pixels
    return picture[:, np.clip(columns, 0, picture.shape[1] - 1)]


def _cropped(picture: Values, pixels: int) -> Values:
    side = len(picture)
    pixels = min(pixels, (side - 1) // 2)
    if pixels == 0:
        return picture
    box = (pixels, pixels, side - pixels, side - pixels)
    channels = [Image.fromarray(picture[..., i].astype(np.float32)) for i in range(3)]
    resized = [each.resize((side, side), Image.Resampling.BICUBIC, box) for each in channels]
    return np.clip(np.stack([np.asarray(each, np.float64) for each in resized], axis=2), 0, 255)


def _noisy(picture: Values, deviation: int) -> Values:
    return np.clip(picture + deviation * _noise(picture.shape), 0, 255)


@lru_cache(4)
def _noise(shape: tuple[int, ...]) -> Values:
    return np.random.default_rng(0).standard_normal(shape)


def _contrast_knots(vector: PixelVector) -> Values:
    """Where a value reaches 255, and hundredths, so that L1 is looked at that often."""
    return np.concatenate([255 / np.unique(vector[vector > 0]), np.arange(1, 200) / 100])


def _side(vector: PixelVector) -> int:
    return math.isqrt(len(vector) // 3)


def _pixel_steps(vector: PixelVector) -> Values:
    side = _side(vector)
    return np.arange(-side, side + 1) / side


def _levels(vector: PixelVector) -> Values:
    return np.arange(-255.0, 256)


TRANSFORMS = {
    each.name: each
    for each in (
        # A share of the side, to the right, or where it is negative to the left; the edge is repeated.
        Transform("shift", -0.25, 0, 0.25, partial(_blended, _shifted, len), _pixel_steps),
        # A share of the side is cut away at each edge, and the rest enlarged.
        Transform("crop", 0, 0, 0.25, partial(_blended, _cropped, len), _pixel_steps),
        Transform("contrast", 0.25, 1, 2, lambda x, a: a * x, _contrast_knots),
        Transform("brightness", -100, 0, 100, lambda x, b: x + b, _levels),
        # The standard deviation of Gaussian noise, the same for each picture and call.
        Transform("noise", 0, 0, 64, partial(_blended, _noisy, lambda _: 1), _levels),
    )
}
"""The transforms by name, in the order in which several are applied: so contrast and brightness make a x + b."""


@dataclass(frozen=True)
class Dethroning:
    """The smallest change that dethrones the first hit.

    At `strength_before` row `first` is still the best, at `strength_after`, a billionth of the range further from
    neutral, row `then` is better. `clipped`: whether a value is clipped there.
    """

    strength_before: float
    strength_after: float
    first: int
    then: int
    clipped: bool


def cannot_move(metric: str, *transforms: str) -> bool:
    """Whether no strengths of all these transforms together can move the ranking by `metric` while nothing is clipped.

    Of others nothing is claimed: they can.
    """
    return set(transforms) <= CANNOT_MOVE[metric].keys()


def changed(query: PixelVector, strengths: Mapping[str, float]) -> Values:
    """The changed query (D,) float64, clipped to 0..255; transforms that are not named stay neutral.

    `query` is a uint8 pixel vector (D,). Raises ImgretError for an unknown transform or a strength out of range.
    """
    return _applied(query, strengths)[0]


def clips(query: PixelVector, strengths: Mapping[str, float]) -> bool:
    """Whether contrast and brightness take a value below 0 or above 255; then CANNOT_MOVE does not hold."""
    return _applied(query, strengths)[1]


def ranking(
    pixels: PixelIndex, query: Values, metric: str, k: int, *, without: Collection[int] = ()
) -> tuple[Rows, Values]:
    """`PixelIndex.search` for a query (D,) of floats from 0 to 255: the rows (k,) and scores (k,) of the k best.

    The scores are those of `imgret.metrics`; rows whose scores differ by rounding may stand in either order. `without`
    are rows that are left out. Raises ImgretError for what `PixelIndex.search` refuses.

    The index is asked for the query rounded to whole numbers. No row is nearer to the query than to the rounded one by
    more than these two are apart: where that leaves open which rows are the k best, the index is asked for more.
    """
    rounded, fetched = np.rint(query).astype(np.uint8), k + _MORE + len(without)
    flat = metric == "correlation" and np.ptp(query) == 0  # then all scores are 0
    while True:
        rows, scores = pixels.search(rounded, metric, fetched)
        if flat or (rounded == query).all():
            others = ~np.isin(rows, [*without])
            return rows[others][:k], scores[others][:k]
        apart = _distances(metric, METRICS[metric](query, rounded[None]))[0]
        if metric in LARGER_IS_CLOSER and apart > 1:
            apart = np.inf  # one of the two has no angle
        exact = METRICS[metric](query, pixels.vectors[rows])
        distances = _distances(metric, exact)
        order = np.lexsort((rows, distances))
        order = order[~np.isin(rows[order], [*without])][:k]
        beyond = _distances(metric, scores[-1:])[0] - apart - _SLACK
        if fetched >= len(pixels) or (len(order) == k and distances[order[-1]] < beyond):
            return rows[order], exact[order]
        fetched *= 4


def dethroning(
    pixels: PixelIndex, query: PixelVector, metric: str, transform: str, *, without: Collection[int] = ()
) -> Dethroning | None:
    """The smallest change, in either direction, after which the first hit of `query` is no longer the best; or None.

    `query` is a uint8 pixel vector (D,), as `Retriever.pixel_query` gives it, `without` rows that are no hits, such as
    the query itself. The first hit stays as long as no score is better by more than `TIE`.

    How it is found: between two knots the changed query moves on a straight line. The knots are looked at from neutral
    outwards. The first stretch at whose end another row is better is bisected.

    Why that is the smallest change under L2, cosine and correlation: the queries that a row is best for are a convex
    set, so a row that is best at two knots is best between them. Under L1 the same holds for brightness, whose
    distances bend at whole numbers only. For other transforms L1 may miss that the first hit is dethroned and comes
    back between two knots (a pixel of shift or crop, a hundredth of contrast, a level of noise).

    Not every knot is searched: by the triangle inequality a hit that leads by m stays first while the query moves by
    less than m / 2.

    Raises ImgretError for what `PixelIndex.search` refuses.
    """
    kind = _known(transform)
    first, _ = pixels.search(query, metric, 1 + len(without))
    first = first[~np.isin(first, [*without])]
    if not len(first):
        return None
    path = _Path(pixels, query, metric, kind, int(first[0]), without)
    found = [path.first_dethroning(kind.low, math.inf)]
    limit = math.inf if found[0] is None else kind.neutral - found[0].strength_after
    found.append(path.first_dethroning(kind.high, limit))
    return min(
        (each for each in found if each is not None),
        key=lambda each: abs(each.strength_after - kind.neutral),
        default=None,
    )


@dataclass(frozen=True)
class _Path:
    """The changes of one query by one transform, and the row that is to stay first."""

    pixels: PixelIndex
    query: PixelVector
    metric: str
    transform: Transform
    first: int
    without: Collection[int]

    def first_dethroning(self, end: float, limit: float) -> Dethroning | None:
        """The first dethroning from neutral to `end`, not further than `limit` from neutral."""
        before = neutral = self.transform.neutral
        here, rows, leads = self.searched(neutral)
        for knot in self.knots(end):
            if abs(before - neutral) >= limit:
                return None
            moved = METRICS[self.metric](here, self.at(knot)[None])
            reach = 2 * _distances(self.metric, moved)[0] + _SLACK
            if reach >= leads[-1]:
                here, rows, leads = self.searched(knot)
                reach = _SLACK
            rival = self.rival(knot, rows[leads[: len(rows)] <= reach])
            if rival is not None:
                return self.bisected(before, knot, rival)
            before = knot
        return None

    def knots(self, end: float) -> list[float]:
        """The knots from neutral, without it, to `end`, in this order."""
        neutral = self.transform.neutral
        inner = self.transform.knots(self.query)
        inner = inner[(np.minimum(neutral, end) < inner) & (inner < np.maximum(neutral, end))]
        outwards = np.unique(np.append(inner, end))[:: 1 if end > neutral else -1]
        return [float(knot) for knot in outwards if knot != neutral]

    def at(self, strength: float) -> Values:
        return changed(self.query, {self.transform.name: strength})

    def searched(self, strength: float) -> tuple[Values, Rows, Values]:
        """The changed query, the rows that come next to the first hit, and by how much (as a distance) it leads each.

        One more number at the end: by how much it leads all others.
        """
        query = self.at(strength)
        rows, scores = ranking(self.pixels, query, self.metric, _KEPT, without=self.without)
        mine = METRICS[self.metric](query, self.pixels.vectors[self.first][None])
        leads = _distances(self.metric, scores) - _distances(self.metric, mine)
        others = rows != self.first
        return query, rows[others], np.append(leads[others], leads[-1] if len(rows) == _KEPT else np.inf)

    def rival(self, strength: float, rows: Rows) -> int | None:
        """The best of `rows` that beats the first hit, if one does."""
        if not len(rows):
            return None
        scores = METRICS[self.metric](self.at(strength), self.pixels.vectors[np.append(rows, self.first)])
        best = best_first(scores[:-1], self.metric)[0]
        return int(rows[best]) if _beats(self.metric, scores[best], scores[-1]) else None

    def bisected(self, low: float, high: float, rival: int) -> Dethroning:
        """The dethroning between a strength at which the first hit holds and one at which `rival` beats it.

        Two rows are quickly compared; then all are, for another rival that does it before.
        """
        kind, start = self.transform, low
        while True:
            while abs(high - low) > 1e-9 * (kind.high - kind.low):
                middle = (low + high) / 2
                if self.rival(middle, np.array([rival])) is None:
                    low = middle
                else:
                    high = middle
            earlier = self.rival(low, self.searched(low)[1])
            if earlier is None:
                then = self.rival(high, self.searched(high)[1])
                return Dethroning(
                    low, high, self.first, rival if then is None else then, clips(self.query, {kind.name: high})
                )
            low, high, rival = start, low, earlier


def _applied(query: PixelVector, strengths: Mapping[str, float]) -> tuple[Values, bool]:
    """The changed query, and whether contrast and brightness were clipped."""
    for name, strength in strengths.items():
        kind = _known(name)
        if not kind.low <= strength <= kind.high:
            raise ImgretError(
                "The strength of {transform} is {strength}; it must be a number from {low} to {high}.",
                transform=name,
                strength=repr_short(strength),
                low=kind.low,
                high=kind.high,
            )
    side, clipped = _side(query), False
    picture = query.reshape(side, side, 3).astype(np.float64)
    for name, kind in TRANSFORMS.items():
        if name == "noise":
            clipped = bool(picture.min() < 0 or picture.max() > 255)
            picture = np.clip(picture, 0, 255)
        if strengths.get(name, kind.neutral) != kind.neutral:
            picture = kind.change(picture, float(strengths[name]))
    return picture.reshape(-1), clipped


def _known(transform: str) -> Transform:
    if transform not in TRANSFORMS:
        raise ImgretError(
            "There is no transform {transform}; choose one of {transforms}.",
            transform=repr_short(transform),
            transforms=", ".join(TRANSFORMS),
        )
    return TRANSFORMS[transform]


def _beats(metric: str, score: float, other: float) -> bool:
    better = score - other if metric in LARGER_IS_CLOSER else other - score
    return bool(better > TIE * max(1.0, abs(other)))


def _distances(metric: str, scores: Values) -> Values:
    """Scores as distances for which the triangle inequality holds: those of cosine and correlation as angles."""
    return np.arccos(scores) if metric in LARGER_IS_CLOSER else scores
