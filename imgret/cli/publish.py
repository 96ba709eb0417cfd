"""`imgret publish`: puts an index on the Hub."""

import argparse
from pathlib import Path

from imgret.cli.shared import Commands, add_repo_options


def add(commands: Commands) -> None:
    command = commands.add_parser("publish", help="put an index on the Hub, as a model repo with a card")
    command.set_defaults(run=run)
    command.add_argument("folder", metavar="FOLDER", help="an index")
    command.add_argument("repo", metavar="REPO", help="org/name; an index that is there is replaced")
    command.add_argument("--create", action="store_true", help="make the repo if it is not there")
    add_repo_options(command)


def run(options: argparse.Namespace) -> None:
    from imgret.hub import publish
    from imgret.hub.model_card import render_card
    from imgret.settings import Settings

    cache, folder = Settings.read().cache, Path(options.folder)
    published = publish(
        folder,
        options.repo,
        lambda: render_card(folder, options.repo, options.license, cache=cache),
        create=options.create,
        private=options.private,
    )
    what = "published" if published.changed else "unchanged, nothing was uploaded"
    print(f"{published.repo}: {what}; commit {published.commit}")
