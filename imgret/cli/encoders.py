"""`imgret encoders`: lists the encoders that have short names."""

import argparse
import json
from dataclasses import asdict

from imgret.cli.shared import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("encoders", help="list the encoders that have short names")
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true")


def run(options: argparse.Namespace) -> None:
    from imgret.encoders import CATALOG

    if options.json:
        print(json.dumps([asdict(known) for known in CATALOG], ensure_ascii=False))
        return
    for known in CATALOG:
        languages = "about a hundred languages" if known.languages == ("*",) else ", ".join(known.languages)
        print(f"{known.name:<14}{languages}; {known.megabytes} MB; needs {known.needs}\n{'':<14}{known.about}")
        if known.uri != known.name:
            print(f"{'':<14}{known.uri}")
