"""`imgret prepare`: puts one's own pictures into the course's layout, without bad, tiny and repeated ones."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from imgret.cli.shared import Commands, ProgressBar, escaped


def add(commands: Commands) -> None:
    command = commands.add_parser("prepare", help="put own pictures into train and test, without bad and repeated ones")
    command.set_defaults(run=run)
    command.add_argument("source", metavar="FOLDER", help="a folder with a folder of pictures for each class")
    command.add_argument("--out", metavar="FOLDER", required=True, help="where train and test are made")
    command.add_argument(
        "--min-side", metavar="P", type=int, default=50, help="the least side in pixels, 50 by default"
    )
    command.add_argument("--test", metavar="S", type=float, default=0.05, help="the share of test, 0.05 by default")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="another number draws other test pictures")
    command.add_argument("--json", action="store_true", help="print what came of each picture")


def run(options: argparse.Namespace) -> None:
    from imgret.prepare import prepare_folder
    from imgret.settings import Settings

    with ProgressBar() as progress:
        found = prepare_folder(
            Path(options.source),
            Path(options.out),
            options.min_side,
            options.test,
            options.seed,
            cache=Settings.read().cache,
            progress=progress,
        )
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    print(f"{options.out}: {len(found.train)} pictures in train, {len(found.test)} in test")
    for what, pictures in (
        ("cannot be decoded", [f"{id} ({reason})" for id, reason in found.undecodable]),
        (f"a side below {options.min_side} pixels", found.small),
        ("a duplicate", [f"{id} (of {kept})" for id, kept in found.duplicates]),
        ("in no class folder", found.unclassed),
        ("no pictures", found.other),
    ):
        if pictures:
            shown = ", ".join(map(escaped, pictures[:5]))
            print(f"left out, {what}: {len(pictures)}: {shown}{' …' if len(pictures) > 5 else ''}")
