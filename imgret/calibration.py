"""The p-value of a hit: how often a query without a match in the library finds one that is as good.

The build searches with pictures whose label is left out of the library, and keeps the score of the best hit of each.
The p-value of a hit is the share of these that are as good, as in conformal prediction (Vovk, Gammerman and Shafer
2005), plus its margin over labels: the upper end of an interval of 95 %. A query whose own label is not in
the library gets a hit with p <= alpha in at most the share alpha of cases, if its label is as the library's labels are;
it is no promise for each label, nor for pictures of another kind than the library's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgret.metrics import LARGER_IS_CLOSER

ALPHA = 0.1
"""The default bound on the share of queries without a match that are given one."""
MARGIN = 1.96
"""How many standard errors over the labels are added: the upper end of an interval of 95 %."""

TEXT = "clip-text"
"""The name under which CLIP's queries by a text alone are calibrated."""

_ROUNDING = 1e-6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """For one method, the scores of queries whose label was left out of the library.

    `labels` are those of the query pictures, by number, -1 for none in a column; (n, m) int. `scores` (n,) are those of
    the best hit that shares none of them.
    """

    labels: npt.NDArray[np.int64]
    scores: Floats


def p_values(
    calibration: Calibration,
    method: str,
    scores: Floats,
    labels: Sequence[frozenset[int]],
    others: Floats,
) -> Floats:
    """The p-values (k,) of hits with these `scores` (k,) and `labels`, best first; never smaller than that of a hit
    before.

    `others` (k,) are the best scores of the query among the pictures that share no label with the hit: a calibration
    query with the hit's label was searched without that label, and so is compared without it, too. NaN: there are none.
    """
    n = len(calibration.scores)
    first = calibration.labels[:, 0]
    strata, stratum = np.unique(first, return_inverse=True)
    sizes = np.bincount(stratum)
    sign = 1.0 if method in LARGER_IS_CLOSER or method.startswith("clip") else -1.0
    null = sign * calibration.scores
    found = np.ones(len(scores))
    for number, (score, own, other) in enumerate(zip(sign * scores, labels, sign * others, strict=True)):
        shares = np.isin(calibration.labels, list(own)).any(axis=1) if own else np.zeros(n, dtype=bool)
        # Two pictures have the same score whichever of them is the query, but for rounding.
        least, least_other = (value - _ROUNDING * max(1.0, abs(value)) for value in (score, other))
        as_good = np.where(shares, np.isnan(other) | (null >= least_other), null >= least)
        rate = as_good.mean()
        spread = np.bincount(stratum, weights=as_good) - sizes * rate
        error = np.sqrt((spread**2).sum() * len(strata) / max(len(strata) - 1, 1)) / n
        p = min(1.0, (1 + as_good.sum()) / (n + 1) + MARGIN * error)
        found[number] = max(p, found[number - 1] if number else 0.0)
        if found[number] == 1:
            break
    return found
