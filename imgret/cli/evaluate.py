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
    command.add_argument("--json", action="store_true")
    add_encoder_check(command)


def run(options: argparse.Namespace) -> None:
    from imgret.evaluate import evaluate
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
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    print(
        f"{found.queries} queries, each against the other pictures of {len(retriever.index)}; "
        f"{found.alone} more are the only ones of their label"
    )
    rows: list[tuple[str, dict[str, float]]] = list(found.methods.items())
    width = max([12, *(len(method) + 1 for method in found.methods)])
    if rows:
        print(f"{'':<{width}}" + "".join(f"{name:>14}" for name in rows[0][1]))
    for method, figures in rows:
        print(f"{method:<{width}}" + "".join(f"{value:>14.4f}" for value in figures.values()))
    if found.captions:
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in found.captions.items())
        print(f"caption to picture: {recalls}, by {found.caption_queries} captions")
    for language, figures in found.captions_by_language.items():
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"caption in {language} to picture: {recalls}")
