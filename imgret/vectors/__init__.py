"""Approximate nearest-neighbour search over embeddings, in Chroma: in an index folder or on a Chroma server.

No other package imports Chroma. It is imported when a collection is first opened or written, or by `warm`.
"""

from imgret.vectors.base import FilterAudit, RecallAudit, VectorError
from imgret.vectors.local_collection import warm
from imgret.vectors.server import ChromaServer
from imgret.vectors.server_collection import collection_of, drop, ping
from imgret.vectors.store import VectorStore, nearest_among

__all__ = [
    "ChromaServer", "FilterAudit", "RecallAudit", "VectorError", "VectorStore", "collection_of", "drop",
    "nearest_among", "ping", "warm",
]  # fmt: skip
