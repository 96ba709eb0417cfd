"""What does an index folder hold, and can it be trusted? Where the build road and the search road meet.

manifest.json          the only name that is ever replaced; it points to the folder below
data-<content hash>/   never written to once the manifest names it
    records.arrow      a row a picture: id, label, captions, size, content hash, place of its thumbnail
    thumbnails.bin     WebP pictures, one after the other
    embeddings.npy     (N, d) float32, rows of norm 1
    pixels/            the pixel index
    chroma/            the Chroma collection, unless a Chroma server has it
    map.npy            (N, 2) float32, each picture's point on a map of the library; NaN for one that is not on it
    evaluation.json    how good the answers are, where the pictures have labels or captions
"""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imgret.library import ImageLibrary, Record, is_commit
from imgret.pixels import PixelIndex
from imgret.vectors import ChromaServer, RecallAudit, VectorError, VectorStore, collection_of

FORMAT = 1
MANIFEST = "manifest.json"
RECORDS = "records.arrow"
THUMBNAILS = "thumbnails.bin"
EMBEDDINGS = "embeddings.npy"
PIXELS, PIXEL_MATRIX = "pixels", "vectors.npy"
VECTORS = "chroma"
SERVED = "-served"
"""How the name of a data folder ends that has no vectors, as a Chroma server has them."""
ENCODER = "encoder"
MAP = "map.npy"
EVALUATION = "evaluation.json"

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
    ]
)


class InvalidIndexError(ValueError):
    """A folder that is no index, or one that cannot be trusted; the text says why and what to do."""


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
        """Whether the source is a data set of the Hub: only there a revision is a commit."""
        return is_commit(self.revision)

    @property
    def name(self) -> str:
        """The source as it is shown to visitors: of a path on this machine only the last two parts."""
        return "/".join(Path(self.source).parts[-2:]) if os.path.isabs(self.source) else self.source


@dataclass(frozen=True)
class EncoderInfo:
    """Which encoder made the embeddings.

    `languages` are the codes of those its text tower reads, "*" for about a hundred; `export` says how the exported
    encoder in the index compares with the original, None where there is none.
    """

    uri: str
    dim: int
    languages: tuple[str, ...]
    export: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Place:
    """Where the vectors of an index are that does not hold them: a Chroma server's address, and a collection's name."""

    url: str
    collection: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    `skipped` lists `(id, reason)` of rows without a usable picture, the first thousand at most; `vectors` is None where
    the embedded store in the folder has them.
    """

    format: int
    data: str
    library: LibraryInfo
    encoder: EncoderInfo
    pixel_size: int
    count: int
    labels: Mapping[str, int]
    skipped_count: int
    skipped: tuple[tuple[str, str], ...]
    recall: RecallAudit
    created: str
    files: Mapping[str, FileEntry] = field(repr=False)
    vectors: Place | None = None

    @property
    def content(self) -> str:
        """The hash of all that the data of the index depends on, wherever its vectors are."""
        return self.data.removeprefix("data-").removesuffix(SERVED)

    def misfit(
        self,
        source: str,
        encoder: str,
        *,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        limit: int | None = None,
    ) -> str | None:
        """Why this is not the index of that library and encoder, as the end of a sentence, or None.

        A config, split or revision that is not given may be any.
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
        if self.encoder.uri != encoder:
            return f"it was made with the encoder {self.encoder.uri}, not {encoder}."
        return None

    def to_json(self) -> str:
        values = {name: value for name, value in asdict(self).items() if name != "vectors" or value is not None}
        return json.dumps(values, indent=2, ensure_ascii=False)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of the index in `folder`. Raises InvalidIndexError."""
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidIndexError(f"{folder} holds no finished index (no {MANIFEST}); run imgret build.") from None
        except (OSError, ValueError):
            raise InvalidIndexError(f"{path} cannot be read; build the index anew.") from None
        found = values.get("format") if isinstance(values, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise InvalidIndexError(
                f"The index in {folder} has format {found}, and this version reads up to {FORMAT}; update imgret."
            )
        try:
            return cls(
                **values
                | {
                    "library": LibraryInfo(**values["library"]),
                    "encoder": EncoderInfo(**values["encoder"] | {"languages": tuple(values["encoder"]["languages"])}),
                    "recall": RecallAudit(**values["recall"]),
                    "skipped": tuple((str(name), str(reason)) for name, reason in values["skipped"]),
                    "files": {_inside(name): FileEntry(**entry) for name, entry in values["files"].items()},
                    "data": _inside(values["data"]),
                    "vectors": Place(**values["vectors"]) if values.get("vectors") else None,
                }
            )
        except (TypeError, KeyError, ValueError, AttributeError):
            raise InvalidIndexError(f"{path} is not the manifest of an index; build the index anew.") from None


class Index:
    """An index opened for search: `len(index)` pictures, described by `index.manifest`; its folder is never written.

    Opening reads the manifest and the sizes of the files; the rest is memory-mapped, or opened when first asked for.

    Attributes:
        embeddings: (N, d) float32, rows of norm 1.
        pixels: the pixel index.
        map: the rows (M,) int64 that are on the map of the library, and their points (M, 2) float32 in [0, 1], where
            similar pictures lie near each other; None in an index of a release that drew none.
        evaluation: the figures of the build, as `imgret evaluate --json` prints them; None where the pictures have
            neither labels nor captions, and in an index of a release that did not evaluate.
    """

    def __init__(self, folder: Path, manifest: Manifest, cache: Path, chroma: ChromaServer | None = None) -> None:
        self.folder, self.manifest, self._chroma = folder, manifest, chroma
        self._cache, self._data = cache, folder / manifest.data
        self._vectors: VectorStore | None = None
        self._lock = threading.Lock()
        self._records = pa.ipc.open_file(pa.memory_map(str(self._data / RECORDS))).read_all()
        self.embeddings: npt.NDArray[np.float32] = np.load(self._data / EMBEDDINGS, mmap_mode="r", allow_pickle=False)
        self._thumbnails = _map_bytes(self._data / THUMBNAILS)
        self.pixels = PixelIndex.load(self._data / PIXELS)
        self.map = _read_map(self._data / MAP)
        evaluation = self._data / EVALUATION
        self.evaluation: Mapping[str, Any] | None = (
            json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.exists() else None
        )
        if not (len(self._records) == len(self.embeddings) == len(self.pixels) == manifest.count):
            raise InvalidIndexError(
                f"The parts of the index in {folder} do not agree on the number of pictures; build it anew."
            )

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
        cache = cache or Path.home() / ".cache" / "imgret"
        while True:
            manifest = Manifest.read(path)
            try:
                check_sizes(path, manifest)
                return cls(path, manifest, cache, chroma)
            except InvalidIndexError:
                if Manifest.read(path).data == manifest.data:  # else: a rebuild switched in between
                    raise
            except (OSError, ValueError, pa.ArrowException) as error:
                if Manifest.read(path).data == manifest.data:
                    raise InvalidIndexError(f"The index in {folder} is corrupt ({error}); build it anew.") from error

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def vectors(self) -> VectorStore:
        """The Chroma collection, opened when first asked for. Raises VectorError."""
        with self._lock:
            if self._vectors is None:
                self._vectors = self._open_vectors()
            return self._vectors

    def _open_vectors(self) -> VectorStore:
        if self._chroma is not None:
            return VectorStore.connect(self._chroma, collection_of(self.manifest.content), len(self))
        if (place := self.manifest.vectors) is not None:
            raise VectorError(
                f"The vectors of this index are on the Chroma server at {place.url}; "
                "set IMGRET_CHROMA_URL to it, or build the index again without it."
            )
        return VectorStore.open(self._data / VECTORS, self._cache)

    def write_vectors(
        self, server: ChromaServer, owner: str, progress: Callable[[int], None] = lambda done: None
    ) -> RecallAudit:
        """Writes the embeddings to a server, where `open` finds them, unless it has them. Raises VectorError."""
        name, labels = collection_of(self.manifest.content), self.column("label")
        return VectorStore.write(server, name, owner, self.embeddings, labels, progress)

    @property
    def encoder_folder(self) -> Path | None:
        """The exported encoder that the index carries, if it does."""
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
        )

    def row_of(self, id: str) -> int:
        """The row of the record called `id`. Raises KeyError."""
        row = pc.index(self._records["id"], pa.scalar(id, pa.string())).as_py()
        if row < 0:
            raise KeyError(id)
        return int(row)

    def rows_of(self, label: str) -> npt.NDArray[np.int64]:
        """The rows labelled `label`, in order."""
        return np.asarray(pc.indices_nonzero(pc.equal(self._records["label"], label)), dtype=np.int64)

    def column(self, name: str) -> list[Any]:
        """All values of one field of the records, in row order."""
        return self._records[name].to_pylist()

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail in `row`: WebP, at most 256 px a side."""
        start, size = (self._records[name][row].as_py() for name in ("thumbnail_start", "thumbnail_size"))
        return self._thumbnails[start : start + size].tobytes()

    def close(self) -> None:
        """Lets go of the Chroma collection."""
        with self._lock:
            if self._vectors is not None:
                self._vectors.close()
                self._vectors = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Makes `manifest` the index of `folder`, by switching one name."""
    draft = folder / f".{MANIFEST}.{os.getpid()}"
    with draft.open("w", encoding="utf-8") as file:
        file.write(manifest.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / MANIFEST)
    sync_folder(folder)


def describe_files(folder: Path, data: str) -> dict[str, FileEntry]:
    """The files below `folder`/`data` with sizes and hashes, by their name in the manifest; each is flushed to the
    disk.
    """
    found = {}
    for path in sorted((folder / data).rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
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
            raise InvalidIndexError(f"The index in {folder} lacks its file {name}; build it anew.") from None
        if size != entry.size:
            raise InvalidIndexError(
                f"The index in {folder} is corrupt ({name} has {size} bytes instead of {entry.size}); build it anew."
            )


def check_hashes(folder: Path, manifest: Manifest) -> None:
    """Raises InvalidIndexError if a file of the manifest is missing or has another content."""
    check_sizes(folder, manifest)
    for name, entry in manifest.files.items():
        if not is_whole(folder / name, entry):
            raise InvalidIndexError(f"The index in {folder} is corrupt ({name} has changed); build it anew.")


def is_whole(path: Path, entry: FileEntry) -> bool:
    """Whether a file is there with the size and the content of its entry."""
    if not path.is_file() or path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def count_labels(labels: Sequence[str | None]) -> dict[str, int]:
    """How many pictures each label has, by name."""
    return dict(sorted(Counter(label for label in labels if label is not None).items()))


def sync_folder(folder: Path) -> None:
    """Flushes the names in `folder` to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} leads out of the index")
    return name


def _read_map(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
    if not path.exists():
        return None
    points: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    rows = np.flatnonzero(~np.isnan(points[:, 0]))
    return rows, points[rows]


def _map_bytes(path: Path) -> npt.NDArray[np.uint8]:
    return np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
