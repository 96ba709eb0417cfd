"""The tokenizer of multilingual-e5-small for the `sentencepiece` library, with all of its pieces or with some."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.encoders.starter_recipe.e5 import BOS, EOS, PAD, UNKNOWN
from imgret.encoders.tokens import SentencePieceTokenizer, load_tokenizer

MAX_TOKENS = 128
"""Longer texts are cut: ten times what a query has, and a third of what the model was trained on."""


def write_tokenizer(
    pieces: Sequence[str], scores: npt.NDArray[np.float32], replacements: Mapping[str, str], file: Path
) -> None:
    """Write the model of a vocabulary of `pieces`, the special ones first.

    `replacements` is the original's own table of characters. It is NFKC, but for control characters, which vanish, and
    for blanks. The file has these two; NFKC comes before it, as it composes letters and their marks, which the table,
    read a character at a time, would not.
    """
    messages = _messages()
    model = messages.ModelProto()
    kinds = messages.ModelProto.SentencePiece
    special = {BOS: kinds.CONTROL, PAD: kinds.CONTROL, EOS: kinds.CONTROL, UNKNOWN: kinds.UNKNOWN}
    for number, (piece, score) in enumerate(zip(pieces, scores, strict=True)):
        model.pieces.add(piece=piece, score=float(score), type=special.get(number, kinds.NORMAL))
    said = model.trainer_spec
    said.model_type, said.vocab_size = messages.TrainerSpec.UNIGRAM, len(pieces)
    said.bos_id, said.pad_id, said.eos_id, said.unk_id = BOS, PAD, EOS, UNKNOWN
    said.bos_piece, said.pad_piece, said.eos_piece, said.unk_piece = (pieces[n] for n in (BOS, PAD, EOS, UNKNOWN))
    model.normalizer_spec.CopyFrom(_normalizer(replacements))
    file.write_bytes(model.SerializeToString(deterministic=True))


def open_tokenizer(file: Path, max_tokens: int = MAX_TOKENS) -> SentencePieceTokenizer:
    """The tokenizer that `write_tokenizer` wrote, as the encoder opens it."""
    found = load_tokenizer(file.parent, tokenizer_config(file.name, max_tokens))
    assert isinstance(found, SentencePieceTokenizer)
    return found


def tokenizer_config(name: str, max_tokens: int = MAX_TOKENS) -> dict[str, object]:
    """What encoder.json says of the tokenizer in the file `name`."""
    return {"kind": "sentencepiece", "file": name, "clean": "nfkc", "context_length": max_tokens}


def _normalizer(replacements: Mapping[str, str]) -> object:
    """What sentencepiece makes of characters, compiled by itself."""
    from sentencepiece import SentencePieceNormalizer

    rules = [(char, text) for char, text in sorted(replacements.items()) if text in ("", " ")]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        table.write_text("".join(f"{ord(char):X}\t{'20' if text else ''}\n" for char, text in rules), encoding="ascii")
        compiled = SentencePieceNormalizer(
            rule_tsv=str(table), add_dummy_prefix=True, escape_whitespaces=True, remove_extra_whitespaces=True
        )
    model = _messages().ModelProto()
    model.ParseFromString(compiled.serialized_model_proto())
    return model.normalizer_spec


def _messages() -> Any:
    """The kinds of messages that a model's file is made of; protobuf makes them at import, unseen by type checkers."""
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2
