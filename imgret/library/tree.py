"""Lists the files below a folder: pictures, tables, texts beside pictures, and what is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from imgret.images.decode import picture_suffixes
from imgret.library.metadata import METADATA
from imgret.library.records import counted

TABLES = {".parquet": "parquet", ".tar": "webdataset", ".arrow": "arrow"}
"""Files that hold pictures themselves, and what reads them in `datasets`."""

ARCHIVES = (".zip", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz")
_OF_THE_SYSTEM = {"@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
_SAID_AT_MOST = 8


@dataclass
class Tree:
    """The files below a folder: names relative to `root`, with slashes, a folder's files before its folders.

    Hidden files and folders are left out, as `datasets` leaves them out. Links to folders inside are followed.

    Attributes:
        root: the folder, resolved.
        links: the pictures that are links themselves.
        outside: all links that lead out of the folder.
        texts: the names of .txt files, without that ending.
        other: how many files there are of all other kinds, by ending.
    """

    root: Path
    pictures: list[str] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    other: Counter[str] = field(default_factory=Counter)

    @property
    def left_out(self) -> list[str]:
        """What is in the folder and not read, in words."""
        found = [counted(number, what) for what, number in self.other.most_common(_SAID_AT_MOST)]
        rest = sum(number for _, number in self.other.most_common()[_SAID_AT_MOST:])
        links = [f"{counted(len(self.outside), 'link to outside')} ({self.outside[0]})"] if self.outside else []
        return [*links, *found, *([counted(rest, "other file")] if rest else [])]


def scan(folder: Path) -> Tree:
    """All that is below `folder`; no file is opened."""
    tree = Tree(Path(os.path.realpath(folder)))
    suffixes = picture_suffixes()
    linked: set[str] = set()
    waiting = [("", str(tree.root))]
    while waiting:
        prefix, path = waiting.pop()
        folders = []
        for entry in _sorted(path, tree):
            name = prefix + entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:  # a loop of links
                is_folder = False
            hidden = entry.name.startswith(".") or entry.name.lower() in _OF_THE_SYSTEM
            if hidden or (is_folder and entry.name.startswith("__")):
                tree.other["item hidden or of the system"] += 1
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            target = path
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                inside = Path(target).is_relative_to(tree.root)
                if not inside and (is_folder or suffix in suffixes):
                    tree.outside.append(name)
                if is_folder and (not inside or target in linked or _above(target, path)):
                    tree.other["link to a folder that is read already"] += inside
                    continue
                linked.add(target)
                if not is_folder and suffix in suffixes:
                    tree.links.add(name)
                elif not inside:
                    continue
            if is_folder:
                folders.append((name + "/", target if entry.is_symlink() else entry.path))
            elif suffix in suffixes:
                tree.pictures.append(name)
            elif entry.name.lower() in METADATA:
                tree.metadata.append(name)
            elif suffix in TABLES:
                tree.tables.append(name)
            elif suffix == ".txt":
                tree.texts.add(name[: -len(suffix)])
            else:
                tree.other[suffix or "file without an ending"] += 1
        waiting.extend(reversed(folders))
    tree.other += Counter()  # without what there is none of
    return tree


def pictures_below(folder: Path) -> Iterator[str]:
    """Names of the picture files below `folder`, relative to it, in a fixed order; hidden ones left out."""
    return iter(scan(folder).pictures)


def _sorted(path: str, tree: Tree) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        tree.other["folder that cannot be opened"] += 1
        return []


def _above(target: str, path: str) -> bool:
    return f"{path}/".startswith(f"{target}/")
