"""The index folder: its layout, its manifest, and `Index`, which checks it and opens it for search.

manifest.json          the only file that a rebuild replaces; it names the folder below
data-<content hash>/   read-only from the moment the manifest names it
    records.arrow      one row for each picture: id, label, captions, size, content hash, thumbnail offset
    thumbnails.bin     WebP pictures, one after the other
    embeddings.npy     (N, d) float32, rows of norm 1
    pixels/            the pixel index
    chroma/            the Chroma collection, if it is not on a Chroma server
    map.npy            (N, 2) float32, the point of each picture on the map of the library; NaN if it has none
    evaluation.json    precision, mAP and recall, if the pictures have labels or captions
    held-out.arrow     some pictures that are not in the library, to search with, if it came with such
    calibration.json   scores of queries whose label was left out: they say where the matches of a query end
    duplicates.json    the groups of equal and nearly equal pictures, unless there are too many pictures to look
    encoder/           the towers of an encoder that had to be exported
"""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NotRequired, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from imgret import held_out
from imgret.encoders import fingerprint, uri_of
from imgret.errors import ImgretError, one_line
from imgret.files import durable
from imgret.files.cache import cache_folder
from imgret.files.npy import mapped, open_array
from imgret.images import ImageError, load_image
from imgret.library import ImageLibrary, Record, is_commit
from imgret.pixels import PixelIndex
from imgret.vectors import ChromaServer, FilterAudit, RecallAudit, VectorError, VectorStore, collection_of

FORMAT = 2
MAX_JSON = 64 * 2**20
MANIFEST = "manifest.json"
RECORDS = "records.arrow"
THUMBNAILS = "thumbnails.bin"
EMBEDDINGS = "embeddings.npy"
PIXELS, PIXEL_MATRIX = "pixels", "vectors.npy"
VECTORS = "chroma"
SERVED = "-served"
"""The suffix of a data folder without vectors, whose vectors are on a Chroma server."""
ENCODER = "encoder"
MAP = "map.npy"
EVALUATION = "evaluation.json"
DUPLICATES = "duplicates.json"
CALIBRATION = "calibration.json"
HELD_OUT = "held-out.arrow"

RECORD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("captions", pa.map_(pa.string(), pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("content", pa.string()),
        ("thumbnail_start", pa.int64()),
        ("thumbnail_size", pa.int32()),
        ("labels", pa.list_(pa.string())),
        ("all_captions", pa.list_(pa.string())),
    ]
)
"""`labels` and `all_captions` are null where there is one at most; `label` and `caption` have it."""

_OF_FORMAT_1 = RECORD_SCHEMA.names[:-2]


FilterShare = Literal["0.1", "0.01", "0.001"]
"""How much of the library a label filter leaves, where its recall is audited."""
FILTER_SHARES: tuple[FilterShare, ...] = get_args(FilterShare)


class InvalidIndexError(ImgretError):
    """A folder that is no index, or a damaged one; the text says why and what to do."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the index: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class LibraryInfo:
    """Where the pictures came from. `revision`: a data set's commit, or a hash of a folder's listing."""

    source: str
    split: str | None
    revision: str | None
    limit: int | None
    config: str | None = None

    @classmethod
    def of(cls, library: ImageLibrary) -> "LibraryInfo":
        """Where the pictures of `library` come from."""
        return cls(library.source, library.split, library.revision, library.limit, library.config)

    @property
    def on_hub(self) -> bool:
        """Whether the source is a data set on the Hub; only then the revision is a commit."""
        return is_commit(self.revision)

    @property
    def name(self) -> str:
        """The source as visitors see it: of a local path only the last two parts."""
        return "/".join(Path(self.source).parts[-2:]) if os.path.isabs(self.source) else self.source


@dataclass(frozen=True)
class EncoderInfo:
    """Which encoder made the embeddings.

    `languages` are the codes of those that its text tower is declared to read, "*" for about a hundred; `export` says
    how the encoder in the index compares with the original, None where there is none; `fingerprint` is a hash of its
    weights.
    """

    uri: str
    dim: int
    languages: tuple[str, ...]
    export: Mapping[str, Any] | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class VectorLocation:
    """Where the vectors of an index are, if not in its folder: the URL of a Chroma server, and the collection."""

    url: str
    collection: Annotated[str, Field(pattern="^imgret-[0-9a-f]+$")]


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    `skipped` lists `(id, reason)` of rows without a usable picture, the first thousand at most; `vectors` is None where
    the embedded store in the folder has them; `description` says in lines what of the library was taken and left out;
    `stamp` is a hash of the sizes and times of the library's files; `filtered` audits Chroma's own search among labels
    that have about this share of the rows, None for a share that no labels have, and empty in older indexes.
    """

    format: int
    data: str
    library: LibraryInfo
    encoder: EncoderInfo
    pixel_size: Annotated[int, Field(ge=1, le=1024)]
    count: Annotated[int, Field(ge=1)]
    labels: Mapping[str, int]
    skipped_count: int
    skipped: tuple[tuple[str, str], ...]
    recall: RecallAudit
    created: str
    files: Mapping[str, FileEntry] = field(repr=False)
    vectors: VectorLocation | None = None
    description: tuple[str, ...] = ()
    stamp: str | None = None
    filtered: Mapping[FilterShare, FilterAudit | None] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """The hash of everything that the data of the index depends on, wherever its vectors are."""
        return self.data.removeprefix("data-").removesuffix(SERVED)

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def mismatch(
        self,
        source: str,
        encoder: str,
        *,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        limit: int | None = None,
    ) -> str | None:
        """Why this is not the index of that library and encoder, as the end of a sentence, or None. A config, split or
        revision that is not given matches any.
        """
        made = self.library
        if made.source != source:
            return f"it was made from the library {made.source}, not {source}."
        if config is not None and made.config != config:
            return f"it was made from the config {made.config}, not {config}."
        if split is not None and made.split != split:
            return f"it was made from the split {made.split}, not {split}."
        if revision is not None and made.revision != revision:
            return f"it was made from the revision {made.revision}, not {revision}."
        if made.limit != limit:
            return f"it was made with the limit {made.limit}, not {limit}."
        if self.encoder.uri != uri_of(encoder):
            return f"it was made with the encoder {self.encoder.uri}, not {encoder}."
        if self.is_outdated:
            return f"it was made by another release of the encoder {encoder}."
        return None

    @property
    def is_outdated(self) -> bool:
        """Whether its encoder comes with imgret, and this release brings another one."""
        return fingerprint(self.encoder.uri) not in (None, self.encoder.fingerprint)

    def to_json(self) -> str:
        values = {name: value for name, value in asdict(self).items() if name != "vectors" or value is not None}
        return json.dumps(values, indent=2, ensure_ascii=False)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of the index in `folder`. Raises InvalidIndexError."""
        path = folder / MANIFEST
        try:
            text = _read_text(path)
        except FileNotFoundError:
            raise InvalidIndexError(
                "{folder} holds no finished index (no {manifest}); run imgret build.", folder=folder, manifest=MANIFEST
            ) from None
        except (OSError, ValueError):
            raise InvalidIndexError("{path} cannot be read; build the index anew.", path=path) from None
        try:
            found = TypeAdapter(_AnyFormat).validate_json(text).format
            if found > FORMAT:
                raise InvalidIndexError(
                    "The index in {folder} has format {found}, and this version reads up to {format}; update imgret.",
                    folder=folder,
                    found=found,
                    format=FORMAT,
                )
            manifest = TypeAdapter(cls).validate_json(text, strict=True)
            for name in (manifest.data, *manifest.files):
                _inside(name)
            return manifest
        except InvalidIndexError:
            raise
        except ValueError:
            raise InvalidIndexError(
                "{path} is not the manifest of an index; build the index anew.", path=path
            ) from None


@dataclass(frozen=True)
class _AnyFormat:
    format: int


class _HeldOut(TypedDict):
    queries: int
    unknown: int
    methods: dict[str, dict[str, float]]


class _Figures(TypedDict):
    """What evaluation.json holds: an `imgret.evaluate.Evaluation`."""

    queries: int
    alone: int
    methods: dict[str, dict[str, float]]
    captions: dict[str, float] | None
    by_label: dict[str, dict[str, dict[str, float]]]
    caption_queries: NotRequired[int]
    captions_by_language: NotRequired[dict[str, dict[str, float]]]
    held_out: NotRequired[_HeldOut | None]


class _Calibration(TypedDict):
    """What calibration.json holds for one method: see `imgret.calibration.Calibration`."""

    rows: list[int]
    scores: list[float]


class _Group(TypedDict):
    kind: Literal["exact", "near"]
    rows: list[int]


class _Groups(TypedDict):
    """What duplicates.json holds."""

    groups: list[_Group]


class Index:
    """An index opened for search: `len(index)` pictures, described by `index.manifest`; its folder is never written.

    Opening reads the manifest and the sizes of the files; the rest is memory-mapped, or opened when first asked for.

    Attributes:
        embeddings: (N, d) float32, rows of norm 1.
        pixels: the pixel index.
        evaluation: the figures of the build, as `imgret evaluate --json` prints them; None where the pictures have
            neither labels nor captions, and in an index of a release that did not evaluate.
        duplicates: the kind and the rows of each group of equal or nearly equal pictures; None where the build did not
            look for them. `imgret.duplicates` finds them, and names their pictures.
        calibration: by method, rows and scores of queries whose label was left out; empty where the build made none.
        held_out: some pictures that are not in the library, to search with; none where the library came without.
    """

    def __init__(self, folder: Path, manifest: Manifest, cache: Path, chroma: ChromaServer | None = None) -> None:
        self.folder, self.manifest, self._chroma = folder, manifest, chroma
        self._cache, self._data = cache, folder / manifest.data
        self._vectors: VectorStore | None = None
        self._lock = threading.Lock()
        count, dim, side = manifest.count, manifest.encoder.dim, manifest.pixel_size
        self._thumbnails = mapped(self._data / THUMBNAILS)
        self._records = _read_records(self._data / RECORDS, len(self._thumbnails))
        self.embeddings: npt.NDArray[np.float32] = open_array(self._data / EMBEDDINGS)
        self.pixels = PixelIndex.load(self._data / PIXELS)
        self._points = open_array(self._data / MAP) if (self._data / MAP).exists() else None
        self.evaluation = _read_figures(self._data / EVALUATION)
        self.duplicates = _read_groups(self._data / DUPLICATES, count)
        self.calibration = _read_calibration(self._data / CALIBRATION, count)
        self.held_out = held_out.read(self._data / HELD_OUT) if (self._data / HELD_OUT).exists() else ()
        if not (len(self._records) == len(self.pixels) == count and self.embeddings.shape[:1] == (count,)):
            raise InvalidIndexError(
                "The parts of the index in {folder} do not agree on the number of pictures; build it anew.",
                folder=folder,
            )
        if self.embeddings.shape != (count, dim) or self.embeddings.dtype != np.float32:
            raise ValueError(f"{EMBEDDINGS} does not hold {count} vectors of {dim} dimensions")
        if self._points is not None and (self._points.shape != (count, 2) or self._points.dtype != np.float32):
            raise ValueError(f"{MAP} does not hold a point for each of {count} pictures")
        if self.pixels.dim != 3 * side**2:
            raise ValueError(f"the pixel vectors are not those of pictures of {side} x {side} pixels")
        if manifest.labels != _counted(self._records):
            raise ValueError("its labels are not those of its pictures")

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        chroma: ChromaServer | str | None = None,
        *,
        cache: Path | None = None,
    ) -> "Index":
        """The index in `folder`. `chroma` is the server that has its vectors, or the address of one; without it they
        are those in the folder. `cache` (~/.cache/imgret) is where Chroma's working copy lives while it is used.

        The server is first asked by the first query of the vectors. Raises InvalidIndexError for a folder that is
        half-written, corrupt, or of a newer format, and VectorError for an address that is none.
        """
        chroma = ChromaServer(chroma) if isinstance(chroma, str) else chroma
        path = Path(folder)
        cache = cache or cache_folder()
        while True:
            manifest = Manifest.read(path)
            try:
                _check_names(path, manifest)
                check_sizes(path, manifest)
                return cls(path, manifest, cache, chroma)
            except InvalidIndexError:
                if Manifest.read(path).data == manifest.data:  # else: a rebuild switched in between
                    raise
            except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
                if Manifest.read(path).data == manifest.data:
                    reason = one_line(error).rstrip(".")
                    raise InvalidIndexError(
                        "The index in {folder} is corrupt ({reason}); build it anew.", folder=folder, reason=reason
                    ) from error

    def __len__(self) -> int:
        return self.manifest.count

    def is_of(self, library: ImageLibrary) -> bool:
        """Whether this is still the index of `library`, by the bytes of each picture. Where the files' sizes and times
        are those of the build, none is read.
        """
        if library.stamp is None or library.stamp == self.manifest.stamp:
            return True
        ids, contents, row = self.column("id"), self.column("content"), 0
        for entry in library.entries():
            here = row < len(self) and ids[row] == entry.id
            try:
                data = entry.read()
                if not here:
                    load_image(data)
                    return False  # a picture that the build skipped can be read now
            except ImageError:
                if here:
                    return False
                continue
            record = self.record(row)
            words = (record.labels, record.caption, dict(record.captions), record.all_captions)
            if words != (entry.labels, entry.caption, dict(entry.captions), entry.all_captions):
                return False
            if hashlib.sha256(data).hexdigest() != contents[row]:
                return False
            row += 1
        return row == len(self)

    @property
    def vectors(self) -> VectorStore:
        """The Chroma collection, opened when first asked for. Raises VectorError."""
        with self._lock:
            if self._vectors is None:
                self._vectors = self._open_vectors()
            return self._vectors

    @cached_property
    def map(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
        """The rows (M,) on the map of the library, and their points (M, 2) in [0, 1]; None for an index without a map,
        from an early release. Read when first asked for; raises InvalidIndexError.
        """
        if self._points is None:
            return None
        rows = np.flatnonzero(~np.isnan(self._points).any(axis=1))
        placed = np.array(self._points[rows])
        if not ((placed >= 0) & (placed <= 1)).all():
            raise InvalidIndexError(
                "The index in {folder} is corrupt (its map has points outside of the map); build it anew.",
                folder=self.folder,
            )
        return rows, placed

    def _open_vectors(self) -> VectorStore:
        location = self.manifest.vectors
        if self._chroma is not None:
            name = location.collection if location else collection_of(self.manifest.content)
            return VectorStore.connect(self._chroma, name, len(self))
        if location is not None:
            raise VectorError(
                "The vectors of this index are on the Chroma server at {url}; set IMGRET_CHROMA_URL to it, "
                "or build the index again without it.",
                url=location.url,
            )
        return VectorStore.open(self._data / VECTORS, self._cache, self.embeddings)

    def write_vectors(
        self, server: ChromaServer, owner: str, progress: Callable[[int], None] = lambda done: None
    ) -> RecallAudit:
        """Writes the embeddings to a server, where `open` finds them, unless it has them. Raises VectorError."""
        name, labels = collection_of(self.manifest.content), self.column("label")
        return VectorStore.write(server, name, owner, self.embeddings, labels, progress)

    @property
    def encoder_folder(self) -> Path | None:
        """The folder of the exported encoder in the index, or None."""
        folder = self._data / ENCODER
        return folder if folder.is_dir() else None

    def record(self, row: int) -> Record:
        """The record in `row`, without its picture."""
        values = self._records.slice(row, 1).to_pylist()[0]
        return Record(
            values["id"],
            values["label"],
            values["caption"],
            values["width"],
            values["height"],
            dict(values["captions"] or ()),
            labels=_several(values["labels"], values["label"]),
            all_captions=_several(values["all_captions"], values["caption"]),
        )

    def row_of(self, id: str) -> int:
        """The row of the record called `id`. Raises KeyError."""
        try:
            row = pc.index(self._records["id"], pa.scalar(id, pa.string())).as_py()
        except (TypeError, UnicodeEncodeError, pa.ArrowInvalid):  # no text, or none that could be an id
            raise KeyError(id) from None
        if row < 0:
            raise KeyError(id)
        return int(row)

    def rows_of(self, *labels: str) -> npt.NDArray[np.int64]:
        """The rows that have one of `labels`, alone or among others, in order."""
        found = pc.is_in(self._records["label"], pa.array(self.texts_of(labels), pa.string()))
        return np.asarray(pc.indices_nonzero(found), dtype=np.int64)

    def texts_of(self, labels: Iterable[str]) -> list[str]:
        """What stands in the column "label" for pictures with one of `labels`: these, and texts that join several."""
        wanted = dict.fromkeys(labels)
        return [*wanted, *(text for text, each in self._joined.items() if not wanted.keys().isdisjoint(each))]

    @cached_property
    def _joined(self) -> dict[str, list[str]]:
        """The labels of pictures that have several, by the text that joins them."""
        several = self._records.filter(pc.is_valid(self._records["labels"]))
        return dict(zip(several["label"].to_pylist(), several["labels"].to_pylist(), strict=True))

    def words(self, one: str, several: str) -> list[tuple[str, ...]]:
        """For each row the values of two columns: `several`, or where that has none the one of `one`, if any."""
        return [_several(many, single) for many, single in zip(self.column(several), self.column(one), strict=True)]

    def column(self, name: str) -> list[Any]:
        """All values of one field of the records, in row order."""
        return self._records[name].to_pylist()

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail in `row`: WebP, at most 256 px a side. Raises InvalidIndexError for anything but WebP, as
        browsers get it unchanged.
        """
        start, size = (self._records[name][row].as_py() for name in ("thumbnail_start", "thumbnail_size"))
        found = self._thumbnails[start : start + size].tobytes()
        if found[:4] != b"RIFF" or found[8:12] != b"WEBP":
            raise InvalidIndexError(
                "The index in {folder} is corrupt (a thumbnail is no WebP); build it anew.", folder=self.folder
            )
        return found

    def close(self) -> None:
        """Closes the Chroma collection."""
        with self._lock:
            if self._vectors is not None:
                self._vectors.close()
                self._vectors = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest of `folder` in one atomic step."""
    draft = folder / f".{MANIFEST}.{os.getpid()}"
    with draft.open("w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    durable.switch_name(draft, folder / MANIFEST)
    durable.flush_folder(folder)


def list_files(folder: Path, data: str) -> dict[str, FileEntry]:
    """The files below `folder`/`data` with sizes and hashes, by their name in the manifest; each is flushed to the
    disk.
    """
    found = {}
    for path in sorted((folder / data).rglob("*")):
        if path.is_file():
            with durable.open_to_flush(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            found[path.relative_to(folder).as_posix()] = FileEntry(path.stat().st_size, digest)
    return found


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises InvalidIndexError if a file of the manifest is missing or has another size."""
    for name, entry in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise InvalidIndexError(
                "The index in {folder} lacks its file {name}; build it anew.", folder=folder, name=name
            ) from None
        if size != entry.size:
            raise InvalidIndexError(
                "The index in {folder} is corrupt ({name} has {found} bytes instead of {size}); build it anew.",
                folder=folder,
                name=name,
                found=size,
                size=entry.size,
            )


def check_hashes(folder: Path, manifest: Manifest) -> None:
    """Raises InvalidIndexError if a file of the manifest is missing or has another content."""
    check_sizes(folder, manifest)
    for name, entry in manifest.files.items():
        if not is_whole(folder / name, entry):
            raise InvalidIndexError(
                "The index in {folder} is corrupt ({name} has changed); build it anew.", folder=folder, name=name
            )


def is_whole(path: Path, entry: FileEntry) -> bool:
    """Whether a file is there with the size and the content of its entry."""
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def count_labels(labels: Iterable[str | None]) -> dict[str, int]:
    """How often each label is there, by name."""
    return dict(sorted(Counter(label for label in labels if label is not None).items()))


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} leads out of the index")
    return name


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Raises InvalidIndexError unless the data folder has exactly the files of the manifest, all inside the index.
    Links may point out of it only to the blobs of the Hub's cache.
    """
    root = folder.resolve()
    homes = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    data = folder / manifest.data
    there = {path for path in data.rglob("*") if path.is_symlink() or not path.is_dir()}
    listed = {folder / name for name in manifest.files}
    for path in sorted(there ^ listed):
        name = path.relative_to(folder)
        if path in listed:
            raise InvalidIndexError(
                "The index in {folder} lacks its file {name}; build it anew.", folder=folder, name=name
            )
        raise InvalidIndexError(
            "The index in {folder} holds a file that is none of its own, {name}; build it anew.",
            folder=folder,
            name=name,
        )
    for path in [data, *there]:
        if not any(path.resolve().is_relative_to(home) for home in homes):
            raise InvalidIndexError(
                "The index in {folder} cannot be trusted ({name} leads out of it); copy all of it.",
                folder=folder,
                name=path.relative_to(folder),
            )


def _read_text(path: Path) -> bytes:
    """Reads a JSON file. Raises ValueError if it is far too large."""
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path.name} has more than {MAX_JSON / 2**20:.0f} MB")
    return path.read_bytes()


def _read_records(path: Path, thumbnail_bytes: int) -> pa.Table:
    records = pa.ipc.open_file(pa.py_buffer(mapped(path))).read_all()
    if records.schema.equals(pa.schema([RECORD_SCHEMA.field(name) for name in _OF_FORMAT_1])):
        for name in RECORD_SCHEMA.names[len(_OF_FORMAT_1) :]:
            records = records.append_column(RECORD_SCHEMA.field(name), pa.nulls(len(records), pa.list_(pa.string())))
    if not records.schema.equals(RECORD_SCHEMA):
        raise ValueError(f"{RECORDS} has other columns than the records of an index")
    records.validate(full=True)  # wrong offsets would crash the process
    if records["id"].null_count or pc.count_distinct(records["id"]).as_py() != len(records):
        raise ValueError("the ids of its pictures are not unique")
    starts, sizes = records["thumbnail_start"], records["thumbnail_size"]
    ends = pc.add_checked(starts, pc.cast(sizes, pa.int64()))
    least, most = pc.min(pc.min_element_wise(starts, sizes)).as_py(), pc.max(ends).as_py()
    if starts.null_count or sizes.null_count or (len(records) and (least < 0 or most > thumbnail_bytes)):
        raise ValueError("its thumbnails are not where its records say")
    return records


def _read_figures(path: Path) -> Mapping[str, Any] | None:
    return TypeAdapter(_Figures).validate_json(_read_text(path), strict=True) if path.exists() else None


def _read_calibration(path: Path, count: int) -> Mapping[str, _Calibration]:
    if not path.exists():
        return {}
    found = TypeAdapter(dict[str, _Calibration]).validate_json(_read_text(path), strict=True)
    for each in found.values():
        rows, scores = each["rows"], each["scores"]
        if len(rows) != len(scores) or not rows or not (min(rows) >= 0 and max(rows) < count):
            raise ValueError(f"{path.name} does not hold a score for each of its rows")
        if not np.isfinite(scores).all():
            raise ValueError(f"{path.name} holds scores that are no numbers")
    return found


def _counted(records: pa.Table) -> dict[str, int]:
    single = records.filter(pc.is_null(records["labels"]))["label"]
    counts: Counter[str] = Counter()
    for labels in (single, pc.list_flatten(records["labels"])):
        counts.update({pair["values"]: pair["counts"] for pair in pc.value_counts(labels.drop_null()).to_pylist()})
    return dict(counts)


def _several(values: Sequence[str] | None, single: str | None) -> tuple[str, ...]:
    return tuple(values) if values is not None else () if single is None else (single,)


def _read_groups(path: Path, count: int) -> tuple[tuple[Literal["exact", "near"], tuple[int, ...]], ...] | None:
    """The groups of equal pictures, by their rows. Raises ValueError for rows out of order or in two groups."""
    if not path.exists():
        return None
    found = TypeAdapter(_Groups).validate_json(_read_text(path), strict=True)["groups"]
    rows = [row for group in found for row in group["rows"]]
    ordered = all(len(group["rows"]) > 1 and group["rows"] == sorted(group["rows"]) for group in found)
    if not ordered or len(set(rows)) < len(rows) or any(not 0 <= row < count for row in rows):
        raise ValueError(f"{path.name} does not hold groups of its pictures")
    return tuple((group["kind"], tuple(group["rows"])) for group in found)
