"""What a search answers with: hits, with p-values that say how sure they are to be matches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.calibration import ALPHA, Calibration, p_values
from imgret.errors import Sentence
from imgret.index import Index
from imgret.library import Record

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Ask = Callable[[int], tuple[Rows, Scores]]
"""Answers a number k with the k best rows and their scores, best first."""

_OTHERS_AMONG = 1000
"""Among how many hits one of another label is looked for; without one the p-value is larger than it need be."""


@dataclass(frozen=True)
class Hit:
    """One picture that a search found.

    Attributes:
        rank: from 1.
        label: the text that joins the `labels`, of which a picture may have several.
        score: the metric's value; for CLIP the cosine similarity.
        row: where the index keeps the picture.
        duplicates: how many (nearly) equal pictures a search has folded into this hit; None if it folds none.
        p: how often a query without a match in the library finds a hit as good, see `imgret.calibration`. None where
            that is not known for this kind of query.
    """

    rank: int
    id: str
    label: str | None
    caption: str | None
    score: float
    captions: Mapping[str, str] = field(default_factory=dict, repr=False)
    row: int = field(default=-1, repr=False, compare=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    duplicates: int | None = field(default=None, repr=False)
    p: float | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, rank: int, row: int, record: Record, score: float) -> "Hit":
        """The hit in `row`, which has this record."""
        return cls(rank, record.id, record.label, record.caption, score, record.captions, row, record.labels)

    def as_dict(self) -> dict[str, Any]:
        """The hit as the command line and the endpoints give it."""
        values = {
            "rank": self.rank,
            "id": self.id,
            "label": self.label,
            "labels": list(self.labels),
            "caption": self.caption,
            "score": self.score,
            "p": self.p,
        }
        return values if self.duplicates is None else values | {"duplicates": self.duplicates}


@dataclass(frozen=True)
class SearchResult:
    """The hits of one query, best first.

    `rows_scanned`: how many vectors were compared with the query in full; None where Chroma found the hits. `notice`:
    None, or sentences on what was done otherwise than it was asked for: k reduced, a text cut, a language not read.
    """

    hits: list[Hit]
    rows_scanned: int | None = None
    notice: Sentence | None = None

    def matches(self, alpha: float = ALPHA) -> int | None:
        """How many hits, from the first on, have a p-value of at most `alpha`; None where it is not known."""
        if any(hit.p is None for hit in self.hits):
            return None
        return sum(hit.p is not None and hit.p <= alpha for hit in self.hits)


class PValues:
    """Says how sure the hits of a search are, by the calibration that the index carries."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def given_to(self, hits: list[Hit], method: str, ask: Ask, left_out: Sequence[int]) -> list[Hit]:
        """The hits, best first, with their p-values by a calibrated `method`.

        `ask` gives more of the same ranking, in which the rows `left_out` are no hits.
        """
        labels = [self._label_numbers(hit.row, hit.labels) for hit in hits]
        first = labels[0]
        other = next((hit.score for hit, own in zip(hits, labels, strict=True) if not own & first), None)
        fetched = len(hits)
        while other is None and fetched < (most := min(_OTHERS_AMONG, len(self._index))):
            fetched = min(4 * fetched, most)
            rows, scores = ask(fetched)
            ranked = ((int(row), score) for row, score in zip(rows, scores, strict=True) if row not in left_out)
            other = next((score for row, score in ranked if not self._label_numbers(row) & first), None)
        best = [other if own & first else hits[0].score for own in labels]
        found = p_values(
            self._calibrations[method],
            method,
            np.array([hit.score for hit in hits]),
            labels,
            np.array([np.nan if score is None else score for score in best], dtype=np.float64),
        )
        return [replace(hit, p=float(p)) for hit, p in zip(hits, found, strict=True)]

    @cached_property
    def _calibrations(self) -> dict[str, Calibration]:
        found = {}
        for method, each in self._index.calibration.items():
            labels = [sorted(self._label_numbers(row)) for row in each["rows"]]
            table = np.full((len(labels), max(1, *map(len, labels))), -1, dtype=np.int64)
            for row, own in enumerate(labels):
                table[row, : len(own)] = own
            found[method] = Calibration(table, np.array(each["scores"], dtype=np.float64))
        return found

    def _label_numbers(self, row: int, labels: tuple[str, ...] | None = None) -> frozenset[int]:
        """The labels of a picture as numbers; in a library without labels the group of its (near) equals."""
        if not self._index.manifest.labels:
            return frozenset([self._alike.get(row, row)])
        own = self._index.record(row).labels if labels is None else labels
        return frozenset(self._number_of[label] for label in own)

    @cached_property
    def _alike(self) -> dict[int, int]:
        """The first row of the group of (near) equals that a row is in, as the build found them; no query waits for
        others.
        """
        return {row: rows[0] for _, rows in self._index.duplicates or () for row in rows}

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self._index.manifest.labels)}
