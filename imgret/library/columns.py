"""Finds the columns of a table that hold the pictures, the labels and the captions."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imgret.library.records import Annotations, LibraryError, composed

IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
LABEL_NAMES = (
    "label", "labels", "class", "classes", "category", "categories", "fine_label", "class_name", "cls", "tags",
)  # fmt: skip
CAPTION_NAMES = (
    "caption", "captions", "text", "description", "sentence", "sentences", "title", "prompt", "txt",
)  # fmt: skip

_TEXT_FIELDS = ("raw", "text", "caption")

PICTURE, BINARY, CLASS, TEXT, TEXTS, VALUE, VALUES, OTHER = range(8)
"""Kinds of columns. CLASS: class labels, one or several a row. VALUE: a number or a truth value. OTHER: of no use."""


@dataclass(frozen=True)
class Columns:
    """The part that each column plays. `classes` are the names that the numbers of the label column stand for."""

    image: str | None
    label: str | None
    captions: tuple[str, ...]
    translations: Mapping[str, str]
    unused: tuple[str, ...]
    warnings: tuple[str, ...]
    classes: tuple[str, ...] = ()

    @property
    def used(self) -> list[str]:
        """All columns that are read."""
        return [c for c in (self.image, self.label, *self.captions, *self.translations) if c is not None]

    def annotations(self, row: Mapping[str, Any]) -> Annotations:
        """What a row says of its picture."""
        return Annotations(
            tuple(dict.fromkeys(self._labels(row.get(self.label)))) if self.label else (),
            tuple(dict.fromkeys(text for column in self.captions for text in _texts(row.get(column)))),
            {code: text for column, code in self.translations.items() for text in _texts(row.get(column))[:1]}
            | {code: text for column in self.captions[:1] for code, text in _by_language(row.get(column)).items()},
        )

    def _labels(self, value: Any) -> Iterable[str]:
        if isinstance(value, list | tuple):
            return [label for each in value for label in self._labels(each)]
        if isinstance(value, float):
            if math.isnan(value):
                return []
            value = int(value) if value.is_integer() else value  # a gap makes floats of whole numbers
        if value is None or (self.classes and value == -1):  # -1 is the convention for a hidden label
            return []
        if self.classes and isinstance(value, int) and value < len(self.classes):
            value = self.classes[value]
        return [text] if (text := composed(str(value))) else []


@dataclass(frozen=True)
class NamedColumns:
    """The columns that a caller names; None for what is to be found."""

    image: str | None = None
    label: str | None = None
    caption: str | None = None


def choose(kinds: Mapping[str, int], named: NamedColumns = NamedColumns(), *, taken: str | None = None) -> Columns:
    """The part of each column, by its kind and its name in any case, where the caller does not name it.

    `taken` is a column that already has a part. Raises LibraryError for a column that is not there.
    """
    warnings: list[str] = []

    def one(given: str | None, wanted: Iterable[str], candidates: list[str], what: str, option: str) -> str | None:
        if given is not None:
            return _there(given, kinds)
        chosen = _first(wanted, candidates) or next(iter(candidates), None)
        if chosen is not None and len(candidates) > 1:
            others = ", ".join(c for c in candidates if c != chosen)
            warnings.append(f"{what} are from the column {chosen}, not from {others}; {option} decides")
        return chosen

    free = [column for column in kinds if column != taken]
    image = one(named.image, IMAGE_NAMES, _may_be_pictures(kinds, free), "pictures", "--image-column")
    label = one(named.label, LABEL_NAMES, _may_be_labels(kinds, free), "labels", "--label-column")
    free = [c for c in free if c not in (image, label)]
    captions = _captions(kinds, free, named.caption)
    if not captions:
        texts = [c for c in free if kinds[c] == TEXT and not _is_identifier(c)]
        plain = [c for c in texts if not any(_language(c, other) for other in texts)]
        if len(plain) == 1:
            captions = (plain[0],)
        elif plain:
            warnings.append(f"captions could be in {', '.join(plain)}, and none is taken; --caption-column decides")
    translations = {
        c: code for c in free if kinds[c] in (TEXT, TEXTS) for base in captions[:1] if (code := _language(c, base))
    }
    used = {image, label, *captions, *translations, taken}
    return Columns(image, label, captions, translations, tuple(c for c in kinds if c not in used), tuple(warnings))


def _may_be_pictures(kinds: Mapping[str, int], free: list[str]) -> list[str]:
    found = [c for c in free if kinds[c] == PICTURE]
    if found:
        return found
    found = [c for c in free if kinds[c] == BINARY]
    if len(found) > 1:  # only a name tells which is one
        found = [c for c in found if c.strip().lower() in IMAGE_NAMES]
    return found


def _may_be_labels(kinds: Mapping[str, int], free: list[str]) -> list[str]:
    values = [c for c in free if kinds[c] in (TEXT, TEXTS, VALUE, VALUES) and c.strip().lower() in LABEL_NAMES]
    by_name = [first] if (first := _first(LABEL_NAMES, values)) else []
    return [c for c in free if kinds[c] == CLASS] or by_name


def _captions(kinds: Mapping[str, int], free: list[str], given: str | None) -> tuple[str, ...]:
    """The columns of captions by their names: the one that is `given`; or caption, and caption_1 to caption_5, say."""
    if given is not None:
        return (_there(given, kinds),)
    chosen = (
        _first(CAPTION_NAMES, [c for c in free if kinds[c] in (TEXT, TEXTS)])
        or _first(CAPTION_NAMES, [c for c in free if kinds[c] == VALUE])  # of numbers only, such as house numbers
    )
    stems = [chosen.strip().lower()] if chosen else CAPTION_NAMES
    numbered = [c for c in free if kinds[c] == TEXT and _without_number(c) in stems]
    more = (c for c in numbered if _without_number(c) == _without_number(numbered[0]))
    return (*([chosen] if chosen else []), *more)


def has_text(fields: Iterable[str]) -> bool:
    """Whether fields with these names, in one cell, are a text: as in COCO, or by language."""
    names = list(fields)
    return not names or any(name in _TEXT_FIELDS for name in names) or all(map(_is_code, names))


def _there(column: str, columns: Iterable[str]) -> str:
    names = list(columns)
    found = column if column in names else _first([composed(column).lower()], names)
    if found is None:
        raise LibraryError("There is no column {column!r}; there are {names}.", column=column, names=", ".join(names))
    return found


def _first(wanted: Iterable[str], columns: Iterable[str]) -> str | None:
    """The first of the `wanted` names among the columns, whose names may be in any case."""
    by_name = {composed(column).lower(): column for column in reversed(list(columns))}
    return next((by_name[name] for name in wanted if name in by_name), None)


def _without_number(column: str) -> str | None:
    found = re.fullmatch(r"(.*?)[_ ]?\d+", column.strip().lower())
    return found[1] if found else None


def _is_identifier(column: str) -> bool:
    ends = ("id", "url", "path", "name", "file", "hash", "license", "source", "split", "key__", "url__")
    return column.strip().lower().endswith(ends)


def _language(column: str, caption: str) -> str | None:
    prefix, _, code = column.strip().rpartition("_")
    return code.lower() if prefix.lower() == caption.strip().lower() and _is_code(code) else None


def _texts(value: Any) -> tuple[str, ...]:
    """The texts in a cell: none, one or several. Of a text by language it is the English one, else the first."""
    if isinstance(value, list | tuple):
        return tuple(text for each in value for text in _texts(each))
    if isinstance(value, dict):
        value = next((value[name] for name in (*_TEXT_FIELDS, "en", *value) if value.get(name)), None)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        value = str(value)
    return (text,) if isinstance(value, str) and (text := composed(value)) else ()


def _by_language(value: Any) -> dict[str, str]:
    named = value if isinstance(value, dict) and all(map(_is_code, value)) else {}
    return {code.lower(): text for code, each in named.items() for text in _texts(each)[:1]}


def _is_code(name: str) -> bool:
    return 2 <= len(name) <= 3 and name.isalpha()
