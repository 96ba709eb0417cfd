"""The pictures of the example gallery."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imgret.settings import EXAMPLES
from imgret.startup import Startup
from imgret.ui.thumbnails import Thumbnails

QUERIES = EXAMPLES / "queries"


@dataclass(frozen=True)
class Example:
    """A picture that is not in the library, by the `name` that an address has, with its labels and its captions by
    language.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    captions: dict[str, str]

    def caption(self, language: str) -> str:
        """The caption in `language`, else any, else the labels, else the name."""
        return self.captions.get(language) or next(iter(self.captions.values()), ", ".join(self.labels) or self.name)


class Examples:
    """The examples of the library that is searched: its own held-out pictures, or else those of `read_examples`."""

    def __init__(self, start: Startup, thumbnails: Thumbnails) -> None:
        self._start, self._thumbnails = start, thumbnails

    def __call__(self) -> list[Example]:
        """The examples now; until an index can be searched, those of `read_examples`."""
        if not self._start.health().searchable:
            return read_examples()
        index = self._start.wait().retriever.index
        found = []
        for number, picture in enumerate(index.held_out):
            captions = dict(picture.captions) | ({"": picture.caption} if picture.caption else {})
            path = self._thumbnails.held_out_path(index, number)
            found.append(Example(path, picture.id, picture.labels, captions))
        return found or read_examples()

    def at(self, path: Path) -> Example | None:
        """The example whose picture is in this file."""
        return next((example for example in self() if example.path == path), None)


@cache
def read_examples() -> list[Example]:
    """The held-out pictures in `examples/queries`; none where they are not installed."""
    metadata = QUERIES / "metadata.csv"
    if not metadata.is_file():
        return []
    with metadata.open(encoding="utf-8", newline="") as file:
        return [
            Example(
                QUERIES / row["file_name"],
                row["file_name"],
                (row["label"],),
                {"en": row["caption"], "vi": row["caption_vi"] or row["caption"]},
            )
            for row in csv.DictReader(file)
        ]
