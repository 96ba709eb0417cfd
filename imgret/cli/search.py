"""`imgret search`: finds the pictures of an index that are similar to a picture, a text, or both."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.calibration import ALPHA
from imgret.cli.shared import Commands, add_encoder_check, escaped, open_retriever
from imgret.errors import ImgretError
from imgret.metrics import METRICS

if TYPE_CHECKING:
    from imgret.search import Hit, Retriever, SearchResult

K = 10
COLUMNS = ("rank", "score", "id", "label", "caption")


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "search", help="find the pictures of an index that are similar to a picture, a text, or both"
    )
    command.set_defaults(run=run)
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("--image", metavar="FILE", help="the query picture")
    command.add_argument("--also", metavar="FILE", action="append", help="another query picture; may be repeated")
    command.add_argument(
        "--not-image", metavar="FILE", action="append", help="a picture that hits should not be like; may be repeated"
    )
    command.add_argument("--like", metavar="ID", help="a picture of the index as the query; it is no hit itself")
    command.add_argument(
        "--also-like", metavar="ID", action="append", help="another picture of the index as a query; may be repeated"
    )
    command.add_argument(
        "--unlike", metavar="ID", action="append", help="one that hits should not be like; may be repeated"
    )
    command.add_argument("--images", metavar="QUERIES", help="a folder of query pictures, each searched by itself")
    command.add_argument("--text", metavar="TEXT", help="the query in words; beside a picture, both count")
    command.add_argument("--not", dest="negative", metavar="TEXT", help="what the hits should not show")
    command.add_argument(
        "--weight", metavar="W", type=float, default=0.5, help="of the text beside a picture: 0 to 1, 0.5 by default"
    )
    command.add_argument(
        "--label", dest="labels", metavar="L", action="append", help="only pictures with this label; may be repeated"
    )
    command.add_argument("--part", metavar="L,T,R,B", default="", help="a part of --image: four fractions from 0 to 1")
    command.add_argument(
        "--metric",
        choices=[*METRICS, "clip", *(f"clip-{metric}" for metric in METRICS if metric != "cosine")],
        help="l2 by default for a picture alone, else clip; clip-l1, say, is L1 on the embeddings",
    )
    command.add_argument("-k", metavar="K", type=int, help=f"how many, {K} by default")
    command.add_argument("--offset", metavar="N", type=int, default=0, help="leave out the N best hits")
    command.add_argument(
        "--fold", action="store_true", help="one hit for equal and nearly equal pictures, with a number"
    )
    command.add_argument(
        "--only-matches", action="store_true", help="leave out the hits that a query without a match would find as well"
    )
    command.add_argument(
        "--alpha", metavar="A", type=float, help="the share of such queries that may be given a match, 0.1 by default"
    )
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help='print {"hits": [...]}, as the endpoints answer')
    form.add_argument("--csv", action="store_true", help="print comma-separated values with a header")
    command.add_argument("--save", metavar="FILE", help="write the hits as one picture, grid.webp say")
    command.add_argument("--open", action="store_true", help="show the hits as one picture")
    add_encoder_check(command)


def run(options: argparse.Namespace) -> None:
    several = options.images is not None
    if several and (options.image or options.like or options.part or options.save or options.open):
        raise ImgretError(
            "--images takes each picture of a folder by itself, so it goes without --image, --like, "
            "--part, --save and --open."
        )
    if options.alpha is None:
        options.alpha = ALPHA
    elif not options.only_matches:
        raise ImgretError("--alpha says which hits are matches, so it needs --only-matches.")
    if not 0 < options.alpha < 1:
        raise ImgretError("Alpha is {alpha:g}; it must be between 0 and 1.", alpha=options.alpha)
    if options.save:
        _check_name(options.save)
    retriever = open_retriever(options.folder, options.encoder)
    found = [(query, _search(retriever, options, query)) for query in _queries(options)]
    if options.json:
        answers = [{"query": query, "hits": [hit.as_dict() for hit in hits]} for query, hits in found]
        answer: dict[str, Any] = {"queries": answers} if several else {"hits": answers[0]["hits"]}
        print(json.dumps(answer, ensure_ascii=False))
    elif options.csv:
        print(_as_csv(found, several, options.fold), end="")
    else:
        for query, hits in found:
            _print_table(hits, f"{query}:" if several else None)
    if options.save or options.open:
        from imgret.cli.grid import grid_of

        grid = grid_of(retriever, found[0][1])
        if options.save:
            _save(grid, options.save)
        if options.open:
            grid.show(title="imgret")
    retriever.index.close()


def _queries(options: argparse.Namespace) -> Iterator[str | None]:
    """The files of the query pictures; None for a query without one."""
    if options.images is None:
        yield options.image
        return
    from imgret.library import pictures_below

    folder = Path(options.images)
    paths = [str(folder / name) for name in pictures_below(folder)] if folder.is_dir() else []
    if not paths:
        raise ImgretError("There are no pictures in {folder} to search with.", folder=options.images)
    yield from paths


def _search(retriever: "Retriever", options: argparse.Namespace, path: str | None) -> "list[Hit]":
    found = _found(retriever, options, path)
    if found.notice is not None:
        print(f"note: {found.notice}", file=sys.stderr)
    if not options.only_matches:
        return found.hits
    count = found.matches(options.alpha)
    if count is None:
        raise ImgretError(
            "Where the matches end is not known for this query; it is for one picture by l1, l2, cosine, correlation "
            "or clip, and for one text, in an index of this release."
        )
    if not count:
        print(
            f"note: no sure match: queries without a match find a hit as good as the best one in {found.hits[0].p:.0%} "
            f"of cases, and alpha is {options.alpha:g}",
            file=sys.stderr,
        )
    return found.hits[:count]


def _found(retriever: "Retriever", options: argparse.Namespace, path: str | None) -> "SearchResult":
    from imgret.search import EMBEDDING_METHODS

    pictured = any(given is not None for given in (path, options.like, options.also, options.also_like))
    avoided = options.not_image or options.unlike
    in_words = options.text is not None or options.negative is not None or options.labels is not None
    metric = options.metric or ("clip" if in_words or avoided or not pictured else "l2")
    k = min(K, len(retriever.index)) if options.k is None else options.k  # only what was asked for and is cut is told
    image: Any = path
    if options.part:
        from imgret.images import load_image
        from imgret.ui.crop import crop

        if path is None:
            raise ImgretError("--part takes a part of a picture, so it needs --image.")
        image = crop(load_image(path), options.part)
    of_both: dict[str, Any] = {"like": options.like, "likes": options.also_like, "images": options.also}
    of_both |= {"fold": options.fold, "offset": options.offset}
    if metric in EMBEDDING_METHODS or metric == "clip":
        return retriever.find_by_clip(
            image,
            options.text,
            options.negative,
            options.weight,
            options.labels,
            k,
            negative_images=options.not_image,
            dislikes=options.unlike,
            metric=EMBEDDING_METHODS.get(metric),
            **of_both,
        )
    if not pictured:
        raise ImgretError(
            "The metric {metric} compares pictures, so it needs --image or --like; a text is searched with --metric "
            "clip.",
            metric=metric,
        )
    if in_words:
        raise ImgretError(
            "The metric {metric} compares pictures alone; leave --text, --not and --label out, or take --metric clip.",
            metric=metric,
        )
    if avoided:
        raise ImgretError("--not-image and --unlike are for --metric clip.")
    return retriever.find_by_pixels(image, metric, k, **of_both)


def _print_table(hits: "list[Hit]", title: str | None) -> None:
    if title is not None:
        print(title)
    for hit in hits:
        same = f"(+{hit.duplicates})" if hit.duplicates else ""
        texts = "  ".join(map(escaped, (hit.id, hit.label, hit.caption, same)))
        print(f"{hit.rank:>3}  {hit.score:>14.6f}  {texts}".rstrip())


def _as_csv(found: "list[tuple[str | None, list[Hit]]]", several: bool, fold: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = (*COLUMNS, "duplicates") if fold else COLUMNS
    writer.writerow([*(("query",) if several else ()), *columns])
    for query, hits in found:
        for hit in hits:
            values = hit.as_dict()
            writer.writerow([*((query,) if several else ()), *(values[column] for column in columns)])
    return text.getvalue()


def _check_name(path: str) -> None:
    """Raises ImgretError for a file whose name has no format that Pillow writes."""
    from PIL import Image

    if Image.registered_extensions().get(Path(path).suffix.lower()) not in Image.SAVE:
        raise ImgretError("{path} is not the name of a picture; name a .webp, .png or .jpg file.", path=path)


def _save(grid: Any, path: str) -> None:
    try:
        grid.save(path)
    except OSError as error:
        raise ImgretError("The hits cannot be written to {path} ({error}).", path=path, error=error) from error
    print(f"wrote {path}", file=sys.stderr)
