"""How often a query without a match is given one, and how many queries keep a right match.

python -m benchmarks.matches FOLDER [--alpha 0.1] [--json]

FOLDER is an index with labels. Each label in turn is removed from its library, with all its pictures, and these are
searched with in what is left, whose calibration is made anew without them. No hit is a match then: the share that is
given one, pooled over the labels, should be at most alpha. The interval is of 95 %, by resampling labels. Beside it,
with the library whole: the share of pictures whose first hit is a match with the right label, and of those that have
any right match.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgret.calibration import ALPHA, Calibration, p_values
from imgret.index import Index
from imgret.metrics import LARGER_IS_CLOSER
from imgret.search import METHODS

BLOCK, RESAMPLES = 64, 2000
Floats = npt.NDArray[np.float64]


def best_by_label(index: Index, method: str, codes: npt.NDArray[np.int64], count: int) -> Floats:
    """The best score of each picture among the others of each label, larger is better. (N, L)"""
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(count))
    found = []
    for rows, scores in _scores(index, method):
        scores[np.arange(len(rows)), rows] = -np.inf
        found.append(np.maximum.reduceat(scores[:, order], starts, axis=1))
    return np.vstack(found)


def _scores(index: Index, method: str) -> Iterator[tuple[npt.NDArray[np.int64], Floats]]:
    """Blocks of rows, and their scores with all pictures, larger is better."""
    sign = 1 if method in (*LARGER_IS_CLOSER, "clip") else -1
    for start in range(0, len(index), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(index)))
        if method == "clip":
            yield rows, (index.embeddings[rows] @ index.embeddings.T).astype(np.float64)
            continue
        ranked, found = index.pixels.search_many(index.pixels.vectors[rows], method, len(index))
        scores = np.empty(found.shape)
        np.put_along_axis(scores, ranked, sign * found, axis=1)
        yield rows, scores


def measured(best: Floats, codes: npt.NDArray[np.int64], alpha: float) -> dict[str, float | list[float]]:
    """The figures of one method, from the best scores by label."""
    rows, count = np.arange(len(codes)), best.shape[1]
    others = best.copy()
    others[rows, codes] = -np.inf
    given = np.zeros(len(codes), dtype=bool)
    for label in range(count):
        absent, rest = np.flatnonzero(codes == label), np.flatnonzero(codes != label)
        left = others[rest].copy()
        left[:, label] = -np.inf
        calibration = Calibration(codes[rest][:, None], left.max(axis=1))
        given[absent] = [_first(calibration, others[row]) <= alpha for row in absent]
    right, first = np.zeros(len(codes), dtype=bool), np.zeros(len(codes), dtype=bool)
    calibration = Calibration(codes[:, None], others.max(axis=1))
    for row in rows:
        own, other = best[row, codes[row]], others[row].max()
        alone = own >= other
        first[row] = alone and _first(calibration, best[row]) <= alpha
        before = max(own, other)  # a hit is never surer than the one before it
        p = max(_first(calibration, best[row]), _of(calibration, own, codes[row], other if alone else before))
        right[row] = np.isfinite(own) and p <= alpha
    draw = np.random.default_rng(0)
    sums = np.bincount(codes, weights=given, minlength=count)
    sizes = np.bincount(codes, minlength=count)
    picked = draw.integers(0, count, (RESAMPLES, count))
    rates = sums[picked].sum(axis=1) / sizes[picked].sum(axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return {
        "queries": len(codes),
        "given a match": float(given.mean()),
        "interval": [float(low), float(high)],
        "first hit right and a match": float(first.mean()),
        "a right match": float(right.mean()),
    }


def _first(calibration: Calibration, best: Floats) -> float:
    """The p-value of the best hit, by the best scores by label."""
    label = int(best.argmax())
    return _of(calibration, best[label], label, np.delete(best, label).max())


def _of(calibration: Calibration, score: float, label: int, other: float) -> float:
    other = other if np.isfinite(other) else np.nan
    return float(p_values(calibration, "clip", np.array([score]), [frozenset([label])], np.array([other]))[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alpha", type=float, default=ALPHA)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    index = Index.open(options.folder)
    labels = [each[0] if len(each) == 1 else None for each in index.words("label", "labels")]
    if None in labels:
        parser.error("each picture of the index needs one label")
    names, codes = np.unique(np.array(labels), return_inverse=True)
    found = {
        method: measured(best_by_label(index, method, codes, len(names)), codes, options.alpha) for method in METHODS
    }
    if options.json:
        print(json.dumps({"alpha": options.alpha, "methods": found}))
        return
    print(f"{'':<12}{'given a match':>14}{'95 %':>18}{'first right':>13}{'any right':>11}   alpha {options.alpha:g}")
    for method, figures in found.items():
        low, high = figures["interval"]
        print(
            f"{method:<12}{figures['given a match']:>14.3f}{f'{low:.3f} to {high:.3f}':>18}"
            f"{figures['first hit right and a match']:>13.3f}{figures['a right match']:>11.3f}"
        )


if __name__ == "__main__":
    main()
