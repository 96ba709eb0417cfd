"""Which embeddings are nearest to a vector? One Chroma collection, in an index folder or on a Chroma server.

Alone knows Chroma, which is not imported before a collection is opened or written.
"""

from imgret.vectors.base import Keys, RecallAudit, VectorError
from imgret.vectors.server import ChromaServer
from imgret.vectors.server_collection import can_grow, collection_of, drop, keys_of, ping
from imgret.vectors.store import VectorStore

__all__ = [
    "ChromaServer",
    "Keys",
    "RecallAudit",
    "VectorError",
    "VectorStore",
    "can_grow",
    "collection_of",
    "drop",
    "keys_of",
    "ping",
]
