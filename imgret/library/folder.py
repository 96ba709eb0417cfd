"""Reads a folder of picture files: in class folders, with tables of metadata, or with texts beside them."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from imgret.library.columns import Columns, NamedColumns
from imgret.library.metadata import Places, read_metadata
from imgret.library.records import (
    Annotations,
    Description,
    Entry,
    LibraryError,
    Reader,
    composed,
    counted,
    printable,
    within,
)
from imgret.library.splits import Chosen, choose_split, common_folder
from imgret.library.tree import ARCHIVES, Tree

LABEL_LEVELS = 2
_MAX_TEXT = 2**16
_OUTSIDE = "links that lead outside are not followed: copy what they name, or load the folder that holds both"


class FolderReader(Reader):
    """The pictures of a folder, as their metadata lists them, else all; an id is the path below the folder or split.

    Own code, because `datasets` takes 61 s and 660 MB to the first of 50,000 pictures, and this 0.7 s and 48 MB.
    """

    numbered = False

    def __init__(self, folder: Path, tree: Tree, split: str | None, named: NamedColumns) -> None:
        self._root, self._texts, self._metadata = tree.root, tree.texts, tree.metadata
        annotations, columns = _read_tables(folder, tree, named)
        unnamed = [name for name in tree.pictures if name not in annotations]
        chosen = choose_split([*annotations, *unnamed], split, str(folder))
        named_ones = [name for name in chosen.names if name in annotations]
        self._names = named_ones or chosen.names
        if not self._names:
            raise _no_pictures(folder, tree)
        # Whatever a table names is looked at before it is read.
        self._links = tree.links | annotations.keys() - set(tree.pictures)
        self._annotations: Mapping[str, Annotations] | None = annotations if named_ones else None
        columns = columns if named_ones else []
        self.split, self.splits, self.count = chosen.split, chosen.splits, len(self._names)
        self._at, self._strip = chosen.at, 0
        if chosen.at is not None:
            self._strip = len(common_folder(self._names, chosen.at + 1))
        elif len(tree.metadata) == 1 and "/" in tree.metadata[0]:  # one folder around all of it is no class
            around = tree.metadata[0][: tree.metadata[0].rfind("/") + 1]
            self._strip = len(around) if all(name.startswith(around) for name in chosen.names) else 0
        self._label_column = next((c.label for c in columns if c.label is not None), None)
        self._shards = self._are_shards(tree)
        shown = Counter(composed(printable(n)) for n in self._names if not n.isascii())
        self._alike = {name for name, number in shown.items() if number > 1}
        self.description = self._described(tree, columns, chosen)

    @property
    def revision(self) -> str:  # type: ignore[override]
        return self._hashes[0]

    @property
    def stamp(self) -> str:  # type: ignore[override]
        return self._hashes[1]

    @cached_property
    def _hashes(self) -> tuple[str, str]:
        """Revision and stamp: a hash of names, sizes and metadata, which a copy of the folder shares, and one of these
        and the times of the files.
        """
        listing, times = hashlib.sha256(), hashlib.sha256()
        for name in self._names:
            files = [f"{self._root}/{name}"]
            if self._annotations is None and _without_ending(name) in self._texts:
                files.append(f"{self._root}/{_without_ending(name)}.txt")
            found = [_size_and_time(file) for file in files]
            line = "\0".join([name[self._strip :], *(str(size) for size, _ in found)])
            listing.update(f"{line}\n".encode("utf-8", "surrogateescape"))
            times.update(repr([time for _, time in found]).encode())
        if self._annotations is not None:
            for table in self._metadata:
                listing.update((self._root / table).read_bytes())
        times.update(listing.digest())
        return "listing-" + listing.hexdigest()[:16], "stamp-" + times.hexdigest()[:16]

    def part(self, rows: slice) -> "FolderReader":
        names = self._names[rows]
        return self.like(
            _names=names,
            _annotations=self._annotations and {name: self._annotations[name] for name in names},
            _links=self._links.intersection(names),
            _texts=self._texts.intersection(map(_without_ending, names)),
        )

    def __iter__(self) -> Iterator[Entry]:
        for name in self._names:
            id = printable(name[self._strip :])
            if not id.isascii() and composed(printable(name)) not in self._alike:
                id = composed(id)
            annotations = self._annotations[name] if self._annotations is not None else self._beside(name)
            if not annotations.labels and self._label_column is None and (label := self._folder_label(name)):
                annotations = replace(annotations, labels=(label,))
            place = within(self._root, name) if name in self._links else self._root / name
            yield Entry.of(id, annotations, place)

    def _folder_label(self, name: str) -> str:
        parts = name.split("/")[:-1]
        if self._at is not None:
            parts = parts[self._at + 1 :] if self._strip else parts[: self._at] + parts[self._at + 1 :]
        elif self._strip:
            parts = name[self._strip :].split("/")[:-1]
        return "" if self._shards or ".." in parts else composed(printable("/".join(parts[:LABEL_LEVELS])))

    def _beside(self, name: str) -> Annotations:
        """The lines of the text beside a picture; a text of numbers only is no caption but says where things are."""
        name = _without_ending(name)
        if name not in self._texts:
            return Annotations()
        try:
            with open(f"{self._root}/{name}.txt", encoding="utf-8-sig", errors="replace") as file:
                text = file.read(_MAX_TEXT)
        except OSError:
            return Annotations()
        lines = (composed(line) for line in text.splitlines())
        found = tuple(dict.fromkeys(line for line in lines if line))
        return Annotations(captions=found if any(map(str.isalpha, text)) else ())

    def _are_shards(self, tree: Tree) -> bool:
        """Whether the folders are img2dataset's, numbered from 00000, and say nothing of the pictures."""
        folders = {name[self._strip :].split("/")[0] for name in self._names if "/" in name[self._strip :]}
        beside = any(_without_ending(name) in tree.texts for name in self._names[:100])
        with_tables = all(f"{folder}.parquet" in tree.tables for folder in folders)
        numbered = all(re.fullmatch(r"\d{5,}", folder) for folder in folders)
        return bool(folders) and numbered and (beside or with_tables)

    def _described(self, tree: Tree, columns: list[Columns], chosen: Chosen) -> Description:
        with_text = [name for name in self._names if _without_ending(name) in self._texts] if self._texts else []
        beside = self._annotations is None and any(self._beside(name).captions for name in with_text[:20])
        tables = ", ".join(tree.metadata[:3]) + (" and others" if len(tree.metadata) > 3 else "")
        first = columns[0] if columns else None
        folders = any("/" in name[self._strip :] for name in self._names) and not self._shards
        unused = ", ".join(dict.fromkeys(column for each in columns for column in each.unused))
        warnings = list(dict.fromkeys(warning for each in columns for warning in each.warnings))
        if unused:
            warnings.append(f"columns of {tables} that are not used: {unused}")
        stray = sorted(ending for ending in (".csv", ".tsv", ".jsonl", ".xlsx") if tree.other[ending])
        if stray and not columns:
            warnings.append(
                f"{' and '.join(stray)} files are not read; a table of labels and captions is called metadata.csv "
                "and has a column file_name"
            )
        count = len(chosen.names) - len(self._names)
        unnamed = [counted(count, "picture that no table names")] if count else []
        tables_beside = [f"{table}, a table beside the pictures" for table in tree.tables[:3]]
        return Description(
            pictures="the files that " + tables + " names" if columns else "all picture files of the folder",
            label=f"the column {self._label_column}" if self._label_column else "the folders" if folders else None,
            captions=f"the columns {', '.join(first.captions)}"
            if first and len(first.captions) > 1
            else f"the column {first.captions[0]}"
            if first and first.captions
            else "the .txt files beside the pictures"
            if beside
            else None,
            split=chosen.split,
            left_out=(*chosen.others, *unnamed, *tree.left_out, *tables_beside),
            warnings=(*warnings, *chosen.warnings, *([_OUTSIDE] if tree.outside else [])),
        )


def _read_tables(folder: Path, tree: Tree, named: NamedColumns) -> tuple[dict[str, Annotations], list[Columns]]:
    """What the tables of metadata say of each picture that they name, and the columns of each table."""
    annotations: dict[str, Annotations] = {}
    columns: list[Columns] = []
    places = Places(tree.root, folder, tree.pictures)
    for table in tree.metadata:
        found, rows = read_metadata(tree.root / table, named)
        columns.append(found)
        for written, its in rows:
            name = places.find(written, table[: table.rfind("/") + 1])
            annotations[name] = annotations[name] | its if name in annotations else its
    return annotations, columns


def _no_pictures(folder: Path, tree: Tree) -> LibraryError:
    archives = [ending for ending in ARCHIVES if tree.other[ending]]
    hints = [f"of its {', '.join(archives)} archives, unpack those with pictures"] if archives else []
    if tree.outside:
        hints.append(_OUTSIDE.replace("outside", f"outside, such as {tree.outside[0]},", 1))
    heif = [ending for ending in (".heic", ".heif") if tree.other[ending]]
    if heif:
        hints.append(f"{' and '.join(heif)} files are read where pi-heif is installed: pip install pi-heif")
    advice = "".join(f"; {hint}" for hint in hints)
    there = f" (but {', '.join(tree.left_out)})" if tree.left_out else ""
    return LibraryError(
        "There are no pictures in {folder}{there}; it must hold picture files, in class folders or not{hints}.",
        folder=folder, there=there, hints=advice,
    )  # fmt: skip


def _without_ending(name: str) -> str:
    return os.path.splitext(name)[0]


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1, 0
    return found.st_size, found.st_mtime_ns
