"""The classes that readers share: records, entries that are not decoded yet, and rows that yield them."""

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from PIL import Image

from imgret.errors import ImgretError, one_line
from imgret.images import ImageError
from imgret.images.decode import MAX_BYTES, check_size, read_picture


class LibraryError(ImgretError):
    """A source that cannot serve as a library; the text says why and what would work."""


@dataclass(frozen=True)
class Record:
    """One picture of a library.

    `width` and `height` in pixels, upright; `captions` by language code, besides `caption`. A picture may have several
    `labels` and captions: `label` is the labels joined by commas, `caption` the first of `all_captions`.
    """

    id: str
    label: str | None
    caption: str | None
    width: int
    height: int
    captions: Mapping[str, str] = field(default_factory=dict)
    image: Image.Image | None = field(default=None, repr=False, compare=False)
    labels: tuple[str, ...] = ()
    all_captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """The labels, captions and captions by language that a row gives a picture."""

    labels: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    translations: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: "Annotations") -> "Annotations":
        """These annotations, then what `other` adds."""
        return Annotations(
            tuple(dict.fromkeys(self.labels + other.labels)),
            tuple(dict.fromkeys(self.captions + other.captions)),
            {**other.translations, **self.translations},
        )


@dataclass(frozen=True)
class Entry:
    """A record before its picture is decoded.

    `data` is the encoded picture, or the file or URL (as fsspec's) that holds it; None if that lies outside of the
    library, where nothing is read.
    """

    id: str
    label: str | None
    caption: str | None
    captions: Mapping[str, str]
    data: bytes | Path | str | None
    labels: tuple[str, ...] = ()
    all_captions: tuple[str, ...] = ()

    @classmethod
    def of(cls, id: str, annotations: Annotations, data: bytes | Path | str | None) -> "Entry":
        """The entry called `id` with these annotations and this picture."""
        label, caption = ", ".join(annotations.labels) or None, next(iter(annotations.captions), None)
        return cls(id, label, caption, annotations.translations, data, annotations.labels, annotations.captions)

    def read(self) -> bytes:
        """The encoded picture, of a size that is taken. Raises ImageError where it cannot be read."""
        if self.data is None:
            raise ImageError(
                "{id!r} lies outside of the library's folder, by a link or by its name, and only what is inside is "
                "read; copy it in, or load a folder that holds both.",
                id=self.id,
            )
        if isinstance(self.data, Path):
            return read_picture(self.data)
        data, name = self.data, "The picture"
        if isinstance(data, str):
            import fsspec

            name = Path(data).name
            try:
                with fsspec.open(data, "rb") as file:
                    data = bytes(file.read(MAX_BYTES + 1))
            except OSError as error:
                raise ImageError("{name} cannot be read ({error}).", name=name, error=one_line(error)) from None
        check_size(name, len(data))
        return data


@dataclass(frozen=True)
class Description:
    """What a library was taken from, in words.

    `pictures`, `label`, `captions` and `split` say where each comes from, None where there are none. `left_out` lists
    what was not taken. `warnings` are choices that could be meant otherwise, each with the option that decides it.
    """

    pictures: str
    label: str | None = None
    captions: str | None = None
    split: str | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The same as lines of text."""
        found = (("pictures", self.pictures), ("labels", self.label), ("captions", self.captions))
        taken = "; ".join(f"{what} from {where}" if where else f"no {what}" for what, where in found)
        return (
            f"{taken}; {f'split {self.split}' if self.split else 'no splits'}",
            f"left out: {', '.join(self.left_out) or 'nothing'}",
            *(f"warning: {warning}" for warning in self.warnings),
        )


class Reader(ABC):
    """Reads a source of one kind: iterate it for its entries, in a fixed order."""

    count: int | None
    """How many there are, None where only reading to the end would tell."""
    numbered: bool
    """Whether an id is the number of its row."""
    split: str | None
    revision: str | None
    description: Description
    splits: tuple[str, ...] = ()
    """The names of all splits of a folder, the chosen one, too."""
    stamp: str | None = None
    """A hash of the sizes and times of the files that hold the rows; None where the revision says all."""

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]: ...

    @abstractmethod
    def part(self, rows: slice) -> Self:
        """A reader of some of the rows, which another process can be sent."""

    def parts(self, size: int, limit: int | None) -> Iterator[Self]:
        """The first `limit` rows in consecutive parts of at most `size`."""
        assert self.count is not None
        stop = self.count if limit is None else min(self.count, limit)
        return (self.part(slice(start, min(start + size, stop))) for start in range(0, stop, size))

    def like(self, **values: object) -> Self:
        """A copy with other values."""
        changed = copy(self)
        changed.__dict__.update(values)
        return changed


def composed(text: str) -> str:
    """`text` in composed letters (NFC), without blanks around it: a Mac decomposes the names of its files."""
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


def printable(name: str) -> str:
    """The name of a file as text: it may be no UTF-8."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def within(root: Path, name: str) -> Path | None:
    """The file called `name` in the folder `root`, which is resolved; None if links or dots lead out of it."""
    try:
        path = Path(os.path.realpath(root / name, strict=True))
    except FileNotFoundError:  # told by whoever reads it, if it would lie inside
        path = Path(os.path.realpath(root / name))
    except (OSError, ValueError):  # a loop of links, a NUL byte
        return None
    return path if path.is_relative_to(root) else None


def counted(number: int, what: str) -> str:
    """So many of `what`, a noun in the singular, perhaps with words after it."""
    noun, _, rest = what.partition(" ")
    return f"{number} {noun}{'s' if number != 1 and not noun.startswith('.') else ''}{' ' if rest else ''}{rest}"
