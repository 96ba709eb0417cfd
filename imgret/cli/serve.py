"""`imgret serve`: opens the demo in a browser page."""

import argparse
import logging
import sys

from imgret.cli.shared import Commands, add_encoder_check, open_retriever


def add(commands: Commands) -> None:
    command = commands.add_parser("serve", help="open the demo in a browser page")
    command.set_defaults(run=run)
    command.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="an index; without one, what the IMGRET_ variables say"
    )
    command.add_argument("--port", metavar="P", type=int)
    command.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
    add_encoder_check(command)


def run(options: argparse.Namespace) -> None:
    from imgret.settings import Settings
    from imgret.startup import Startup, prepare_in_steps
    from imgret.ui.page import build_page, launch

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("imgret").setLevel(logging.INFO)
    settings = Settings.read()
    if options.folder is not None:  # named by the user, so an error ends the command
        open_retriever(options.folder, options.encoder).index.close()
    start = Startup(lambda progress: prepare_in_steps(settings, progress, folder=options.folder))
    watched = sys.stdout.isatty() and not options.no_browser
    launch(build_page(start, settings), start, settings, port=options.port, inbrowser=watched)
