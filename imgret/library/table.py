"""Reads a table of pictures by `datasets`: parquet, tar shards, a saved data set, one of the Hub, one in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from imgret.errors import one_line
from imgret.library.columns import (
    BINARY,
    CLASS,
    OTHER,
    PICTURE,
    TEXT,
    TEXTS,
    VALUE,
    VALUES,
    NamedColumns,
    choose,
    has_text,
)
from imgret.library.folder import LABEL_LEVELS
from imgret.library.records import Description, Entry, LibraryError, Reader, composed, within

KEY = "__key__"
"""The column in which webdataset keeps a file's path in its tar, without the ending."""


class TableReader(Reader):
    """The rows of a `datasets.Dataset` or `IterableDataset`; an id is the number of its row. Nothing is decoded."""

    numbered = True

    def __init__(
        self,
        table: Any,
        named: NamedColumns,
        *,
        split: str | None = None,
        revision: str | None = None,
        left_out: tuple[str, ...] = (),
        home: Path | None = None,
        remote: bool = False,
        stamp: str | None = None,
    ) -> None:
        import datasets

        table, features = _undecoded(table)
        kinds = {name: _kind(feature) for name, feature in features.items()}
        self._columns = columns = choose(kinds, named)
        if columns.image is None or kinds[columns.image] not in (PICTURE, BINARY):
            raise _no_pictures(features)
        self._keyed = columns.label is None and KEY in features
        if columns.label is not None:
            feature = getattr(features[columns.label], "feature", features[columns.label])
            if isinstance(feature, datasets.ClassLabel):
                self._columns = replace(columns, classes=tuple(feature.names))
        wanted = {*columns.used, *([KEY] if self._keyed else [])}
        self._table = table.select_columns([name for name in features if name in wanted])
        if isinstance(features[columns.image], datasets.Image):
            plain: Any = datasets.Image(decode=False)
            if KEY in features and isinstance(table, datasets.IterableDataset):
                # As a picture, datasets would let go of its bytes if the working directory has a file of that name.
                plain = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
            self._table = self._table.cast_column(columns.image, plain)
        self._streamed = remote and isinstance(table, datasets.IterableDataset)
        self._home = Path(datasets.config.HF_CACHE_HOME) if remote else home
        self.count, self.split, self.revision, self.stamp = _count_of(table), split, revision, stamp
        captions, unused = ", ".join(columns.captions), [name for name in columns.unused if name != KEY]
        self.description = Description(
            pictures=f"the column {columns.image}",
            label=f"the column {columns.label}" if columns.label else "the folders in the tar" if self._keyed else None,
            captions=f"the column{'s' if len(columns.captions) > 1 else ''} {captions}" if captions else None,
            split=split,
            left_out=left_out,
            warnings=(*columns.warnings, *([f"columns that are not used: {', '.join(unused)}"] if unused else [])),
        )

    def part(self, rows: slice) -> "TableReader":
        return self.like(_table=self._table.select(range(rows.start, rows.stop)))

    def parts(self, size: int, limit: int | None) -> Iterator["TableReader"]:
        import datasets

        table = self._table
        if isinstance(table, datasets.Dataset):
            return super().parts(size, limit)
        if limit is not None:
            return iter([self.like(_table=table.take(limit))])
        shards = table.num_shards
        return (self.like(_table=table.shard(shards, number, contiguous=True)) for number in range(shards))

    def __iter__(self) -> Iterator[Entry]:
        number = 0
        try:
            for number, row in enumerate(self._table):
                yield self._entry(number, row)
        except Exception as error:  # the Hub's clients, its file system and pyarrow each have errors of their own
            raise LibraryError(
                "The data set breaks off after row {number} ({error}); a build that is started again embeds only what "
                "is missing.",
                number=number,
                error=one_line(error),
            ) from error

    def _entry(self, number: int, row: Mapping[str, Any]) -> Entry:
        annotations = self._columns.annotations(row)
        if self._keyed and (label := _folder_of(str(row[KEY]))):
            annotations = replace(annotations, labels=(label,))
        picture = row[self._columns.image or ""] or {}
        if isinstance(picture, bytes):
            picture = {"bytes": picture}
        return Entry.of(str(number), annotations, picture.get("bytes") or self._place(picture.get("path")))

    def _place(self, path: str | None) -> bytes | Path | str | None:
        """Where a picture lies that its row does not carry. What was read from a file or the Hub may not name any file
        of this machine, but only its own.
        """
        if not path:
            return b""
        if self._streamed:
            return path if path.rpartition("::")[2].startswith("hf://") else None
        return Path(path) if self._home is None else within(self._home.resolve(), path)


def _undecoded(table: Any) -> tuple[Any, Any]:
    """The table with rows that are plain and not decoded, and its features."""
    import datasets

    table = table.with_format(None)  # rows of tensors, or what a transform makes of them, are for training
    if not isinstance(table, datasets.IterableDataset):
        return table, table.features
    # A streamed one decodes ahead, in threads of its own, whatever its columns are cast to afterwards.
    table = table if table.features else table._resolve_features()
    return table.decode(False), table.features


def _count_of(table: Any) -> int | None:
    """The number of rows, of a streamed table as its card says it, if it does."""
    import datasets

    if isinstance(table, datasets.Dataset):
        return len(table)
    stated = (table.info.splits or {}).get(str(table.split))
    return (stated.num_examples or None) if stated else None


def _folder_of(key: str) -> str:
    """The label that a path in a tar gives: its folders, unless they are only numbered."""
    parts = [part for part in key.split("/")[:-1] if part not in (".", "..")]
    return "" if all(map(str.isdecimal, parts)) else composed("/".join(parts[:LABEL_LEVELS]))


def _kind(feature: Any) -> int:
    import datasets

    if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature and len(feature) <= 2):
        return PICTURE
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    several = inner is not feature
    if isinstance(inner, datasets.ClassLabel):
        return CLASS
    if isinstance(inner, dict | datasets.Translation):
        return (TEXTS if several else TEXT) if has_text(dict(inner)) else OTHER
    if not isinstance(inner, datasets.Value):
        return OTHER
    if inner.dtype in ("string", "large_string"):
        return TEXTS if several else TEXT
    if inner.dtype in ("binary", "large_binary") or inner.dtype.startswith("fixed_size_binary"):
        return OTHER if several else BINARY
    return VALUES if several else VALUE


def _no_pictures(features: Any) -> LibraryError:
    found = ", ".join(f"{name} ({getattr(feature, 'dtype', None) or feature})" for name, feature in features.items())
    nested = next((name for name, feature in features.items() if _holds_pictures(feature)), None)
    if nested is not None:
        return LibraryError(
            "The pictures of the column {column} are in lists or nested; a library has a column of single pictures "
            "(type Image), and here are {columns}.",
            column=nested, columns=found,
        )  # fmt: skip
    return LibraryError(
        "There is no column of single pictures (type Image); the columns are {columns}. If one holds the bytes of "
        "pictures, name it with --image-column (image_column in Python).",
        columns=found,
    )


def _holds_pictures(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"}):
        return True
    inner = feature.values() if isinstance(feature, dict) else feature if isinstance(feature, list) else ()
    inner = [*inner, *([feature.feature] if hasattr(feature, "feature") else [])]
    return any(map(_holds_pictures, inner))
