"""Which of the tokenizer's 250,000 pieces are kept: those that English and Vietnamese text uses.

A text whose pieces are all kept is cut into the same pieces as before, because a cut that is the best of all is still
the best of fewer. A word that used another piece falls into shorter ones; every Latin letter with or without marks,
digit and sign has one of its own.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imgret.encoders.starter_recipe.e5 import E5
from imgret.encoders.tokens import Tokenizer

SPECIALS = 4
FREQUENT = 100_000
"""Of this many pieces, the most probable ones in all languages, those of Latin letters are kept too: names, the web."""

_SPACE = "▁"
_CHUNK = 10_000


def kept_pieces(e5: E5, tokenizer: Tokenizer, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The numbers of the pieces that are kept, in order; `texts` are words and sentences in both languages, which
    `tokenizer`, of all pieces, does not cut short.
    """
    kept = set(range(SPECIALS)) | _used(tokenizer, texts) | _used(tokenizer, [text.title() for text in texts])
    kept |= {number for number, piece in enumerate(e5.pieces) if _is_one_sign(piece)}
    kept |= {number for number, piece in enumerate(e5.pieces[:FREQUENT]) if all(map(_is_latin, piece))}
    return np.array(sorted(kept), dtype=np.int64)


def _used(tokenizer: Tokenizer, texts: Sequence[str]) -> set[int]:
    used: set[int] = set()
    for start in range(0, len(texts), _CHUNK):
        used.update(np.unique(tokenizer(texts[start : start + _CHUNK])).tolist())
    return used


def _is_one_sign(piece: str) -> bool:
    sign = piece.replace(_SPACE, "")
    return len(sign) <= 1 and all(map(_is_latin, sign))


def _is_latin(character: str) -> bool:
    """Whether it is a Latin letter, or no letter."""
    return not character.isalpha() or "LATIN" in unicodedata.name(character, "")
