"""`imgret deploy`: makes a Hugging Face Space that serves a library."""

import argparse

from imgret.cli.shared import Commands, ProgressBar, add_repo_options, add_source_options


def add(commands: Commands) -> None:
    command = commands.add_parser("deploy", help="make a Hugging Face Space that serves a library")
    command.set_defaults(run=run)
    command.add_argument("space", metavar="SPACE", help="org/name; one that is there is brought up to date")
    command.add_argument("--library", metavar="SOURCE", required=True, help="as for build")
    command.add_argument("--encoder", metavar="URI", help="as for build; the default is that of a Space")
    command.add_argument("--index", metavar="REPO", help="where its index is published; SPACE-index by default")
    command.add_argument(
        "--hardware",
        metavar="H",
        help="what the Space runs on: cpu-basic (a new one's default), zero-a10g, cpu-upgrade, ...",
    )
    command.add_argument(
        "--store-token",
        action="store_true",
        help="store your token as the Space's secret HF_TOKEN, so that it can read a private index",
    )
    command.add_argument("--dry-run", action="store_true", help="only say what would be done")
    add_repo_options(command)
    add_source_options(command)


def run(options: argparse.Namespace) -> None:
    from imgret.hub.space import SpaceSpec, deploy
    from imgret.library import ImageLibrary
    from imgret.settings import SPACE_ENCODER, Settings
    from imgret.startup import built_folder

    encoder = options.encoder or SPACE_ENCODER
    part = {name: getattr(options, name) for name in ("config", "split", "revision", "limit")}
    settings = Settings.read().model_copy(
        update=part | {"library": options.library, "encoder": encoder, "pixel_size": options.pixel_size}
    )
    spec = SpaceSpec(
        space=options.space,
        index=options.index or f"{options.space}-index",
        library=ImageLibrary.load(options.library, **part),
        revision=options.revision,
        encoder=encoder,
        pixel_size=options.pixel_size,
        folder=built_folder(settings),
        hardware=options.hardware,
        private=options.private,
        store_token=options.store_token,
        license=options.license,
        cache=settings.cache,
    )
    with ProgressBar() as progress:
        deploy(spec, dry_run=options.dry_run, progress=progress)
