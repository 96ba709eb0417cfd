"""Reads the pictures and captions of the example gallery."""

import csv
from dataclasses import dataclass
from pathlib import Path

from imgret.settings import EXAMPLES

QUERIES = EXAMPLES / "queries"


@dataclass(frozen=True)
class Example:
    """A picture that is not in the library, with its label and its captions by language."""

    path: Path
    label: str
    captions: dict[str, str]


def read_examples() -> list[Example]:
    """The held-out pictures in `examples/queries`; none where they are not installed."""
    metadata = QUERIES / "metadata.csv"
    if not metadata.is_file():
        return []
    with metadata.open(encoding="utf-8", newline="") as file:
        return [
            Example(
                QUERIES / row["file_name"],
                row["label"],
                {"en": row["caption"], "vi": row["caption_vi"] or row["caption"]},
            )
            for row in csv.DictReader(file)
        ]
