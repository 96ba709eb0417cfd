"""`imgret cache`: says what is in the cache, and clears it."""

import argparse
import shutil
from pathlib import Path

from imgret.cli.shared import Commands, size_of
from imgret.errors import ImgretError


def add(commands: Commands) -> None:
    command = commands.add_parser("cache", help="say what lies in the cache, or clear it")
    command.set_defaults(run=run)
    command.add_argument("--clear", action="store_true", help="remove all of it; what is needed is made again")


def run(options: argparse.Namespace) -> None:
    from imgret.settings import Settings

    cache = Settings.read().cache
    kept = sorted(cache.iterdir()) if cache.is_dir() else []
    for path in kept:
        print(f"{size_of(_size(path)):>10}  {path.name}")
    print(f"{size_of(sum(map(_size, kept))):>10}  in {cache}")
    if options.clear:
        for path in kept:
            _remove(path)
        print("cleared")


def _size(path: Path) -> int:
    """The bytes of a file or folder; links into other folders count as nothing."""
    paths = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in paths if each.is_file() and not each.is_symlink())


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ImgretError(
            "{path} cannot be removed ({error}); end what uses it and clear the cache again.", path=path, error=error
        ) from error
