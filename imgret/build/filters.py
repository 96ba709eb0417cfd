"""Measures the recall of Chroma's search with label filters that leave a tenth, a hundredth and a thousandth."""

from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from imgret.index import Index
from imgret.manifest import FILTER_SHARES, FilterShare
from imgret.progress import Progress
from imgret.vectors import FilterAudit, VectorError

MAX_LABELS = 1000
"""How many labels a filter names at most, the most frequent ones."""


def audit_filters(index: Index, progress: Progress) -> dict[FilterShare, FilterAudit | None]:
    """For each share of the library the audit of a filter that leaves about as many rows: that of the labels which are
    nearest to it; None if these leave less than half or more than twice as many, or if Chroma does not answer.
    """
    found: dict[FilterShare, FilterAudit | None] = {}
    for done, share in enumerate(FILTER_SHARES):
        progress("label filters", done, len(FILTER_SHARES))
        target = float(share) * len(index)
        labels = labels_of_share(index.manifest.labels, target)
        rows = index.rows_of(*labels)
        found[share] = None
        if not labels or not target / 2 <= len(rows) <= 2 * target:
            continue
        with suppress(VectorError):  # a large collection may not answer in time, and hits do not depend on it
            found[share] = index.vectors.audit_filter(index.embeddings, rows, labels, index.texts_of(labels))
    return found


def labels_of_share(counts: Mapping[str, int], target: float) -> tuple[str, ...]:
    """The labels whose counts add up to what is nearest to `target` and not more than twice as much, if there are any.

    Which sums there are is found label by label, as for the knapsack problem: a sum is made by the first label that
    reaches it, and by labels before that one.
    """
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MAX_LABELS]
    first = np.full(int(2 * target) + 1, -1)
    first[0] = len(names)
    for number, name in enumerate(names):
        there = first >= 0
        first[counts[name] :][there[: -counts[name]] & ~there[counts[name] :]] = number
    sums = np.flatnonzero(first >= 0)[1:]
    if not len(sums):
        return ()
    total, labels = int(sums[np.argmin(np.abs(sums - target))]), []
    while total:
        labels.append(names[first[total]])
        total -= counts[labels[-1]]
    return tuple(sorted(labels))
