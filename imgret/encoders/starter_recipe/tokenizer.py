"""The tokenizer of multilingual-e5-small for the `tokenizers` library, with all of its pieces or with some."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from imgret.encoders.starter_recipe.e5 import BOS, EOS, PAD, UNKNOWN

MAX_TOKENS = 128
"""Longer texts are cut: ten times what a query has, and a third of what the model was trained on."""


def build_tokenizer(
    pieces: Sequence[str], scores: npt.NDArray[np.float32], replacements: Mapping[str, str]
) -> Tokenizer:
    """Texts to ids, cut at MAX_TOKENS and padded to the longest of a batch.

    `replacements` is the model's own table of characters. It is NFKC, but for control characters, which vanish, and
    for blanks; so this composes letters and their marks, which the table, read a character at a time, would not.
    """
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, map(float, scores), strict=True)), UNKNOWN, False))
    vanishing = [char for char, text in replacements.items() if text == ""]
    blank = [char for char, text in replacements.items() if text == " "]
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_any_of(vanishing)), ""),
            normalizers.Replace(Regex(_any_of(blank)), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=PAD, pad_token="<pad>")
    return tokenizer


def _any_of(characters: Sequence[str]) -> str:
    return "[" + "".join(f"\\x{{{ord(char):04x}}}" for char in sorted(characters)) + "]"
