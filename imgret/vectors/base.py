"""Constants, types and helpers that local and server collections share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.errors import ImgretError

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

HNSW: dict[str, Any] = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32}
FIRST_EF_SEARCH = 100
SMALL = 1000
"""Up to this number of rows, `ef_search` is the number of rows. That costs next to nothing. Chroma rebuilds such a
graph at each open, not always the same, and texts lie further from pictures than the queries of the audit do.
"""
BATCH = 1000
AUDIT_RECALL = 0.99
LABEL = "label"


class VectorError(ImgretError):
    """The collection cannot be opened, asked or written; the text says why."""


@dataclass(frozen=True)
class RecallAudit:
    """The share of the true `k` nearest neighbours that a collection finds with `ef_search`."""

    queries: int
    k: int
    recall: float
    ef_search: int


@dataclass(frozen=True)
class FilterAudit:
    """The share of the true `k` nearest among the `rows` with one of `labels` that a collection finds by its filter."""

    labels: tuple[str, ...]
    rows: int
    queries: int
    k: int
    recall: float


def first_ef_search(count: int) -> int:
    return count if FIRST_EF_SEARCH < count <= SMALL else FIRST_EF_SEARCH


def creation_options(ef_search: int) -> dict[str, Any]:
    return {"embedding_function": None, "configuration": {"hnsw": HNSW | {"ef_search": ef_search}}}


def batch_of(rows: Rows, embeddings: Floats, labels: Sequence[str | None]) -> dict[str, Any]:
    """The `rows` as Chroma takes them; the id of each is its number."""
    of_rows = (labels[row] for row in rows)
    return {
        "ids": [str(row) for row in rows],
        "embeddings": np.asarray(embeddings[rows]),
        "metadatas": [None if label is None else {LABEL: label} for label in of_rows],
    }
