"""Reads a library from a folder, a parquet file or a Hugging Face data set, as records in a fixed order."""

import csv
import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from PIL import Image

from imgret.errors import ImgretError, one_line
from imgret.images import MAX_BYTES, ImageError, check_size, load_image, picture_suffixes, read_picture
from imgret.network import hub_answers

if TYPE_CHECKING:
    import datasets

SPLIT_FOLDERS = ("train", "validation", "val", "dev", "test")
LABEL_NAMES = ("label", "labels", "class", "category", "fine_label")
CAPTION_NAMES = ("caption", "captions", "text", "description", "sentence", "sentences", "title")
METADATA = "metadata.csv"


class LibraryError(ImgretError):
    """A source that cannot serve as a library; the text says why and what would work."""


@dataclass(frozen=True)
class Record:
    """One picture of a library.

    `width` and `height` in pixels, upright; `captions` by language code, besides `caption`.
    """

    id: str
    label: str | None
    caption: str | None
    width: int
    height: int
    captions: Mapping[str, str] = field(default_factory=dict)
    image: Image.Image | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Entry:
    """A record before its picture is decoded; `data` is the encoded picture, the file or the URL (as fsspec's) that
    holds it, or None: out of bounds.
    """

    id: str
    label: str | None
    caption: str | None
    captions: Mapping[str, str]
    data: bytes | Path | str | None

    def read(self) -> bytes:
        """The encoded picture, of a size that is taken. Raises ImageError where it cannot be read."""
        if self.data is None:
            raise ImageError(f"{self.id!r} lies outside of the library's folder.")
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
                raise ImageError(f"{name} cannot be read ({error.strerror or error}).") from None
        check_size(name, len(data))
        return data


class ImageLibrary:
    """A library as `load` finds it: iterate it for records with pictures, or `entries()` for what is not decoded yet.

    `source`, `config`, `split` and `revision` say where it comes from; of a Hub data set the revision is the commit, of
    a folder a hash of its listing (names, sizes, metadata). `count` is the number of rows, of a Hub data set as its
    card says, None where only reading to the end would tell. `skipped` holds `(id, reason)` of the rows that the last
    complete iteration could not decode.
    """

    def __init__(
        self,
        source: str,
        split: str | None,
        revision: str | None,
        rows: "_Rows",
        limit: int | None = None,
        config: str | None = None,
    ) -> None:
        self.source, self.split, self.revision, self.limit, self.config = source, split, revision, limit, config
        self.skipped: tuple[tuple[str, str], ...] = ()
        self._rows = rows

    @classmethod
    def load(
        cls,
        source: "str | os.PathLike[str] | datasets.Dataset | datasets.IterableDataset",
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

        A source is a folder of pictures (class folders, or a metadata.csv as in Hugging Face's imagefolder), a parquet
        file, a folder in the layout of a Hub data set, a Hub data set's id, or a `datasets.Dataset`. Columns not named
        are found from the features: the picture by its type Image, the label by ClassLabel or its name, the caption by
        its name or as the only other text. `split` defaults to train, else the first; `revision` (a branch, a tag or a
        commit; main by default) becomes the commit it stands for now. `limit` takes the first rows only. A Hub data set
        is read from there picture by picture, so it may be larger than the disk. Raises LibraryError.
        """
        if limit is not None and limit < 1:
            raise LibraryError(f"The limit is {limit}; it must be at least 1.")
        if not isinstance(source, str | os.PathLike):
            return cls(
                _describe(source),
                split,
                revision,
                _TableRows(source, image_column, label_column, caption_column),
                limit,
            )
        path = Path(source)
        if path.is_dir():
            folder = _split_folder(path, split)
            if folder is not None:
                files = _FolderRows(folder, label_column, caption_column)
                return cls(str(source), split, files.revision, files, limit)
        elif path.exists() and path.suffix != ".parquet":
            raise LibraryError(
                f"{path.name} is a file; a library is a folder of pictures, a parquet file or a Hub data set."
            )
        table, split, revision = _load_table(str(source), config, split, revision, streaming=limit is not None)
        home = path if path.is_dir() else path.parent
        rows = _TableRows(table, image_column, label_column, caption_column, home=home, remote=not path.exists())
        return cls(str(source), split, revision, rows, limit, config)

    @property
    def count(self) -> int | None:
        known = self._rows.count
        return known if self.limit is None else self.limit if known is None else min(known, self.limit)

    def entries(self) -> Iterator[Entry]:
        """The rows in order, undecoded."""
        for number, entry in enumerate(self._rows):
            if number == self.limit:
                return
            yield entry

    def parts(self, size: int) -> "list[Iterable[Entry]]":
        """The rows undecoded, as consecutive parts that other processes can be sent, if they see the same files.

        A part has at most `size` rows; where nobody knows how many there are it is a file of the data set. A data set's
        ids are the numbers of its rows (`numbered`), and each part counts from 0.
        """
        return list(self._rows.parts(size, self.limit))

    @property
    def numbered(self) -> bool:
        """Whether an id is the number of its row."""
        return self._rows.numbered

    def __iter__(self) -> Iterator[Record]:
        skipped = []
        for entry in self.entries():
            try:
                image = load_image(entry.read())
            except ImageError as error:
                skipped.append((entry.id, str(error)))
                continue
            yield Record(entry.id, entry.label, entry.caption, image.width, image.height, entry.captions, image)
        self.skipped = tuple(skipped)


class _Rows(ABC):
    count: int | None
    numbered: bool

    @abstractmethod
    def __iter__(self) -> Iterator[Entry]: ...

    @abstractmethod
    def part(self, rows: slice) -> Self: ...

    def parts(self, size: int, limit: int | None) -> Iterator[Self]:
        assert self.count is not None
        stop = self.count if limit is None else min(self.count, limit)
        return (self.part(slice(start, min(start + size, stop))) for start in range(0, stop, size))


class _FolderRows(_Rows):
    numbered = False

    def __init__(self, folder: Path, label_column: str | None, caption_column: str | None) -> None:
        self._folder = folder
        self._table: list[dict[str, str]] | None = None
        self._label = self._caption = None
        if (folder / METADATA).is_file():
            columns, self._table = _read_metadata(folder / METADATA)
            self._label = _named(label_column, columns) or _first(LABEL_NAMES, columns)
            self._caption = _named(caption_column, columns) or _first(CAPTION_NAMES, columns)
            self._names = [row["file_name"] for row in self._table]
        else:
            self._names = list(pictures_below(folder))
        if not self._names:
            raise LibraryError(
                f"There are no pictures in {folder}; it must hold picture files, in class folders or not."
            )
        self.count = len(self._names)

    @property
    def revision(self) -> str:
        listing = hashlib.sha256()
        for name in self._names:
            try:
                size = (self._folder / name).stat().st_size
            except (OSError, ValueError):
                size = -1
            listing.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        if self._table is not None:
            listing.update((self._folder / METADATA).read_bytes())
        return "listing-" + listing.hexdigest()[:16]

    def part(self, rows: slice) -> Self:
        part = copy(self)
        part._names, part._table = self._names[rows], self._table and self._table[rows]
        return part

    def __iter__(self) -> Iterator[Entry]:
        root = self._folder.resolve()
        for number, name in enumerate(self._names):
            row = self._table[number] if self._table is not None else {}
            shown = name.encode("utf-8", "backslashreplace").decode()  # a file's name may be no UTF-8
            label = (
                row.get(self._label or "")
                or ("/".join(PurePosixPath(shown).parts[:-1][:2]) if self._label is None else None)
                or None
            )
            yield Entry(
                id=shown,
                label=label,
                caption=row.get(self._caption or "") or None,
                captions=_translations(row, self._caption),
                data=_within(root, name),
            )


class _TableRows(_Rows):
    numbered = True

    def __init__(
        self,
        table: Any,
        image_column: str | None,
        label_column: str | None,
        caption_column: str | None,
        *,
        home: Path | None = None,
        remote: bool = False,
    ) -> None:
        import datasets

        if isinstance(table, datasets.DatasetDict | datasets.IterableDatasetDict):
            table = table[_pick_split(list(table), None, "the data set")]
        if isinstance(table, datasets.IterableDataset):
            # A streamed one decodes ahead, in threads of its own, whatever its columns are cast to afterwards.
            table = (table if table.features else table._resolve_features()).decode(False)
        features = table.features
        self._image = _named(image_column, features) or _image_column(features)
        self._label = _named(label_column, features) or _label_column(features)
        self._caption = _named(caption_column, features) or _caption_column(features, self._label)
        label = features.get(self._label) if self._label else None
        self._names = label.names if isinstance(label, datasets.ClassLabel) else None
        wanted = [c for c in features if c in (self._image, self._label, self._caption) or _language(c, self._caption)]
        self._table = table.select_columns(wanted).cast_column(self._image, datasets.Image(decode=False))
        self._streamed = remote and isinstance(table, datasets.IterableDataset)
        self._home = Path(datasets.config.HF_CACHE_HOME) if remote else home
        told = (table.info.splits or {}).get(str(table.split))
        self.count = len(table) if isinstance(table, datasets.Dataset) else told.num_examples or None if told else None

    def part(self, rows: slice) -> Self:
        return self._over(self._table.select(range(rows.start, rows.stop)))

    def parts(self, size: int, limit: int | None) -> Iterator[Self]:
        import datasets

        table = self._table
        if isinstance(table, datasets.Dataset):
            return super().parts(size, limit)
        if limit is not None:
            return iter([self._over(table.take(limit))])
        shards = table.num_shards
        return (self._over(table.shard(shards, number, contiguous=True)) for number in range(shards))

    def _over(self, table: Any) -> Self:
        part = copy(self)
        part._table = table
        return part

    def __iter__(self) -> Iterator[Entry]:
        number = 0
        try:
            for number, row in enumerate(self._table):
                yield self._entry(number, row)
        except Exception as error:  # the Hub's clients, its file system and pyarrow each have errors of their own
            raise LibraryError(
                f"The data set breaks off after row {number} ({one_line(error)}); "
                f"a build that is started again embeds only what is missing."
            ) from error

    def _entry(self, number: int, row: Mapping[str, Any]) -> Entry:
        picture = row[self._image] or {}
        return Entry(
            id=str(number),
            label=self._label_text(row.get(self._label)) if self._label else None,
            caption=_first_text(row.get(self._caption)) if self._caption else None,
            captions=_translations(row, self._caption),
            data=picture.get("bytes") or self._place(picture.get("path")),
        )

    def _place(self, path: str | None) -> bytes | Path | str | None:
        """Where a picture lies that its row does not carry. What was read from a file or the Hub may not name any file
        of this machine, but only its own.
        """
        if not path:
            return b""
        if self._streamed:
            return path if path.rpartition("::")[2].startswith("hf://") else None
        return Path(path) if self._home is None else _within(self._home.resolve(), path)

    def _label_text(self, value: Any) -> str | None:
        if value is None or (self._names and value == -1):  # -1 is the convention for a hidden label
            return None
        return self._names[value] if self._names else str(value) or None


def _describe(table: Any) -> str:
    info = getattr(table, "info", None)
    return getattr(info, "dataset_name", None) or "datasets.Dataset"


def _split_folder(path: Path, split: str | None) -> Path | None:
    """The folder whose pictures are meant: `path`, or its train (test, ...) folder in the layout of imagefolder; None:
    a table's folder.
    """
    if (path / METADATA).is_file():
        if split is not None:
            raise LibraryError(f"{path} has no splits, so {split!r} cannot be taken from it; leave the split out.")
        return path
    children = [child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")]
    splits = [name for name in SPLIT_FOLDERS if any(child.name == name for child in children)]
    if splits and len(splits) == len(children) and any(pictures_below(path)):
        return path / _pick_split(splits, split, str(path))
    if any(True for file in path.rglob("*.parquet")):
        return None
    if split is not None:
        raise LibraryError(f"{path} has no splits, so {split!r} cannot be taken from it; leave the split out.")
    return path


def _pick_split(splits: list[str], wanted: str | None, where: str) -> str:
    if wanted is None:
        return "train" if "train" in splits else splits[0]
    if wanted not in splits:
        raise LibraryError(f"{where} has no split {wanted!r}; it has {', '.join(splits)}.")
    return wanted


def pictures_below(folder: Path) -> Iterator[str]:
    """Names of the picture files below `folder`, relative to it, in a fixed order; hidden ones left out."""
    suffixes = picture_suffixes()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                yield Path(parent, name).relative_to(folder).as_posix()


def _within(root: Path, name: str) -> Path | None:
    """The file called `name` in the folder `root`, which is resolved; None if links or dots lead out of it."""
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL byte
        return None
    return path if path.is_relative_to(root) else None


def _read_metadata(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [
                {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in reader
            ]
            columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LibraryError(f"{path} cannot be read as CSV in UTF-8 ({error}).") from None
    if "file_name" not in columns:
        raise LibraryError(f"{path} has no column file_name; it has {', '.join(columns) or 'no columns'}.")
    return columns, list({row["file_name"]: row for row in rows if row["file_name"]}.values())


def _load_table(
    source: str, config: str | None, split: str | None, revision: str | None, *, streaming: bool
) -> tuple[Any, str | None, str | None]:
    path = Path(source)
    commit = None
    try:
        if not path.exists():  # asked before datasets, which takes a second to import, is needed
            commit = revision = commit_of(source, revision)
        import datasets

        if path.suffix == ".parquet" and path.is_file():
            table = datasets.load_dataset("parquet", data_files=source, split="train", streaming=streaming)
            return table, split, f"size-{path.stat().st_size}"
        if revision is None:
            sizes = sorted((str(p.relative_to(path)), p.stat().st_size) for p in path.rglob("*.parquet"))
            revision = "listing-" + hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]
        split = _pick_split(_splits(source, config, commit), split, source)
        loading = partial(datasets.load_dataset, source, config, split=split, revision=commit)
        try:
            return loading(streaming=streaming or commit is not None), split, revision
        except NotImplementedError:  # archives that can only be read as a whole
            return loading(), split, revision
    except LibraryError:
        raise
    except Exception as error:  # datasets, pyarrow and the Hub's clients each have errors of their own
        raise LibraryError(f"{source} cannot be loaded ({one_line(error)}).") from error


def commit_of(source: str, revision: str | None) -> str:
    """The commit that `revision` of the Hub data set `source` stands for now, main by default.

    Raises LibraryError where there is none that may be read, or no Hub.
    """
    from huggingface_hub import HfApi, errors

    try:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
            raise errors.HFValidationError(source)
        if not hub_answers():
            raise LibraryError(
                f"{source!r} is no folder or file here, and the Hub cannot be reached for a data set of that name."
            )
        api = HfApi()
        info = api.dataset_info(source, revision=revision, timeout=10)
        if info.gated:
            api.auth_check(source, repo_type="dataset")
        return str(info.sha)
    except errors.GatedRepoError:
        raise LibraryError(
            f"The data set {source} is gated: accept its terms on its page and set HF_TOKEN to your token."
        ) from None
    except errors.RevisionNotFoundError:
        refs = api.list_repo_refs(source, repo_type="dataset")
        names = ", ".join(ref.name for ref in [*refs.branches, *refs.tags])
        raise LibraryError(
            f"The data set {source} has no revision {revision!r}; it has {names}, and its commits."
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise LibraryError(
            f"There is no folder, file or Hub data set {source!r} that can be read; "
            f"check the name, or set HF_TOKEN if it is private."
        ) from None


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit: only a data set of the Hub has one."""
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


def _splits(source: str, config: str | None, commit: str | None) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_split_names(source, config, revision=commit))
    except ValueError:
        names = datasets.get_dataset_config_names(source, revision=commit)
        if config is not None and config not in names:
            raise LibraryError(f"{source} has no config {config!r}; it has {', '.join(names)}.") from None
        if config is None and len(names) > 1:
            raise LibraryError(
                f"{source} has more than one config, so one of them must be named: {', '.join(names)}."
            ) from None
        raise


def _named(column: str | None, columns: Any) -> str | None:
    if column is not None and column not in columns:
        raise LibraryError(f"There is no column {column!r}; there are {', '.join(columns)}.")
    return column


def _first(names: tuple[str, ...], columns: Any) -> str | None:
    return next((name for name in names if name in columns), None)


def _image_column(features: Any) -> str:
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            return str(name)
    for name, feature in features.items():  # a table written without datasets' own types keeps the same struct
        if isinstance(feature, dict) and set(feature) == {"bytes", "path"}:
            return str(name)
    found = ", ".join(f"{name} ({_type_name(feature)})" for name, feature in features.items())
    nested = next((name for name, feature in features.items() if _holds_pictures(feature)), None)
    if nested is not None:
        raise LibraryError(
            f"The pictures of the column {nested} are in lists or nested; "
            f"a library has a column of single pictures (type Image), and here are {found}."
        )
    raise LibraryError(f"There is no column of single pictures (type Image); the columns are {found}.")


def _holds_pictures(feature: Any) -> bool:
    import datasets

    inner = feature.values() if isinstance(feature, dict) else feature if isinstance(feature, list) else ()
    inner = [*inner, *([feature.feature] if hasattr(feature, "feature") else [])]
    return isinstance(feature, datasets.Image) or any(map(_holds_pictures, inner))


def _label_column(features: Any) -> str | None:
    import datasets

    for name, feature in features.items():
        if isinstance(feature, datasets.ClassLabel):
            return str(name)
    return next((name for name in LABEL_NAMES if name in features and _is_scalar(features[name])), None)


def _caption_column(features: Any, label: str | None) -> str | None:
    named = next(
        (name for name in CAPTION_NAMES if name in features and name != label and _is_text(features[name])), None
    )
    if named:
        return named
    texts = [
        name for name, feature in features.items() if name != label and _is_text(feature) and not _is_identifier(name)
    ]
    return texts[0] if len(texts) == 1 else None


def _is_identifier(column: str) -> bool:
    return column.lower().endswith(("id", "url", "path", "name", "file", "hash", "license", "source", "split"))


def _is_scalar(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string", "int64", "int32", "int16", "int8", "uint8")


def _is_text(feature: Any) -> bool:
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return getattr(inner, "dtype", None) in ("string", "large_string")


def _type_name(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or feature)


def _language(column: str, caption: str | None) -> str | None:
    prefix, _, code = column.rpartition("_")
    return code if caption and prefix == caption and 2 <= len(code) <= 3 else None


def _translations(row: Mapping[str, Any], caption: str | None) -> dict[str, str]:
    found = ((_language(column, caption), _first_text(value)) for column, value in row.items())
    return {code: text for code, text in found if code and text}


def _first_text(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return value.strip() or None if isinstance(value, str) else None
