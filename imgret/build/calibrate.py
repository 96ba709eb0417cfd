"""Searches with pictures and texts whose label is left out of the library, and keeps the score of each best hit."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.calibration import TEXT
from imgret.duplicates import DuplicateGroup
from imgret.encoders.texts import TextEmbeddings
from imgret.evaluate import BestOthers, sample
from imgret.index import Index
from imgret.metrics import METRICS
from imgret.progress import Progress

MAX_PICTURES, MAX_TEXTS = 1000, 300
_NEAREST, _BLOCK = 64, 64


def calibrate(
    index: Index,
    groups: Sequence[DuplicateGroup],
    embeddings: TextEmbeddings,
    others: BestOthers,
    progress: Progress,
) -> dict[str, dict[str, list[Any]]] | None:
    """By method, the `rows` of the query pictures and the `scores` of their best hits of other labels; for texts, a
    caption or the label of a picture stands for it. In a library without labels the `groups` of (nearly) equal pictures
    stand for labels. What the evaluation found already, `others`, is not searched again. None where all pictures have
    the same label.
    """
    labelled = [row for row, each in enumerate(index.words("label", "labels")) if each]
    rows = sample(np.array(labelled or range(len(index)), dtype=np.int64), MAX_PICTURES)
    equal = {row: group.rows for group in groups for row in group.rows}
    rows_of = cache(index.rows_of)  # one array for all pictures of a label: it may hold most of the library
    alike = (
        {int(row): rows_of(*index.record(int(row)).labels) for row in rows}
        if labelled
        else {int(row): np.array(equal.get(int(row), (row,)), dtype=np.int64) for row in rows}
    )
    rows = np.array([row for row in rows if len(alike[int(row)]) < len(index)], dtype=np.int64)
    if not len(rows):
        return None
    found: dict[str, dict[str, list[Any]]] = {}
    for method in METRICS:
        progress(f"calibrate {method}", 0, len(rows))
        known = {**others.get(method, {})} if labelled else {}
        new = np.array([row for row in rows.tolist() if row not in known], dtype=np.int64)
        known |= {
            row: _best_other(index, method, row, alike[row], nearest) for row, nearest in _nearest(index, method, new)
        }
        found[method] = {"rows": rows.tolist(), "scores": [known[row] for row in rows.tolist()]}
    found["clip"] = {"rows": rows.tolist(), "scores": _best_cosines(index, index.embeddings[rows], rows, alike)}
    texts = {int(row): text for row in sample(rows, MAX_TEXTS) if (text := _text_of(index, int(row)))}
    if texts:
        asked = sorted(texts)
        vectors = embeddings.of([texts[row] for row in asked])
        scores = _best_cosines(index, vectors, np.array(asked), alike)
        found[TEXT] = {"rows": asked, "scores": scores}
    return found


def _nearest(
    index: Index, method: str, rows: npt.NDArray[np.int64]
) -> Sequence[tuple[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]]:
    found, scores = index.pixels.search_many(index.pixels.vectors[rows], method, min(_NEAREST, len(index)))
    return [(int(row), (found[at], scores[at])) for at, row in enumerate(rows)]


def _best_other(
    index: Index,
    method: str,
    row: int,
    alike: npt.NDArray[np.int64],
    nearest: tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]],
) -> float:
    found, scores = nearest
    others = ~np.isin(found, alike)
    if not others.any():
        found, scores = index.pixels.search(index.pixels.vectors[row], method, len(index))
        others = ~np.isin(found, alike)
    return float(scores[np.argmax(others)])


def _best_cosines(
    index: Index, vectors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], alike: dict[int, npt.NDArray[np.int64]]
) -> list[float]:
    best: list[float] = []
    for start in range(0, len(rows), _BLOCK):  # the embeddings are read once for a block of queries
        scores = vectors[start : start + _BLOCK] @ index.embeddings.T
        for own, row in zip(scores, rows[start : start + _BLOCK], strict=True):
            own[alike[int(row)]] = -np.inf
        best += scores.max(axis=1).tolist()
    return best


def _text_of(index: Index, row: int) -> str | None:
    record = index.record(row)
    return record.caption or (record.labels[0].rpartition("/")[2] if record.labels else None)
