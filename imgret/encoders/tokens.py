"""How a text becomes token ids without torch: the same ids as open_clip's tokenizers give, from one file of data.

Source: open_clip/tokenizer.py (3.3.0), whose `SimpleTokenizer` is OpenAI's CLIP tokenizer (MIT). The cleaning, the word
pattern and the merging are theirs, line for line; `HFTokenizer` wraps the `tokenizers` library, used here directly. The
starter's vocabulary is read by the `sentencepiece` library, in a quarter of the memory.
"""

import gzip
import html
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

MAX_MERGES = 16 * 2**20
"""Bytes of a vocabulary, which is compressed; CLIP's has 3.1 million."""


class Tokenizer(Protocol):
    """Texts to ids (n, context length) int64, cut at the end and padded with `pad_id`. Threads may share it."""

    pad_id: int

    def __call__(self, texts: Sequence[str]) -> Ids: ...

    def cut_after(self, text: str) -> int | None:
        """How many tokens of `text` are read, besides those for start and end; None if it is read to its end."""


def load_tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that an exported encoder's `config` describes; its vocabulary lies in `folder`."""
    path, clean = folder / config["file"], _CLEANERS[config["clean"]]
    if config["kind"] == "clip":
        return ClipTokenizer(path, clean, config["context_length"])
    if config["kind"] == "sentencepiece":
        return SentencePieceTokenizer(path, clean, config["context_length"])
    return LibraryTokenizer(path, clean, config["pad_id"], config["zeroed_id"])


class ClipTokenizer:
    """CLIP's byte-pair encoding: bytes of each word are merged in the order of the vocabulary's merges."""

    pad_id = 0

    def __init__(self, merges: Path, clean: Callable[[str], str], context_length: int) -> None:
        import regex

        with gzip.open(merges) as file:
            lines = file.read(MAX_MERGES).decode("utf-8").split("\n")
        pairs = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
        self._byte_signs = _byte_signs()
        signs = list(self._byte_signs.values())
        specials = ["<start_of_text>", "<end_of_text>"]
        words = [*signs, *(sign + "</w>" for sign in signs), *("".join(pair) for pair in pairs), *specials]
        self._ids = {word: number for number, word in enumerate(words)}
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._pattern = regex.compile(
            "|".join(specials) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
        )
        self._specials = {special: [self._ids[special]] for special in specials}
        self._clean, self._context_length = clean, context_length
        # A word's pieces do not change, and captions repeat their words. Bounded, because visitors invent new ones.
        self._pieces = lru_cache(maxsize=16_384)(self._merged)

    def __call__(self, texts: Sequence[str]) -> Ids:
        start, end = (self._ids[special] for special in ("<start_of_text>", "<end_of_text>"))
        rows = np.zeros((len(texts), self._context_length), np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = [start, *self._encode(text)[: self._context_length - 2], end]
            row[: len(ids)] = ids
        return rows

    def cut_after(self, text: str) -> int | None:
        room = self._context_length - 2
        return room if len(self._encode(text)) > room else None

    def _encode(self, text: str) -> list[int]:
        words = self._pattern.findall(self._clean(text))
        signs = ("".join(self._byte_signs[byte] for byte in word.encode("utf-8")) for word in words)
        return [piece for word in signs for piece in self._specials.get(word) or self._pieces(word)]

    def _merged(self, word: str) -> tuple[int, ...]:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            first, second = min(pairwise(pieces), key=lambda p: self._ranks.get(p, len(self._ranks)))
            if (first, second) not in self._ranks:
                break
            pieces = _with_pair_merged(pieces, first, second)
        return tuple(self._ids[piece] for piece in pieces)


class LibraryTokenizer:
    """A tokenizer of the `tokenizers` library, whose file also says how to cut and pad."""

    def __init__(self, file: Path, clean: Callable[[str], str], pad_id: int, zeroed_id: int | None) -> None:
        from tokenizers import Tokenizer as Library

        self._library = Library.from_file(str(file))
        self._clean, self.pad_id, self._zeroed_id = clean, pad_id, zeroed_id

    def __call__(self, texts: Sequence[str]) -> Ids:
        encoded = self._library.encode_batch([self._clean(text) for text in texts])
        ids = np.array([row.ids for row in encoded], dtype=np.int64)
        # CLIPA's towers were trained with the separator replaced by 0; open_clip calls it `strip_sep_token`.
        return ids if self._zeroed_id is None else np.where(ids == self._zeroed_id, 0, ids)

    def cut_after(self, text: str) -> int | None:
        encoded = self._library.encode(self._clean(text))
        return encoded.special_tokens_mask.count(0) if encoded.overflowing else None


class SentencePieceTokenizer:
    """A model of the `sentencepiece` library, which also says what it makes of blanks and control characters."""

    def __init__(self, file: Path, clean: Callable[[str], str], context_length: int) -> None:
        from sentencepiece import SentencePieceProcessor

        self._library = SentencePieceProcessor(model_file=str(file))
        self._clean, self._room, self.pad_id = clean, context_length - 2, self._library.pad_id()

    def __call__(self, texts: Sequence[str]) -> Ids:
        start, end = self._library.bos_id(), self._library.eos_id()
        cut = [[start, *self._encode(text)[: self._room], end] for text in texts]
        rows = np.full((len(texts), max(map(len, cut), default=0)), self.pad_id, np.int64)
        for row, ids in zip(rows, cut, strict=True):
            row[: len(ids)] = ids
        return rows

    def cut_after(self, text: str) -> int | None:
        return self._room if len(self._encode(text)) > self._room else None

    def _encode(self, text: str) -> list[int]:
        return list(self._library.encode(self._clean(text)))


def _with_pair_merged(pieces: list[str], first: str, second: str) -> list[str]:
    merged, i = [], 0
    while i < len(pieces):
        if pieces[i] == first and i + 1 < len(pieces) and pieces[i + 1] == second:
            merged.append(first + second)
            i += 2
        else:
            merged.append(pieces[i])
            i += 1
    return merged


def _byte_signs() -> dict[int, str]:
    """A printable character for each byte, the printable bytes first: the order of the vocabulary's first 256 words."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _repaired(text: str) -> str:
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_repaired(text).split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonical(text: str) -> str:
    bare = _repaired(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(bare.lower().split())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _unchanged(text: str) -> str:
    return text


_CLEANERS: dict[str, Callable[[str], str]] = {
    "none": _unchanged,
    "whitespace": _whitespace,
    "lower": _lower,
    "canonicalize": _canonical,
    "nfkc": _composed,
}
