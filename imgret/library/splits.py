"""Finds the splits of a listing: folders or files called train, validation or test, under any usual name and case."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from imgret.library.records import LibraryError, counted

KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {keyword: split for split, keywords in KEYWORDS.items() for keyword in keywords}
_AMONG_OTHERS = re.compile(rf"(?:.*[-._ 0-9])?({'|'.join(_SPLIT_OF)})(?:[-._ 0-9].*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Chosen:
    """The `names` of one split; all names where there are no splits.

    `at` is the depth of the folders that are splits, None if no folders are. `others` says how many pictures each other
    split has. `splits` names all of them.
    """

    split: str | None
    names: Sequence[str]
    at: int | None = None
    others: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


def split_of(name: str) -> str | None:
    """The split that a folder or file name stands for: train-images and val2017 do, too."""
    found = _AMONG_OTHERS.fullmatch(name)
    return _SPLIT_OF[found[1].lower()] if found else None


def pick(splits: Collection[str], wanted: str | None, where: str) -> str:
    """`wanted` by any of its names, else train, else the first. Raises LibraryError if there is none."""
    name = "train" if wanted is None else wanted
    for form in (str, str.lower, lambda split: _SPLIT_OF.get(split.lower(), split)):
        found = next((split for split in splits if form(split) == form(name)), None)
        if found is not None:
            return found
    if wanted is None:
        return next(iter(splits))
    raise LibraryError(
        "{where} has no split {wanted!r}; it has {splits}.", where=where, wanted=wanted, splits=", ".join(splits)
    )


def without_splits(where: str, wanted: str) -> LibraryError:
    """The error for a split of something that has none."""
    return LibraryError(
        "{where} has no splits, so {wanted!r} cannot be taken from it; leave the split out.", where=where, wanted=wanted
    )


def choose_split(names: Sequence[str], wanted: str | None, where: str) -> Chosen:
    """The names, paths in a folder, that are of the split `wanted`, or of train where none is wanted.

    Folders are splits if at their depth there are no others; so are files, if all are named after more than one split.
    Raises LibraryError.
    """
    folders = [folder.split("/") for folder in {name.rpartition("/")[0] for name in names} if folder]
    loose = any("/" not in name for name in names)
    depths = range(max(map(len, folders), default=0))
    beside = [{folder[depth] for folder in folders if len(folder) > depth} for depth in depths]
    looks = sorted(name for name in (beside[0] if beside else ()) if name.lower() in _SPLIT_OF)
    for depth, there in enumerate(beside):
        if all(map(split_of, there)) and len(set(map(split_of, there))) > 1:
            return _chosen(names, {name: split_of(name) or "" for name in there}, depth, wanted, where)
    for depth, there in enumerate(beside):  # one alone must be named exactly so, and hold everything
        covers = not loose and all(len(folder) > depth for folder in folders)
        if covers and all(name.lower() in _SPLIT_OF for name in there):
            return _chosen(names, {name: split_of(name) or "" for name in there}, depth, wanted, where)
    if wanted is not None and looks:
        return _chosen(names, {name: _SPLIT_OF[name.lower()] for name in looks}, 0, wanted, where)
    if not looks and all(split_of(_stem(name)) for name in names):
        found = {_stem(name): split_of(_stem(name)) or "" for name in names}
        if len(set(found.values())) > 1:
            return _chosen(names, found, None, wanted, where)
    if wanted is not None:
        raise without_splits(where, wanted)
    warning = (
        f"{', '.join(looks)} look like splits and are taken as labels, as there are others beside; --split decides"
    )
    return Chosen(None, names, warnings=(warning,) if looks else ())


def _chosen(names: Sequence[str], split_by: dict[str, str], at: int | None, wanted: str | None, where: str) -> Chosen:
    def of(name: str) -> str | None:
        parts = name.split("/")
        part = _stem(name) if at is None else parts[at] if len(parts) > at + 1 else ""
        return split_by.get(part)

    splits = [split for split in KEYWORDS if split in split_by.values()]
    split = pick(splits, wanted, where)
    by_split: dict[str | None, list[str]] = {None: []}
    for name in names:
        by_split.setdefault(of(name), []).append(name)
    others = [
        f"split {other} ({counted(len(there), 'picture')})"
        for other in splits
        if other != split and (there := by_split.get(other))
    ]
    rest = [counted(len(by_split[None]), "picture in no split")] if by_split[None] else []
    return Chosen(wanted or split, by_split.get(split, []), at, (*others, *rest), splits=tuple(splits))


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def common_folder(names: Iterable[str], depth: int) -> str:
    """The folder of so many levels that holds all names, with a slash at its end; "" where there is none."""
    found = {"/".join(name.split("/")[:depth]) for name in names}
    return found.pop() + "/" if len(found) == 1 and depth else ""
