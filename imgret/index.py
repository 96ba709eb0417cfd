"""The index folder: its layout, and `Index`, which checks it and opens it for search.

manifest.json          the only file that a rebuild replaces; it names the folder below
data-<content hash>/   read-only from the moment the manifest names it
    records.arrow      one row for each picture: id, label, captions, size, content hash, thumbnail offset
    thumbnails.bin     WebP pictures, one after the other
    embeddings.npy     (N, d) float32, rows of norm 1
    pixels/            the pixel index
    chroma/            the Chroma collection, if it is not on a Chroma server
    map.npy            (N, 2) float32, the point of each picture on the map of the library; NaN if it has none
    measures.json      what the build measured: precision, mAP and recall, if the pictures have labels or captions; the
                       groups of equal and nearly equal pictures, unless there are too many pictures to look; scores of
                       queries whose label was left out, which say where the matches of a query end
    held-out.arrow     some pictures that are not in the library, to search with, if the library has such
    encoder/           the towers of an encoder that had to be exported
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NotRequired

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from imgret import held_out
from imgret.errors import one_line
from imgret.files.cache import cache_folder
from imgret.files.npy import mapped, open_array
from imgret.images import ImageError, load_image
from imgret.library import ImageLibrary, Record
from imgret.manifest import (
    EncoderInfo,
    FilterShare,
    InvalidIndexError,
    LibraryInfo,
    Manifest,
    VectorLocation,
    check_hashes,
    check_names,
    check_sizes,
    read_json,
)
from imgret.pixels import PixelIndex
from imgret.vectors import ChromaServer, RecallAudit, VectorError, VectorStore, collection_of

__all__ = [
    "EncoderInfo", "FilterShare", "Index", "InvalidIndexError", "LibraryInfo", "Manifest", "VectorLocation",
    "check_hashes",
]  # fmt: skip

RECORDS = "records.arrow"
THUMBNAILS = "thumbnails.bin"
EMBEDDINGS = "embeddings.npy"
PIXELS, PIXEL_MATRIX = "pixels", "vectors.npy"
VECTORS = "chroma"
ENCODER = "encoder"
MAP = "map.npy"
MEASURES = "measures.json"
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


class _HeldOut(TypedDict):
    queries: int
    unknown: int
    methods: dict[str, dict[str, float]]


class _Figures(TypedDict):
    """An `imgret.evaluate.Evaluation`."""

    queries: int
    alone: int
    methods: dict[str, dict[str, float]]
    captions: dict[str, float] | None
    by_label: dict[str, dict[str, dict[str, float]]]
    caption_queries: NotRequired[int]
    captions_by_language: NotRequired[dict[str, dict[str, float]]]
    held_out: NotRequired[_HeldOut | None]


class _Calibration(TypedDict):
    """The scores of one method: see `imgret.calibration.Calibration`."""

    rows: list[int]
    scores: list[float]


class _Group(TypedDict):
    kind: Literal["exact", "near"]
    rows: list[int]


class _Measures(TypedDict):
    """What measures.json holds."""

    evaluation: _Figures | None
    duplicates: list[_Group] | None
    calibration: dict[str, _Calibration]


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
        measures = _read_measures(self._data / MEASURES)
        self.evaluation: Mapping[str, Any] | None = measures["evaluation"]
        self.duplicates = _checked_groups(measures["duplicates"], count)
        self.calibration = _checked_calibration(measures["calibration"], count)
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
        cls, folder: str | os.PathLike[str], chroma: ChromaServer | str | None = None, *, cache: Path | None = None
    ) -> "Index":
        """The index in `folder`. `chroma` is the server that has its vectors, or the address of one; without it they
        are those in the folder. `cache` (~/.cache/imgret) is where Chroma's working copy lives while it is used.

        The server is first asked by the first query of the vectors. Raises InvalidIndexError for a folder that is
        half-written, corrupt, or of a newer format, and VectorError for an invalid address.
        """
        chroma = ChromaServer(chroma) if isinstance(chroma, str) else chroma
        path = Path(folder)
        cache = cache or cache_folder()
        while True:
            manifest = Manifest.read(path)
            try:
                check_names(path, manifest)
                check_sizes(path, manifest)
                return cls(path, manifest, cache, chroma)
            except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
                if Manifest.read(path).data != manifest.data:
                    continue  # a rebuild switched in between
                if isinstance(error, InvalidIndexError):
                    raise
                reason = one_line(error).rstrip(".")
                raise InvalidIndexError(
                    "The index in {folder} is corrupt ({reason}); build it anew.", folder=folder, reason=reason
                ) from error

    def __len__(self) -> int:
        return self.manifest.count

    def is_of(self, library: ImageLibrary) -> bool:
        """Whether this is still the index of `library`. If its files have the sizes and times that they had at the
        build, it is; else each picture is read and compared by its bytes.
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
        """The values of the column "label" that contain one of `labels`: a single label, or several joined."""
        wanted = dict.fromkeys(labels)
        return [*wanted, *(text for text, each in self._joined.items() if not wanted.keys().isdisjoint(each))]

    @cached_property
    def _joined(self) -> dict[str, list[str]]:
        """The labels of pictures that have several, by the text that joins them."""
        several = self._records.filter(pc.is_valid(self._records["labels"]))
        return dict(zip(several["label"].to_pylist(), several["labels"].to_pylist(), strict=True))

    def words(self, one: str, several: str) -> list[tuple[str, ...]]:
        """For each row all of its labels, say: the list in the column `several`, else the value in the column `one`."""
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


def _read_records(path: Path, thumbnail_bytes: int) -> pa.Table:
    records = pa.ipc.open_file(pa.py_buffer(mapped(path))).read_all()
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


def _read_measures(path: Path) -> _Measures:
    """What the build measured; nothing in an index of a release that kept it elsewhere, or not at all."""
    if not path.exists():
        return {"evaluation": None, "duplicates": None, "calibration": {}}
    return TypeAdapter(_Measures).validate_json(read_json(path), strict=True)


def _checked_calibration(calibration: Mapping[str, _Calibration], count: int) -> Mapping[str, _Calibration]:
    """The same. Raises ValueError for what is no score of each row."""
    for each in calibration.values():
        rows, scores = each["rows"], each["scores"]
        if len(rows) != len(scores) or not rows or not (min(rows) >= 0 and max(rows) < count):
            raise ValueError(f"{MEASURES} does not hold a score for each of its rows")
        if not np.isfinite(scores).all():
            raise ValueError(f"{MEASURES} holds scores that are no numbers")
    return calibration


def _counted(records: pa.Table) -> dict[str, int]:
    single = records.filter(pc.is_null(records["labels"]))["label"]
    counts: Counter[str] = Counter()
    for labels in (single, pc.list_flatten(records["labels"])):
        counts.update({pair["values"]: pair["counts"] for pair in pc.value_counts(labels.drop_null()).to_pylist()})
    return dict(counts)


def _several(values: Sequence[str] | None, single: str | None) -> tuple[str, ...]:
    return tuple(values) if values is not None else () if single is None else (single,)


def _checked_groups(
    groups: Sequence[_Group] | None, count: int
) -> tuple[tuple[Literal["exact", "near"], tuple[int, ...]], ...] | None:
    """The kind and the rows of each group. Raises ValueError for rows out of order or in two groups."""
    if groups is None:
        return None
    rows = [row for group in groups for row in group["rows"]]
    ordered = all(len(group["rows"]) > 1 and group["rows"] == sorted(group["rows"]) for group in groups)
    if not ordered or len(set(rows)) < len(rows) or any(not 0 <= row < count for row in rows):
        raise ValueError(f"{MEASURES} does not hold groups of its pictures")
    return tuple((group["kind"], tuple(group["rows"])) for group in groups)
