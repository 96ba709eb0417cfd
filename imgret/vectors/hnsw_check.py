"""Checks the HNSW files of a Chroma collection before Chroma opens them.

Chroma 1.5.9 hands these files to hnswlib, which follows every link and trusts every length: one altered number in a
published index ends the process that searches it. Releases of Chroma after that one are to check them themselves.
"""

import math
import pickletools
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

METADATA = "index_metadata.pickle"
"""The file that Chroma writes last. Without it, Chroma reads none of the others."""

_HEADER = struct.Struct("<i6QiI3QdQ")  # hnswlib's, version 1
_ROWS_AT_ONCE = 16384
_FLAT = {"PROTO", "EMPTY_DICT", "MARK", "BINUNICODE", "NONE", "BININT", "SETITEMS", "STOP"}
_DICTS = 4
"""Chroma's metadata: three dictionaries in one. What is nested deeper overflows the stack of its parser."""


class GraphError(ValueError):
    """A graph that Chroma could not walk safely; the text says what is wrong with it."""


def check_graph(folder: Path, dim: int, max_neighbors: int) -> None:
    """Raises GraphError unless the files in `folder` are a graph of vectors (dim,) as Chroma writes it: every length is
    that of its file, every link leads to a node, on a level that the node has. OSError for a file that is not there.

    A node has `max_neighbors` links on each level but the bottom one, where it has twice as many.
    """
    _check_metadata(folder / METADATA)
    node = _Node(2 * max_neighbors, dim)
    count, top, entry = _read_header(folder / "header.bin", node, max_neighbors)
    _check_bottom(folder / "data_level0.bin", node, count)
    levels = _check_upper(folder / "link_lists.bin", max_neighbors, count)
    if count and levels[entry] != top:
        raise GraphError("its entry is not at its top")


@dataclass(frozen=True)
class _Node:
    """The record of a node on the bottom level: the number of links, the links, a vector (dim,), a label of eight
    bytes.
    """

    links: int
    dim: int

    @property
    def vector(self) -> int:
        return 4 + 4 * self.links

    @property
    def label(self) -> int:
        return self.vector + 4 * self.dim

    @property
    def size(self) -> int:
        return self.label + 8


def _check_metadata(path: Path) -> None:
    try:
        names = [operation.name for operation, _, _ in pickletools.genops(path.read_bytes())]
    except Exception as error:  # pickletools raises what it meets
        raise GraphError("its metadata cannot be read") from error
    if not _FLAT.issuperset(names) or names.count("EMPTY_DICT") > _DICTS:
        raise GraphError("its metadata are more than numbers and names")


def _read_header(path: Path, node: _Node, max_neighbors: int) -> tuple[int, int, int]:
    """The number of nodes, the top level and the node to enter by."""
    data = path.read_bytes()
    if len(data) != _HEADER.size:
        raise GraphError("its header is of another length")
    version, offset, capacity, count, size, label, vector, top, entry, *links, spread, _ = _HEADER.unpack(data)
    if (version, offset, size, label, vector) != (1, 0, node.size, node.label, node.vector):
        raise GraphError("its nodes are of another form")
    if links != [max_neighbors, node.links, max_neighbors] or not math.isclose(spread, 1 / math.log(max_neighbors)):
        raise GraphError("its nodes have another number of links")
    if not count <= capacity <= 4 * max(count, 1000):
        raise GraphError("its capacity is not that of its nodes")
    if entry >= count if count else top != -1:
        raise GraphError("its entry is not a node")
    return count, top, entry


def _check_bottom(path: Path, node: _Node, count: int) -> None:
    if path.stat().st_size < count * node.size:
        raise GraphError("nodes are missing")
    if not count:
        return
    nodes, labels = np.memmap(path, np.uint8, "r", shape=(count, node.size)), np.empty(count, dtype=np.uint64)
    for start in range(0, count, _ROWS_AT_ONCE):
        some = nodes[start : start + _ROWS_AT_ONCE]
        _check_links(some[:, : node.vector].copy().view("<u4"), count)
        labels[start : start + len(some)] = some[:, node.label :].copy().view("<u8")[:, 0]
    if len(np.unique(labels)) < count or np.max(labels) > np.iinfo(np.uint32).max:
        raise GraphError("its nodes have no names of their own")


def _check_upper(path: Path, max_neighbors: int, count: int) -> npt.NDArray[np.int64]:
    """The level of each node. (count,)."""
    data, width = path.read_bytes(), 1 + max_neighbors
    words = np.frombuffer(data, "<u4", len(data) // 4)
    sizes, levels, at = words.tolist(), np.zeros(count, dtype=np.int64), 0
    starts: list[int] = []
    for node in range(count):
        size = sizes[at] if at < len(sizes) else -1
        if size % (4 * width) or at + 1 + size // 4 > len(sizes):
            raise GraphError("its upper levels are of another length")
        levels[node] = size // (4 * width)
        starts += range(at + 1, at + 1 + size // 4, width)
        at += 1 + size // 4
    blocks = words[np.array(starts, dtype=np.int64)[:, None] + np.arange(width)]
    _check_links(blocks, count)
    at_level = np.concatenate(
        [np.arange(1, level + 1) for level in levels[levels > 0]] or [np.zeros(0, dtype=np.int64)]
    )
    linked = np.arange(max_neighbors) < blocks[:, :1]
    if (levels[np.where(linked, blocks[:, 1:], 0)] < at_level[:, None])[linked].any():
        raise GraphError("a link leads to a level that its node does not have")
    return levels


def _check_links(blocks: npt.NDArray[np.uint32], count: int) -> None:
    """Each row holds the number of its links, then the links."""
    number, links = blocks[:, :1], blocks[:, 1:]
    if (number > links.shape[1]).any() or (links[np.arange(links.shape[1]) < number] >= count).any():
        raise GraphError("a link leads to no node")
