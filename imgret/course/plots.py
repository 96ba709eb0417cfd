"""Draws a query and its five best pictures in a grid of two rows and three columns, as the course's notebook does."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, overload

from imgret.course.pictures import read_image_from_path
from imgret.errors import ImgretError, repr_short
from imgret.images import ImageSource

_HITS = 5
_ROWS, _COLUMNS = 2, 3


@overload
def plot_results(query: ImageSource, ls_path_score: Sequence[tuple[str, float]], reverse: bool) -> None: ...
@overload
def plot_results(
    image_path: ImageSource, files_path: Sequence[str | PathLike[str]], results: Mapping[str, Any]
) -> None: ...
def plot_results(*arguments: Any, **named: Any) -> None:
    """Shows the query and the five best pictures with matplotlib, each with the name of its class folder.

    The course has two functions of this name, and both forms are taken. `plot_results(query, ls_path_score, reverse)`
    draws what a `get_*_score` returned; `reverse` is False where the smallest score is the best (L1, L2) and True where
    the largest is. `plot_results(image_path, files_path, results)` draws what `search` returned for the pictures that
    `add_embedding` was given. The query is a path, or the array that a `get_*_score` returned. The best hit is called
    "Top 1"; the course's second function calls it "Top 2".

    Raises ImgretError where matplotlib is missing or the results are not of `files_path`.
    """
    of_chroma = "results" in named or (len(arguments) == 3 and isinstance(arguments[2], Mapping))
    (_plot_found if of_chroma else _plot_ranking)(*arguments, **named)


def _plot_ranking(query: ImageSource, ls_path_score: Sequence[tuple[str, float]], reverse: bool) -> None:
    best = sorted(ls_path_score, key=lambda path_score: path_score[1], reverse=reverse)[:_HITS]
    _plot(query, [path for path, _ in best])


def _plot_found(image_path: ImageSource, files_path: Sequence[str | PathLike[str]], results: Mapping[str, Any]) -> None:
    _plot(image_path, [_path_of(id, files_path) for id in results["ids"][0][:_HITS]])


def _path_of(id: str, files_path: Sequence[str | PathLike[str]]) -> str | PathLike[str]:
    number = id.removeprefix("id_")
    if not number.isdecimal() or int(number) >= len(files_path):
        raise ImgretError(
            "The result {id} is none of the {count} files; give the files that add_embedding was given.",
            id=repr_short(id),
            count=len(files_path),
        )
    return files_path[int(number)]


def _plot(query: ImageSource, hits: Sequence[str | PathLike[str]]) -> None:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImgretError(
            "Drawing the results needs matplotlib ({error}): pip install 'imgret[course]'.", error=error
        ) from None
    figure, axes = pyplot.subplots(_ROWS, _COLUMNS, figsize=(12, 8))
    for place in axes.flat:
        place.axis("off")
    titles = [f"Query: {_class_of(query)}" if isinstance(query, str | PathLike) else "Query"]
    titles += [f"Top {rank}: {_class_of(path)}" for rank, path in enumerate(hits, 1)]
    for place, picture, title in zip(axes.flat, [query, *hits], titles, strict=False):
        place.imshow(read_image_from_path(picture))
        place.set_title(title)
    figure.tight_layout()
    pyplot.show()


def _class_of(path: str | PathLike[str]) -> str:
    return Path(path).parent.name
