"""What several commands share: options, an opened index, a progress bar."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.errors import ImgretError
from imgret.progress import Progress

if TYPE_CHECKING:
    from imgret.library import ImageLibrary

Commands = Any
"""The subparsers of the command line; argparse has no public name for them."""


def add_source_options(command: argparse.ArgumentParser) -> None:
    """Which part of a library is taken, and how its pictures are compared."""
    command.add_argument("--config", metavar="C", help="the config of a data set, if it has more than one")
    command.add_argument("--split", metavar="S", help="the split of a data set; train by default")
    command.add_argument("--revision", metavar="R", help="the branch, tag or commit of a data set")
    command.add_argument("--limit", metavar="N", type=int, help="only the first N pictures")
    command.add_argument(
        "--pixel-size",
        metavar="S",
        type=int,
        default=64,
        help="side of the squares that the pixel metrics compare, 64 by default",
    )


def add_repo_options(command: argparse.ArgumentParser) -> None:
    """How a repo on the Hub is created."""
    command.add_argument("--private", action="store_true", help="what is created is for its owner only")
    command.add_argument("--license", metavar="ID", help="of the pictures; a data set's own by default")


def add_encoder_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("--encoder", metavar="URI", help="refuse an index that was built with another encoder")


def open_retriever(folder: str, encoder: str | None = None) -> Any:
    """The retriever of the index in `folder`. Raises ImgretError, also if it was built with another encoder."""
    from imgret.encoders import uri_of
    from imgret.index import Index
    from imgret.search import Retriever
    from imgret.settings import Settings
    from imgret.vectors import ChromaServer

    settings = Settings.read()
    index = Index.open(folder, ChromaServer.of(settings), cache=settings.cache)
    made_with = index.manifest.encoder.uri
    if encoder is not None and uri_of(encoder) != made_with:
        raise ImgretError(
            "The index in {folder} was built with the encoder {made_with}, not {encoder}; leave --encoder out or build "
            "one with it.",
            folder=folder,
            made_with=made_with,
            encoder=encoder,
        )
    return Retriever(index)


def escaped(text: str | None) -> str:
    """A text for one line of a table: a file's name may have line breaks in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text or "")


def size_of(bytes_: int) -> str:
    """A number of bytes for people."""
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.1f} MB"


class ProgressBar:
    """Shows progress on standard error, one tqdm bar with rate and time left for each stage."""

    def __enter__(self) -> Progress:
        self._stage = ""
        self._bar: Any = None
        return self._update

    def _update(self, stage: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if stage != self._stage or self._bar is None:
            self.__exit__()
            self._stage, self._bar = stage, tqdm(desc=stage, total=total, file=sys.stderr, leave=True, disable=None)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def read_queries(folder: str) -> "ImageLibrary":
    """The pictures of a folder to search with; its test split, if it has one."""
    from imgret.library import ImageLibrary

    if not Path(folder).exists():  # or it would be looked for on the Hub
        raise ImgretError("There is no folder {folder} with pictures to search with.", folder=folder)
    library = ImageLibrary.load(folder)
    return library.held_out or library
