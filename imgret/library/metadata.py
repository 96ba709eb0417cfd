"""Reads the tables beside pictures that say what they show: metadata.csv, .tsv, .jsonl and .parquet."""

import csv
import json
import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Any

from imgret.errors import one_line
from imgret.library.columns import OTHER, TEXT, TEXTS, VALUE, VALUES, Columns, NamedColumns, choose, has_text
from imgret.library.records import Annotations, LibraryError, composed

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
_DELIMITERS = ",;\t|"
_FILE_COLUMNS = (
    "file_name", "image_file_name", "file_names", "filename", "file", "image", "image_path", "path", "filepath",
    "file_path", "picture", "img", "img_path",
)  # fmt: skip
_SAMPLE = 1000

Row = Mapping[str, Any]


def read_metadata(path: Path, named: NamedColumns) -> tuple[Columns, Iterator[tuple[str, Annotations]]]:
    """The columns of a table, and for each picture that it names its name as it stands there, and its annotations.

    Columns that are not `named` are found by their names, in any case, and by what the first thousand rows hold. The
    pictures are files, so `named.image` has no meaning here. Raises LibraryError.
    """
    rows = {".parquet": _parquet, ".jsonl": _json}.get(path.suffix.lower(), _csv)
    sample = list(islice(_guarded(path, rows), _SAMPLE))
    kinds = _kinds(sample)
    by_name = {column.strip().lower(): column for column in reversed(kinds)}
    files = [name for name in _FILE_COLUMNS if name in by_name] or [n for n in by_name if n.endswith("_file_name")]
    if not files:
        if not kinds:
            raise LibraryError("{path} has no rows.", path=path)
        raise LibraryError("{path} has no column file_name; it has {columns}.", path=path, columns=", ".join(kinds))
    file = by_name[files[0]]
    columns = choose(kinds, replace(named, image=None), taken=file)
    label = columns.label
    whole = rows is _csv and label is not None and _are_whole(row.get(label) for row in sample)

    def annotated() -> Iterator[tuple[str, Annotations]]:
        for row in _guarded(path, rows):
            if whole and label is not None and label in row:
                row = {**row, label: row[label].partition(".")[0]}
            annotations = columns.annotations(row)
            names = row.get(file)
            for name in names if isinstance(names, list) else [names]:
                if name not in (None, ""):
                    yield str(name), annotations

    return columns, annotated()


class Places:
    """Where the pictures are that a table names: each as it is called in the listing of the folder, if it is there."""

    def __init__(self, root: Path, given: Path, names: Collection[str]) -> None:
        self._roots = [str(root), os.path.abspath(given)]
        self._names = set(names)
        self._composed = {composed(name): name for name in names if not name.isascii()}

    def find(self, name: str, folder: str) -> str:
        """The picture that a table in `folder` ("" or with a slash at its end) calls `name`, relative to the root.

        What lies outside starts with ../, and tells nothing of where that is.
        """
        found = ""
        for written in dict.fromkeys((name, name.replace("\\", "/"))):
            if written.startswith("/") or PureWindowsPath(written).is_absolute():
                inside = [written[len(root) + 1 :] for root in self._roots if written.startswith(f"{root}/")]
                found = posixpath.normpath(inside[0]) if inside else f"../{written.rpartition('/')[2]}"
            else:
                found = posixpath.normpath(folder + written)
            if found in self._names or (found := self._composed.get(composed(found), found)) in self._names:
                return found
        return found


def _guarded(path: Path, rows: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    try:
        yield from rows(path)
    except LibraryError:
        raise
    except Exception as error:  # the csv, json and parquet readers each have errors of their own
        raise LibraryError(
            "{path} cannot be read ({error}); it must be a table in UTF-8.", path=path, error=one_line(error)
        ) from None


def _csv(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        start = file.read(2)
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as file:
        header = next((line for line in file if line.strip()), "")
        delimiters = _DELIMITERS
        if declared := re.fullmatch(r"sep=(.)", header.strip("\r\n"), re.IGNORECASE):  # as Excel writes it
            header, delimiters = next(file, ""), declared[1]
        found = {d: next(csv.reader([header], delimiter=d, skipinitialspace=True), []) for d in delimiters}
        delimiter = max(
            found, key=lambda d: (any(name.strip().lower() in _FILE_COLUMNS for name in found[d]), len(found[d]))
        )
        columns = [name.strip() for name in found[delimiter]]
        for row in csv.reader(file, delimiter=delimiter, skipinitialspace=True):
            yield {column: value.strip() for column, value in zip(columns, row, strict=False)}


def _json(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                row = json.loads(line) if line.lstrip().startswith("{") else None
                if not isinstance(row, dict):
                    raise LibraryError("Line {number} of {path} is no JSON object.", number=number, path=path)
                yield row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_SAMPLE):
            yield from batch.to_pylist()


def _kinds(rows: Iterable[Row]) -> dict[str, int]:
    """What each column holds, in the order in which they come."""
    kinds: dict[str, int] = {}
    for row in rows:
        for column, value in row.items():
            kinds[column] = max(kinds.get(column, -1), _kind(value), key=_WEIGHT.index)
    return {column: VALUE if kind < 0 else kind for column, kind in kinds.items()}


_WEIGHT = [-1, VALUE, VALUES, TEXT, TEXTS, OTHER]


def _kind(value: Any) -> int:
    if value is None or value == "":
        return -1
    if isinstance(value, str):
        return VALUE if _is_number(value) else TEXT
    if isinstance(value, list):
        return TEXTS if any(_kind(each) == TEXT for each in value) else VALUES
    if isinstance(value, dict) and value and has_text(value):
        return TEXT
    return VALUE if isinstance(value, bool | int | float) else OTHER


def _are_whole(texts: Iterable[str | None]) -> bool:
    """Whether all are whole numbers, of which a gap has made floats as 3.0."""
    return all(re.fullmatch(r"-?\d+(\.0+)?", text) for text in texts if text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
