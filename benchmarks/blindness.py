"""Which changes of a picture move its first hit, and do those that cannot leave the ranking as it is?

    python -m benchmarks.blindness INDEX [--queries N]

Each picture that shares its label with another one is a query, itself left out of its hits. It is changed by 20
contrasts and brightnesses that clip no picture: each of `CANNOT_MOVE` must leave all scores by `imgret.metrics` as they
are, to 1e-12, and the ten best rows in their order but for scores closer than that. Then the smallest change that
dethrones the first hit is looked for, for each transform and metric, and confirmed by `imgret.metrics` on all rows just
below and just above; where there is none, at both ends of the range. Exits with 1 if anything fails.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret import Index
from imgret.blindness import TIE, TRANSFORMS, Dethroning, cannot_move, changed, clips, dethroning
from imgret.evaluate import sample
from imgret.metrics import LARGER_IS_CLOSER, METRICS

K = 10
UNCLIPPED = [
    {"contrast": a, "brightness": share * min(100, 255 * (1 - a))}
    for a in (0.25, 0.4, 0.5, 0.75, 0.9)
    for share in (0, 1 / 3, 2 / 3, 1)
]
PAIRS = [(transform, metric) for transform in TRANSFORMS for metric in METRICS]
PART = 1 << 17
Vectors, Values = npt.NDArray[np.uint8], npt.NDArray[Any]
_opened: list[Index] = []


@dataclass(frozen=True)
class Outcome:
    """What one query shows: how many statements were checked and failed, and for each pair its dethroning and whether
    brute force confirms it.
    """

    statements: int
    failed: int
    dethronings: list[Dethroning | None]
    confirmed: list[bool]


def brute_force(vectors: Vectors, query: Values, metric: str, itself: int | None = None) -> Values:
    """All scores by `imgret.metrics`, larger is better, a few rows at a time, as that fits the processor's cache; the
    query's own is the worst.
    """
    parts = np.array_split(vectors, max(1, vectors.size // PART))
    scores = np.concatenate([METRICS[metric](query, part) for part in parts])
    scores = scores if metric in LARGER_IS_CLOSER else -scores
    if itself is not None:
        scores[itself] = -np.inf
    return scores


def is_unmoved(before: Values, after: Values) -> bool:
    """Whether all scores are equal, and the ten best rows but for the order of equal ones."""
    best, then = (np.argsort(-scores, kind="stable")[:K] for scores in (before, after))
    return bool(max(np.abs(before - after).max(), np.abs(before[best] - before[then]).max()) <= TIE)


def lead(scores: Values, row: int) -> float:
    """By how much a row is better than the best of all others, as a share of its score where that is above 1."""
    return float(scores[row] - np.delete(scores, row).max()) / max(1.0, abs(scores[row]))


def is_confirmed(
    vectors: Vectors, query: Vectors, pair: tuple[str, str], itself: int | None, first: int, found: Dethroning | None
) -> bool:
    """Whether row `first` is the best just below the threshold and another one just above it; or at both ends."""
    kind, metric = TRANSFORMS[pair[0]], pair[1]

    def lead_at(strength: float) -> float:
        return lead(brute_force(vectors, changed(query, {kind.name: strength}), metric, itself), first)

    if found is None:
        return min(lead_at(kind.low), lead_at(kind.high)) >= -2 * TIE
    near = abs(found.strength_before - found.strength_after) < 1e-8 * (kind.high - kind.low)
    return near and lead_at(found.strength_before) >= -2 * TIE and lead_at(found.strength_after) < 0


def outcome(row: int) -> Outcome:
    pixels = _opened[0].pixels
    vectors, query = np.asarray(pixels.vectors), np.array(pixels.vectors[row])
    neutral = {metric: brute_force(vectors, query, metric) for metric in METRICS}
    checked = []
    for strengths in UNCLIPPED:
        moved = [name for name, strength in strengths.items() if strength != TRANSFORMS[name].neutral]
        for metric in METRICS:
            if cannot_move(metric, *moved):
                after = brute_force(vectors, changed(query, strengths), metric)
                checked.append(is_unmoved(neutral[metric], after) and not clips(query, strengths))
    found = [dethroning(pixels, query, metric, transform, without=[row]) for transform, metric in PAIRS]
    confirmed = []
    for pair, each in zip(PAIRS, found, strict=True):
        scores = neutral[pair[1]].copy()
        scores[row] = -np.inf
        first = int(scores.argmax()) if each is None else each.first
        right = lead(scores, first) >= -2 * TIE and is_confirmed(vectors, query, pair, row, first, each)
        confirmed.append(right)
    return Outcome(len(checked), checked.count(False), found, confirmed)


def _open(folder: str) -> None:
    _opened.append(Index.open(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("--queries", type=int)
    options = parser.parse_args()
    index = Index.open(options.index)
    shared = {label: len(index.rows_of(label)) > 1 for label in index.manifest.labels}
    labels = index.words("label", "labels")
    rows = sample(np.flatnonzero([any(shared[label] for label in each) for each in labels]), options.queries)
    outcomes = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_open, initargs=(options.index,)) as pool:
        for done, each in enumerate(pool.map(outcome, rows.tolist()), 1):
            outcomes.append(each)
            print(f"\r{done} of {len(rows)} queries", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    statements, failed = (sum(getattr(each, name) for each in outcomes) for name in ("statements", "failed"))
    print(f"{len(rows)} queries over {len(index)} pictures of {index.manifest.pixel_size} px")
    print(f"{'':<12}{'':<13}{'dethroned':>10}{'median change':>15}{'of them clipped':>17}{'not confirmed':>15}")
    wrong = 0
    for number, (transform, metric) in enumerate(PAIRS):
        found = [each.dethronings[number] for each in outcomes]
        fallen = [each for each in found if each is not None]
        changes = [abs(each.strength_after - TRANSFORMS[transform].neutral) for each in fallen]
        unconfirmed = sum(not each.confirmed[number] for each in outcomes)
        wrong += unconfirmed
        median = f"{np.median(changes):.4g}" if changes else "-"
        clipped = f"{np.mean([each.clipped for each in fallen]):.3f}" if fallen else "-"
        share = len(fallen) / len(found)
        print(f"{transform:<12}{metric:<13}{share:>10.3f}{median:>15}{clipped:>17}{unconfirmed:>15}")
    print(f"statements checked: {statements}")
    print(f"statements that failed: {failed}")
    print(f"thresholds that failed: {wrong} of {len(outcomes) * len(PAIRS)}")
    return int(bool(failed or wrong))


if __name__ == "__main__":
    sys.exit(main())
