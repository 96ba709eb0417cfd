"""Puts one's own pictures into the course's layout: train and test, class folders, no bad, tiny or repeated ones."""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgret.build import build_index
from imgret.duplicates import find_duplicates
from imgret.errors import ImgretError
from imgret.files.tempdir import TempFolder
from imgret.library import ImageLibrary
from imgret.library.records import Annotations, Description, Entry, Reader, printable, within
from imgret.library.splits import KEYWORDS
from imgret.library.tree import Tree, scan
from imgret.progress import Progress, no_progress


class PrepareError(ImgretError):
    """Pictures that cannot be put into the layout; the text says why."""


@dataclass(frozen=True)
class Prepared:
    """What came of the pictures of a folder, each by its path below the folder, in order.

    `train` and `test` were copied; the others were left out: `undecodable` with the reason, `small` ones with a side
    below the least, `unclassed` ones in no class folder, and `duplicates` with the picture that they repeat and that
    was kept. `other` says which files are no pictures: tables and texts say nothing here, as the folder is the class.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    undecodable: tuple[tuple[str, str], ...]
    small: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    unclassed: tuple[str, ...]
    other: tuple[str, ...]


class _Files(Reader):
    """All pictures below a folder by their own names, whatever its tables and splits say; the label is the folder."""

    numbered = False
    split = revision = None

    def __init__(self, tree: Tree) -> None:
        self._tree, self._names, self.count = tree, tree.pictures, len(tree.pictures)
        self.description = Description("all files", "folders")

    def __iter__(self) -> Iterator[Entry]:
        for name in self._names:
            place = within(self._tree.root, name) if name in self._tree.links else self._tree.root / name
            yield Entry.of(printable(name), Annotations((name.rpartition("/")[0] or ".",)), place)

    def part(self, rows: slice) -> "_Files":
        return self.like(_names=self._names[rows])


def prepare_folder(
    source: Path,
    out: Path,
    min_side: int = 50,
    test: float = 0.05,
    seed: int = 0,
    *,
    cache: Path,
    progress: Progress = no_progress,
) -> Prepared:
    """Copies the pictures of the class folders in `source` to `out`/train/CLASS and `out`/test/CLASS, unchanged.

    Left out are files that cannot be decoded, pictures with a side below `min_side` pixels, those in no class folder,
    and of (nearly) equal pictures all but the first. Of each class the share `test` goes to test, rounded, but at least
    one of 1 / `test` or more, and never all. Which ones depends on `seed` and their paths only. `source` is not
    changed; `out` is there whole or not at all. Raises PrepareError, LibraryError.
    """
    if not 0 <= test < 1:
        raise PrepareError("The share of the test pictures is {share}; it must be from 0 to below 1.", share=test)
    if min_side < 0:
        raise PrepareError("The least side is {side} pixels; it must be at least 0.", side=min_side)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PrepareError("{out} is there already; name a new or an empty folder.", out=out)
    if out.resolve().is_relative_to(source.resolve()):
        raise PrepareError(
            "{out} lies in {source}, which is not to be changed; name a folder elsewhere.", out=out, source=source
        )
    tree = scan(source)
    if not tree.pictures:
        raise PrepareError("There are no pictures in {source}; name a folder with class folders.", source=source)
    for first, rest in (name.split("/", 1) for name in tree.pictures if name.count("/") > 1):
        if any(first.lower() in names for names in KEYWORDS.values()):
            raise PrepareError(
                "{source} is split already: {name} lies in {split}. Name {path} to prepare that part, or move its "
                "class folders out of it.",
                source=source, name=repr(rest), split=repr(first), path=source / first,
            )  # fmt: skip
    library = ImageLibrary(str(source), _Files(tree))
    temp = TempFolder(cache, "prepare")
    try:
        index = build_index(library, temp.folder / "index", "starter", 32, cache=cache, progress=progress)
        records = [index.record(row) for row in range(len(index))]
        undecodable = index.manifest.skipped
        repeats = {id: group.ids[0] for group in find_duplicates(index) for id in group.ids[1:]}
        index.close()
    finally:
        temp.close()
    small = tuple(record.id for record in records if min(record.width, record.height) < min_side)
    unclassed = tuple(record.id for record in records if "/" not in record.id)
    left_out = {*small, *unclassed}
    # Of a group whose first picture is left out for another reason, the next one stays.
    kept_of: dict[str, str] = {}
    duplicates = []
    classes: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record.id in left_out:
            continue
        group = repeats.get(record.id, record.id)
        if group in kept_of:
            duplicates.append((record.id, kept_of[group]))
            continue
        kept_of[group] = record.id
        classes[record.id.rpartition("/")[0]].append(record.id)
    if not classes:
        raise PrepareError("No picture of {source} is left; pictures lie in class folders.", source=source)
    chosen = {id for ids in classes.values() for id in _drawn(ids, test, seed)}
    every = [id for ids in classes.values() for id in ids]
    found = Prepared(
        tuple(id for id in every if id not in chosen),
        tuple(id for id in every if id in chosen),
        undecodable,
        small,
        tuple(duplicates),
        unclassed,
        (*tree.metadata, *tree.tables, *(f"{name}.txt" for name in sorted(tree.texts)), *tree.left_out),
    )
    _copy({printable(name): tree.root / name for name in tree.pictures}, out, found)
    return found


def _drawn(ids: list[str], share: float, seed: int) -> list[str]:
    """The test pictures of a class."""
    count = min(max(round(share * len(ids)), int(share > 0 and len(ids) >= 1 / share)), len(ids) - 1)
    return sorted(ids, key=lambda id: hashlib.sha256(f"{seed}:{id}".encode()).digest())[:count]


def _copy(places: dict[str, Path], out: Path, found: Prepared) -> None:
    draft = out.with_name(f".{out.name}-draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for part, ids in (("train", found.train), ("test", found.test)):
            (draft / part).mkdir(parents=True)
            for id in ids:
                place = draft / part / id
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(places[id], place)
        if out.exists():
            out.rmdir()
        draft.replace(out)
    except OSError as error:
        raise PrepareError("The pictures cannot be written to {out} ({reason}).", out=out, reason=error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
