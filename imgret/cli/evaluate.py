"""`imgret evaluate`: measures how good the answers of all five methods are."""

import argparse
import json
from dataclasses import asdict, replace

from imgret.cli.shared import Commands, ProgressBar, add_encoder_check, open_retriever, read_queries
from imgret.errors import ImgretError


def add(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="measure how good the answers of all five methods are")
    command.set_defaults(run=run)
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument(
        "--queries",
        metavar="N|FOLDER",
        action="append",
        default=[],
        help="a sample of N queries, the default for large libraries; or a folder of other pictures, such as data/test",
    )
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
    from imgret.evaluate import MAX_COMPARISONS, HeldOut, affordable_queries, evaluate, evaluate_held_out
    from imgret.search import EMBEDDING_METHODS, METHODS

    known = (*METHODS, *EMBEDDING_METHODS)
    for method in options.methods or ():
        if method not in known:
            raise ImgretError(
                "There is no method {method}; there are {methods}.", method=method, methods=", ".join(known)
            )
    numbers = [int(given) for given in options.queries if given.lstrip("-").isdecimal()]
    folders = [given for given in options.queries if not given.lstrip("-").isdecimal()]
    if len(numbers) > 1 or len(folders) > 1:
        raise ImgretError("Give --queries one number and one folder at most.")
    other = read_queries(folders[0]) if folders else None  # before the minutes of the others
    retriever = open_retriever(options.folder, options.encoder)
    asked = numbers[0] if numbers else affordable_queries(len(retriever.index), MAX_COMPARISONS)
    with ProgressBar() as progress:
        found = evaluate(retriever, asked, progress, options.methods or METHODS)
    if other is not None:
        with ProgressBar() as progress:
            held_out = evaluate_held_out(retriever, other, progress, options.methods or METHODS, asked)
        found = replace(found, held_out=held_out)
    elif (figures := (retriever.index.evaluation or {}).get("held_out")) is not None:  # as the build measured them
        wanted = {name: figures["methods"][name] for name in options.methods or METHODS if name in figures["methods"]}
        found = replace(found, held_out=HeldOut(figures["queries"], figures["unknown"], wanted))
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    drawn = ", a sample by a fixed seed" if found.queries == asked < len(retriever.index) else ""
    print(
        f"{found.queries} queries{drawn}, each against the other pictures of {len(retriever.index)}; "
        f"{found.alone} more are the only ones of their label"
    )
    _print_table(found.methods)
    if found.captions:
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in found.captions.items())
        print(f"caption to picture: {recalls}, by {found.caption_queries} captions")
    for language, figures in found.captions_by_language.items():
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"caption in {language} to picture: {recalls}")
    if found.held_out is not None:
        where = folders[0] if folders else "the held-out pictures, as the build measured them"
        print(
            f"{found.held_out.queries} queries from {where}; {found.held_out.unknown} more have no label of the index"
        )
        _print_table(found.held_out.methods)


def _print_table(methods: dict[str, dict[str, float]]) -> None:
    rows = list(methods.items())
    width = max([12, *(len(method) + 1 for method in methods)])
    if rows:
        print(f"{'':<{width}}" + "".join(f"{name:>14}" for name in rows[0][1]))
    for method, figures in rows:
        print(f"{method:<{width}}" + "".join(f"{value:>14.4f}" for value in figures.values()))
