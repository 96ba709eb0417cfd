"""`imgret evaluate`: measures how good the answers of all five methods are."""

import argparse
import json
from dataclasses import asdict

from imgret.cli.shared import Commands, ProgressBar, add_encoder_check, open_retriever
from imgret.errors import ImgretError


def add(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="measure how good the answers of all five methods are")
    command.set_defaults(run=run)
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("--queries", metavar="N", type=int, help="a sample of N queries instead of all pictures")
    command.add_argument(
        "--method",
        dest="methods",
        metavar="M",
        action="append",
        help="measure only this method; may be repeated, and be clip-l1, clip-l2 or clip-correlation, too",
    )
    command.add_argument(
        "--held-out", metavar="FOLDER", help="search with the pictures of this folder, too: data/test, say"
    )
    command.add_argument("--json", action="store_true")
    add_encoder_check(command)


def run(options: argparse.Namespace) -> None:
    from imgret.evaluate import evaluate, evaluate_held_out
    from imgret.library import ImageLibrary
    from imgret.search import EMBEDDING_METHODS, METHODS

    known = (*METHODS, *EMBEDDING_METHODS)
    for method in options.methods or ():
        if method not in known:
            raise ImgretError(
                "There is no method {method}; there are {methods}.", method=method, methods=", ".join(known)
            )
    retriever = open_retriever(options.folder, options.encoder)
    with ProgressBar() as progress:
        found = evaluate(retriever, options.queries, progress, options.methods or METHODS)
    held_out = None
    if options.held_out is not None:
        library = ImageLibrary.load(options.held_out)
        with ProgressBar() as progress:
            held_out = evaluate_held_out(retriever, library, progress, options.methods or METHODS)
    if options.json:
        extra = {} if held_out is None else {"held_out": asdict(held_out)}
        print(json.dumps(asdict(found) | extra, ensure_ascii=False))
        return
    print(
        f"{found.queries} queries, each against the other pictures of {len(retriever.index)}; "
        f"{found.alone} more are the only ones of their label"
    )
    _print_table(found.methods)
    if found.captions:
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in found.captions.items())
        print(f"caption to picture: {recalls}, by {found.caption_queries} captions")
    for language, figures in found.captions_by_language.items():
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"caption in {language} to picture: {recalls}")
    if held_out is not None:
        print(f"{held_out.queries} queries from {options.held_out}; {held_out.unknown} more have no label of the index")
        _print_table(held_out.methods)


def _print_table(methods: dict[str, dict[str, float]]) -> None:
    rows = list(methods.items())
    width = max([12, *(len(method) + 1 for method in methods)])
    if rows:
        print(f"{'':<{width}}" + "".join(f"{name:>14}" for name in rows[0][1]))
    for method, figures in rows:
        print(f"{method:<{width}}" + "".join(f"{value:>14.4f}" for value in figures.values()))
