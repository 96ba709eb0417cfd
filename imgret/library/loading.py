"""Loads a library: recognises the kind of a source (a folder, a file, a data set) and hands it to its reader."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.errors import one_line
from imgret.images import ImageError, load_image
from imgret.library.columns import IMAGE_NAMES, NamedColumns
from imgret.library.folder import FolderReader
from imgret.library.hub import commit_of, splits_of
from imgret.library.records import Description, Entry, LibraryError, Reader, Record, counted
from imgret.library.splits import choose_split, pick, without_splits
from imgret.library.table import TableReader
from imgret.library.tree import ARCHIVES, TABLES, Tree, scan

if TYPE_CHECKING:
    import datasets

TABLES_LOOKED_AT = 3
"""Parquet files beside pictures whose columns are read to find out what the folder is."""


class ImageLibrary:
    """A library as `load` finds it. Iterate it for records with pictures, or `entries()` for rows not decoded yet.

    Attributes:
        source, config, split, limit: what `load` was asked for, and the split that it chose.
        revision: the commit of a Hub data set; of a folder a hash of its listing (names, sizes, metadata).
        count: the number of rows, of a Hub data set as its card says; None where only reading to the end would tell.
        skipped: `(id, reason)` of the rows that the last complete iteration could not decode.
        description: what was taken as pictures, labels, captions and split, and what was left out.
        stamp: a hash of the sizes and times of its files. While it is the same, so are the pictures. None if the rows
            do not lie in files here.
        held_out: the test split of a folder whose train split this is, as pictures to search with; else None.
    """

    def __init__(self, source: str, reader: Reader, limit: int | None = None, config: str | None = None) -> None:
        self.source, self.split, self.revision, self.limit, self.config = (
            source, reader.split, reader.revision, limit, config,
        )  # fmt: skip
        self.skipped: tuple[tuple[str, str], ...] = ()
        self.stamp = reader.stamp
        self.held_out: ImageLibrary | None = None
        self._reader = reader

    @classmethod
    def load(
        cls,
        source: "str | os.PathLike[str] | datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset",
        split: str | None = None,
        revision: str | None = None,
        *,
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        caption_column: str | None = None,
        limit: int | None = None,
    ) -> "ImageLibrary":
        """Finds the pictures of `source` without decoding any.

        Args:
            source: one of these:
                a folder of pictures: in class folders, with a table of metadata as in Hugging Face's imagefolder, or
                    with texts beside them;
                a parquet file, or tar shards as webdataset's;
                a folder that `save_to_disk` wrote, or one in the layout of a Hub data set;
                the id of a Hub data set, whose pictures are read from there one by one;
                a `datasets.Dataset` or `DatasetDict`.
            split: by default train, else the first.
            revision: a branch, a tag or a commit; main by default. It becomes the commit that it stands for now.
            image_column, label_column, caption_column: columns that are not named are found: the picture by its type
                Image, the label by ClassLabel or its name, the caption by its name or as the only other text.
            limit: takes only the first rows.

        Raises:
            LibraryError: `source` is none of these, or cannot be read.
        """
        if limit is not None and limit < 1:
            raise LibraryError("The limit is {limit}; it must be at least 1.", limit=limit)
        columns = NamedColumns(image_column, label_column, caption_column)
        if not isinstance(source, str | os.PathLike):
            return cls(*_in_memory(source, split, revision, columns), limit)
        path = Path(source)
        reader: Reader
        if not path.exists():
            reader = _of_hub(str(source), config, split, revision, columns)
        elif path.is_dir():
            reader = _of_folder(path, config, split, columns, streaming=limit is not None)
        elif (kind := path.suffix.lower()) in TABLES:
            reader = _tables(path, [path.name], split, columns, streaming=limit is not None)
        elif kind in ARCHIVES:
            raise LibraryError(
                "{name} is an archive; unpack it and give the folder that comes out of it.", name=path.name
            )
        else:
            raise LibraryError(
                "{name} is a file; a library is a folder of pictures, a parquet or tar file, or a Hub data set.",
                name=path.name,
            )
        library = cls(str(source), reader, limit, config)
        if reader.split == "train" and TEST in reader.splits:
            library.held_out = cls(str(source), _of_folder(path, config, TEST, columns, streaming=False), None, config)
        return library

    @property
    def count(self) -> int | None:
        known = self._reader.count
        return known if self.limit is None else self.limit if known is None else min(known, self.limit)

    @property
    def description(self) -> Description:
        """What was taken from where, and what was left out; what cannot be decoded is known once it was read."""
        found = self._reader.description
        first = [f"only the first {self.limit} of {self._reader.count or 'its'} rows"] if self.limit is not None else []
        broken = [counted(len(self.skipped), "picture that cannot be read")] if self.skipped else []
        return replace(found, left_out=(*broken, *(first if self.count != self._reader.count else []), *found.left_out))

    def entries(self) -> Iterator[Entry]:
        """The rows in order, undecoded."""
        for number, entry in enumerate(self._reader):
            if number == self.limit:
                return
            yield entry

    def parts(self, size: int) -> "list[Iterable[Entry]]":
        """The rows undecoded, as consecutive parts that other processes can be sent, if they see the same files.

        A part has at most `size` rows; where nobody knows how many there are it is a file of the data set. A data set's
        ids are the numbers of its rows (`numbered`), and each part counts from 0.
        """
        return list(self._reader.parts(size, self.limit))

    @property
    def numbered(self) -> bool:
        """Whether an id is the number of its row."""
        return self._reader.numbered

    def __iter__(self) -> Iterator[Record]:
        skipped = []
        for entry in self.entries():
            try:
                image = load_image(entry.read())
            except ImageError as error:
                skipped.append((entry.id, str(error)))
                continue
            yield Record(
                entry.id, entry.label, entry.caption, image.width, image.height, entry.captions, image,
                entry.labels, entry.all_captions,
            )  # fmt: skip
        self.skipped = tuple(skipped)


TEST = "test"


def _in_memory(source: Any, split: str | None, revision: str | None, columns: NamedColumns) -> tuple[str, TableReader]:
    import datasets

    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        rows = _one_split(source, split, "The data set", columns, revision)
        return rows[1], rows[0]
    if not isinstance(source, datasets.Dataset | datasets.IterableDataset):
        raise LibraryError(
            "A {kind} is no library; a folder, a file, the id of a Hub data set or a datasets.Dataset is.",
            kind=type(source).__name__,
        )
    own = str(source.split) if source.split is not None else None
    if split is not None and split != own:
        if own is None:
            raise LibraryError(
                "The data set has no splits, so {split!r} cannot be taken from it; leave the split out.", split=split
            )
        raise LibraryError(
            "The data set is its split {own}, so {split!r} cannot be taken from it; leave the split out.",
            own=own,
            split=split,
        )
    return _name(source), TableReader(source, columns, split=own, revision=revision)


def _name(table: Any) -> str:
    return getattr(getattr(table, "info", None), "dataset_name", None) or "datasets.Dataset"


def _one_split(
    tables: Any, split: str | None, where: str, columns: NamedColumns, revision: str | None, home: Path | None = None
) -> tuple[TableReader, str]:
    chosen = pick(list(tables), split, where)
    others = tuple(f"split {name}" for name in tables if name != chosen)
    table = tables[chosen]
    return TableReader(table, columns, split=chosen, revision=revision, left_out=others, home=home), _name(table)


def _of_folder(path: Path, config: str | None, split: str | None, columns: NamedColumns, *, streaming: bool) -> Reader:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path, split, columns)
    tree = scan(path)
    holding = bool(tree.tables) and not tree.metadata and _hold_pictures(tree)
    if tree.tables and not tree.metadata and (holding or not tree.pictures):
        parquet = [name for name in tree.tables if name.lower().endswith(".parquet")]
        others = [name for name in tree.tables if not name.lower().endswith(".parquet")]
        if others and not holding:
            found: Reader = _tables(path, others, split, columns, streaming=streaming)
        else:
            table, own, left_out = _loaded(str(path), config, split, None, streaming=streaming)
            revision, stamp = _listing(path, parquet), _stamp(path, parquet)
            found = TableReader(table, columns, split=own, revision=revision, left_out=left_out, home=path, stamp=stamp)
        if tree.pictures:
            loose = counted(len(tree.pictures), "picture file beside the tables")
            found.description = replace(found.description, left_out=(*found.description.left_out, loose))
        return found
    return FolderReader(path, tree, split, columns)


def _hold_pictures(tree: Tree) -> bool:
    """Whether a folder's parquet files hold more pictures than lie beside them, by the columns of the first of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    parquet = [name for name in tree.tables if name.lower().endswith(".parquet")]
    for name in parquet[:TABLES_LOOKED_AT]:
        try:
            with pq.ParquetFile(tree.root / name) as file:
                if any(_is_picture(field) for field in file.schema_arrow):
                    rows += file.metadata.num_rows
        except (OSError, ValueError, pa.ArrowException):
            continue
    return rows * max(1, len(parquet) / TABLES_LOOKED_AT) > len(tree.pictures)


def _is_picture(field: Any) -> bool:
    import pyarrow as pa

    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return is_binary and field.name.strip().lower() in IMAGE_NAMES


def _saved(path: Path, split: str | None, columns: NamedColumns) -> TableReader:
    import datasets

    with _one_error(str(path)):
        saved = datasets.load_from_disk(str(path))
    files = [str(file.relative_to(path)) for file in path.rglob("*.arrow")]
    revision, stamp = _listing(path, files), _stamp(path, files)
    if isinstance(saved, datasets.DatasetDict):
        rows, _ = _one_split(saved, split, str(path), columns, revision, path)
        rows.stamp = stamp
        return rows
    if split is not None:
        raise without_splits(str(path), split)
    return TableReader(saved, columns, revision=revision, home=path, stamp=stamp)


def _tables(home: Path, names: list[str], split: str | None, columns: NamedColumns, *, streaming: bool) -> TableReader:
    """The rows of files that are tables, named relative to the folder `home`, or of the one that is `home`."""
    import datasets

    folder = home if home.is_dir() else home.parent
    chosen = choose_split(names, split, str(home)) if home.is_dir() else None
    kind = TABLES[Path(names[0]).suffix.lower()]
    mine = [name for name in (chosen.names if chosen else names) if TABLES[Path(name).suffix.lower()] == kind]
    # Of tar shards an Arrow copy would be made in the cache, and the files read twice.
    streaming = streaming or kind == "webdataset"
    with _one_error(str(home)):
        files = [str(folder / name) for name in mine]
        table = datasets.load_dataset(kind, data_files=files, split="train", streaming=streaming)
    revision = _listing(folder, mine) if chosen else f"size-{home.stat().st_size}"
    its = chosen.split if chosen else split
    left_out = chosen.others if chosen else ()
    return TableReader(
        table, columns, split=its, revision=revision, left_out=left_out, home=folder, stamp=_stamp(folder, mine)
    )


def _of_hub(
    source: str, config: str | None, split: str | None, revision: str | None, columns: NamedColumns
) -> TableReader:
    with _one_error(source):
        commit = commit_of(source, revision)
    table, split, others = _loaded(source, config, split, commit, streaming=True)
    return TableReader(table, columns, split=split, revision=commit, left_out=others, remote=True)


def _loaded(
    source: str, config: str | None, split: str | None, commit: str | None, *, streaming: bool
) -> tuple[Any, str, tuple[str, ...]]:
    """A table as `datasets` finds it, its split, and the other splits in words."""
    import datasets

    with _one_error(source):
        splits = splits_of(source, config, commit)
        chosen = pick(splits, split, source)
        others = tuple(f"split {name}" for name in splits if name != chosen)
        loading = partial(datasets.load_dataset, source, config, split=chosen, revision=commit)
        try:
            return loading(streaming=streaming), chosen, others
        except NotImplementedError:  # archives that can only be read as a whole
            return loading(), chosen, others


@contextmanager
def _one_error(source: str) -> Iterator[None]:
    """Raises LibraryError for whatever goes wrong: datasets, pyarrow, tarfile and the Hub's clients each have errors of
    their own. Those of datasets often only say where; their cause says why.
    """
    try:
        yield
    except LibraryError:
        raise
    except Exception as error:
        raise LibraryError(
            "{source} cannot be loaded ({error}).", source=source, error=one_line(error.__cause__ or error)
        ) from error


def _listing(folder: Path, names: Iterable[str]) -> str:
    return "listing-" + _hash_of(sorted((name, (folder / name).stat().st_size) for name in names))


def _stamp(folder: Path, names: Iterable[str]) -> str:
    found = sorted((name, (folder / name).stat()) for name in names)
    return "stamp-" + _hash_of([(name, file.st_size, file.st_mtime_ns) for name, file in found])


def _hash_of(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
