"""`imgret build`: makes the index of a library."""

import argparse
import sys

from imgret.cli.shared import Commands, ProgressBar, add_source_options, escaped, read_queries
from imgret.errors import ImgretError

COLUMNS = ("image_column", "label_column", "caption_column")


def add(commands: Commands) -> None:
    command = commands.add_parser("build", help="make the index of a library")
    command.set_defaults(run=run)
    command.add_argument(
        "source", metavar="SOURCE", help="a folder of pictures, a parquet file, or a Hugging Face data set's id"
    )
    command.add_argument(
        "--out", metavar="FOLDER", required=True, help="the index folder; an index that is there is brought up to date"
    )
    command.add_argument(
        "--encoder",
        metavar="URI",
        default="starter",
        help="a short name, see imgret encoders (starter by default), or hf-hub:org/name, ViT-B-32/laion2b_s34b_b79k",
    )
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the encoder runs")
    command.add_argument(
        "--engine", choices=["threads", "ray"], default="threads", help="what decodes and embeds: this process, or Ray"
    )
    command.add_argument(
        "--address", metavar="A", help="the Ray cluster: host:port or auto; without it Ray runs on this machine alone"
    )
    command.add_argument(
        "--queries",
        metavar="FOLDER",
        help="pictures to measure with that are not in the library; its own test split by default",
    )
    for column in COLUMNS:
        command.add_argument(f"--{column.replace('_', '-')}", metavar="C")
    add_source_options(command)


def run(options: argparse.Namespace) -> None:
    from imgret.build import build_index
    from imgret.build.ray import on_ray
    from imgret.encoders import load_encoder
    from imgret.library import ImageLibrary
    from imgret.settings import Settings
    from imgret.vectors import ChromaServer

    if options.address is not None and options.engine != "ray":
        raise ImgretError("An address is that of a Ray cluster, so it needs --engine ray.")
    settings = Settings.read()
    named = {name: getattr(options, name) for name in ("config", *COLUMNS)}
    library = ImageLibrary.load(options.source, options.split, options.revision, limit=options.limit, **named)
    queries = None if options.queries is None else read_queries(options.queries)
    at_once = sys.stdout.isatty()  # else with the result, so that a build that fails prints nothing but its error
    if at_once:
        print(*library.description.lines, sep="\n", flush=True)
    on_cpu = options.device == "cpu"
    with ProgressBar() as progress:
        index = build_index(
            library,
            options.out,
            options.encoder if on_cpu else load_encoder(options.encoder, device=options.device),
            options.pixel_size,
            progress=progress,
            cache=settings.cache,
            engine=on_ray(options.address) if options.engine == "ray" else None,
            chroma=ChromaServer.of(settings),
            queries=queries,
        )
    manifest, recall = index.manifest, index.manifest.recall
    if not at_once:
        print(*manifest.description, sep="\n")
    print(
        f"{options.out}: {len(index)} pictures, {len(manifest.labels)} labels, {manifest.skipped_count} skipped; "
        f"encoder {manifest.encoder.uri}; recall@{recall.k} {recall.recall:.4f} with ef_search {recall.ef_search}"
    )
    if (figures := (index.evaluation or {}).get("held_out")) is not None:
        print(f"held out: {figures['queries']} queries; {figures['unknown']} more have no label of the library")
    elif index.held_out:
        print("held out: no picture has a label of the library, so the answers to them were not measured")
    for name, reason in manifest.skipped[:5]:
        print(f"skipped {escaped(name)}: {reason}", file=sys.stderr)
    index.close()
