"""The manifest of an index: what it holds, how it was made, and the sizes and hashes of its files."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter

from imgret.encoders import fingerprint, uri_of
from imgret.errors import ImgretError
from imgret.files import durable
from imgret.library import ImageLibrary, is_commit
from imgret.vectors import FilterAudit, RecallAudit

FORMAT = 2
MAX_JSON = 64 * 2**20
MANIFEST = "manifest.json"
SERVED = "-served"
"""The suffix of a data folder without vectors, whose vectors are on a Chroma server."""

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
    def part(self) -> dict[str, Any]:
        """Which part of the source was taken: config, split, revision and limit, None where nothing says."""
        return {name: getattr(self, name) for name in ("config", "split", "revision", "limit")}

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

    Attributes:
        data: the name of the folder with all other files.
        skipped: `(id, reason)` of rows without a usable picture, the first thousand at most.
        vectors: where the vectors are, if not in the folder.
        description: lines that say what of the library was taken and left out.
        stamp: a hash of the sizes and times of the library's files.
        filtered: by share, the audit of Chroma's own search among labels that have about that share of the rows; None
            where no labels have it. Empty in older indexes.
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
        for what, wanted in {"config": config, "split": split, "revision": revision}.items():
            if wanted is not None and (its := getattr(made, what)) != wanted:
                return f"it was made from the {what} {its}, not {wanted}."
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
            text = read_json(path)
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


def check_names(folder: Path, manifest: Manifest) -> None:
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


def read_json(path: Path) -> bytes:
    """Reads a JSON file. Raises ValueError if it is far too large."""
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path.name} has more than {MAX_JSON / 2**20:.0f} MB")
    return path.read_bytes()
