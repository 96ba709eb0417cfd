"""`imgret duplicates`: lists the equal and the nearly equal pictures of an index."""

import argparse
import json

from imgret.cli.shared import Commands, ProgressBar, open_retriever


def add(commands: Commands) -> None:
    command = commands.add_parser("duplicates", help="list the equal and the nearly equal pictures of an index")
    command.set_defaults(run=run)
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("--json", action="store_true", help='print {"groups": [{"kind", "ids"}]}')
    command.add_argument("--mirrored", action="store_true", help="take mirror images for equal, too; looks anew")


def run(options: argparse.Namespace) -> None:
    from imgret.duplicates import duplicates_of, find_duplicates

    index = open_retriever(options.folder).index
    if options.mirrored or index.duplicates is None:
        with ProgressBar() as progress:
            groups = find_duplicates(
                index, mirrored=options.mirrored, progress=lambda done, total: progress("duplicates", done, total)
            )
    else:
        groups = duplicates_of(index)
    if options.json:
        print(json.dumps({"groups": [group.as_dict() for group in groups]}, ensure_ascii=False))
        return
    print("\n\n".join("\n".join([f"{group.kind}:", *group.ids]) for group in groups) or "no duplicates")
