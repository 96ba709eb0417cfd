"""The command line, a function a command. Exit code 0, or 2 with one line on standard error."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imgret
from imgret.metrics import METRICS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. A `ValueError`, which a user can cause, becomes one line on standard error and exit code 2."""
    options = _parser().parse_args(arguments)
    # Libraries log what they then raise, and one line for an error is enough. Without a handler they would add one.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        options.run(options)
        sys.stdout.flush()
    except ValueError as error:
        print(f"imgret: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("imgret: stopped", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="imgret", description="Find the similar pictures of a library.")
    parser.add_argument("--version", action="version", version=f"imgret {imgret.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="make the index of a library")
    build.set_defaults(run=_build)
    build.add_argument(
        "source", metavar="SOURCE", help="a folder of pictures, a parquet file, or a Hugging Face data set's id"
    )
    build.add_argument(
        "--out", metavar="FOLDER", required=True, help="the index folder; an index that is there is brought up to date"
    )
    build.add_argument(
        "--encoder",
        metavar="URI",
        default="starter",
        help='such as "starter" (the default), "hf-hub:org/name", "ViT-B-32/laion2b_s34b_b79k"',
    )
    build.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the encoder runs")
    build.add_argument(
        "--engine", choices=["threads", "ray"], default="threads", help="what decodes and embeds: this process, or Ray"
    )
    build.add_argument(
        "--address",
        metavar="A",
        help="the Ray cluster: host:port or auto; without it Ray runs on this machine alone",
    )
    build.add_argument(
        "--prune",
        action="store_true",
        help="drop the collections that earlier builds in FOLDER wrote on the Chroma server (IMGRET_CHROMA_URL)",
    )
    build.add_argument("--image-column", metavar="C")
    build.add_argument("--label-column", metavar="C")
    build.add_argument("--caption-column", metavar="C")

    search = commands.add_parser("search", help="find the pictures of an index that are similar to a picture or a text")
    search.set_defaults(run=_search)
    search.add_argument("folder", metavar="FOLDER")
    query = search.add_mutually_exclusive_group(required=True)
    query.add_argument("--image", metavar="FILE")
    query.add_argument("--text", metavar="TEXT")
    search.add_argument("--metric", choices=[*METRICS, "clip"], help="l2 by default for a picture, clip for a text")
    search.add_argument("-k", metavar="K", type=int, default=10, help="how many, 10 by default")
    search.add_argument("--json", action="store_true")

    evaluate = commands.add_parser("evaluate", help="measure how good the answers of all five methods are")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("folder", metavar="FOLDER")
    evaluate.add_argument("--queries", metavar="N", type=int, help="a sample of N queries instead of all pictures")
    evaluate.add_argument("--json", action="store_true")

    publish = commands.add_parser("publish", help="put an index on the Hub, as a model repo with a card")
    publish.set_defaults(run=_publish)
    publish.add_argument("folder", metavar="FOLDER", help="an index")
    publish.add_argument("repo", metavar="REPO", help="org/name; an index that is there is replaced")
    publish.add_argument("--create", action="store_true", help="make the repo if it is not there")

    deploy = commands.add_parser("deploy", help="make a Hugging Face Space that serves a library")
    deploy.set_defaults(run=_deploy)
    deploy.add_argument("space", metavar="SPACE", help="org/name; one that is there is brought up to date")
    deploy.add_argument("--library", metavar="SOURCE", required=True, help="as for build")
    deploy.add_argument("--encoder", metavar="URI", help="as for build; the default is that of a Space")
    deploy.add_argument("--index", metavar="REPO", help="where its index is published; SPACE-index by default")
    deploy.add_argument(
        "--hardware",
        metavar="H",
        help="what the Space runs on: cpu-basic (a new one's default), zero-a10g, cpu-upgrade, ...",
    )
    deploy.add_argument(
        "--store-token",
        action="store_true",
        help="store your token as the Space's secret HF_TOKEN, so that it can read a private index",
    )
    deploy.add_argument("--dry-run", action="store_true", help="only say what would be done")

    for command in (publish, deploy):
        command.add_argument("--private", action="store_true", help="what is created is for its owner only")
        command.add_argument("--license", metavar="ID", help="of the pictures; a data set's own by default")
    for command in (build, deploy):
        command.add_argument("--config", metavar="C", help="the config of a data set, if it has more than one")
        command.add_argument("--split", metavar="S", help="the split of a data set; train by default")
        command.add_argument("--revision", metavar="R", help="the branch, tag or commit of a data set")
        command.add_argument("--limit", metavar="N", type=int, help="only the first N pictures")
        command.add_argument(
            "--pixel-size",
            metavar="S",
            type=int,
            default=64,
            help="side of the squares that the pixel metrics compare, 64 by default",
        )

    serve = commands.add_parser("serve", help="open the demo in a browser page")
    serve.set_defaults(run=_serve)
    serve.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="an index; without one, what the IMGRET_ variables say"
    )
    serve.add_argument("--port", metavar="P", type=int)

    for command in (search, evaluate, serve):
        command.add_argument("--encoder", metavar="URI", help="refuse an index that was built with another encoder")
    return parser


def _build(options: argparse.Namespace) -> None:
    from imgret.build import build_index
    from imgret.build.ray import on_ray
    from imgret.encoders import load_encoder
    from imgret.library import ImageLibrary
    from imgret.settings import Settings
    from imgret.vectors import ChromaServer

    if options.address is not None and options.engine != "ray":
        raise ValueError("An address is that of a Ray cluster, so it needs --engine ray.")
    engine = on_ray(options.address) if options.engine == "ray" else None
    settings = Settings.read()
    cache, chroma = settings.cache, ChromaServer.of(settings)
    if options.prune and chroma is None:
        raise ValueError("--prune drops collections on a Chroma server; set IMGRET_CHROMA_URL to its address.")
    named = {name: getattr(options, name) for name in ("config", "image_column", "label_column", "caption_column")}
    library = ImageLibrary.load(options.source, options.split, options.revision, limit=options.limit, **named)
    at_once = sys.stdout.isatty()  # else with the result, so that a build that fails prints nothing but its error
    if at_once:
        print(*library.description.lines, sep="\n", flush=True)
    encoder = (
        options.encoder
        if options.device == "cpu"
        else load_encoder(options.encoder, device=options.device, cache=cache)
    )
    with _Bar() as bar:
        index = build_index(
            library,
            options.out,
            encoder,
            options.pixel_size,
            progress=bar,
            cache=cache,
            engine=engine,
            chroma=chroma,
            prune=options.prune,
        )
    manifest = index.manifest
    recall = manifest.recall
    if not at_once:
        print(*manifest.description, sep="\n")
    print(
        f"{options.out}: {len(index)} pictures, {len(manifest.labels)} labels, {manifest.skipped_count} skipped; "
        f"encoder {manifest.encoder.uri}; recall@{recall.k} {recall.recall:.4f} with ef_search {recall.ef_search}"
    )
    for name, reason in manifest.skipped[:5]:
        print(f"skipped {_one_line(name)}: {reason}", file=sys.stderr)
    index.close()


def _search(options: argparse.Namespace) -> None:
    retriever = _retriever(options.folder, options.encoder)
    metric = options.metric or ("l2" if options.image else "clip")
    if metric == "clip":
        found = retriever.find_by_clip(image=options.image, text=options.text, k=options.k)
    elif options.image is None:
        raise ValueError(
            f"The metric {metric} compares pictures, so it needs --image; a text is searched with --metric clip."
        )
    else:
        found = retriever.find_by_pixels(options.image, metric, options.k)
    if found.notice is not None:
        print(f"note: {found.notice}", file=sys.stderr)
    if options.json:
        print(json.dumps({"hits": [hit.as_dict() for hit in found.hits]}, ensure_ascii=False))
    else:
        for hit in found.hits:
            words = (" ".join((text or "").split()) for text in (hit.label, hit.caption))
            print(f"{hit.rank:>3}  {hit.score:>14.6f}  {_one_line(hit.id)}  {'  '.join(words)}".rstrip())
    retriever.index.close()


def _evaluate(options: argparse.Namespace) -> None:
    from imgret.evaluate import evaluate

    retriever = _retriever(options.folder, options.encoder)
    with _Bar() as bar:
        found = evaluate(retriever, options.queries, progress=bar)
    if options.json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    print(
        f"{found.queries} queries, each against the other pictures of {len(retriever.index)}; "
        f"{found.alone} more are the only ones of their label"
    )
    rows: list[tuple[str, dict[str, float]]] = list(found.methods.items())
    if rows:
        print(f"{'':<12}" + "".join(f"{name:>14}" for name in rows[0][1]))
    for method, figures in rows:
        print(f"{method:<12}" + "".join(f"{value:>14.4f}" for value in figures.values()))
    if found.captions:
        recalls = ", ".join(f"{name} {value:.4f}" for name, value in found.captions.items())
        print(f"caption to picture: {recalls}, by {found.caption_queries} captions")


def _publish(options: argparse.Namespace) -> None:
    from imgret.hub import publish
    from imgret.hub.model_card import render_card
    from imgret.settings import Settings

    cache = Settings.read().cache
    folder = Path(options.folder)
    published = publish(
        folder,
        options.repo,
        lambda: render_card(folder, options.repo, options.license, cache=cache),
        create=options.create,
        private=options.private,
    )
    what = "published" if published.changed else "unchanged, nothing was uploaded"
    print(f"{published.repo}: {what}; commit {published.commit}")


def _deploy(options: argparse.Namespace) -> None:
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
    with _Bar() as bar:
        deploy(spec, dry_run=options.dry_run, progress=bar)


def _serve(options: argparse.Namespace) -> None:
    from imgret.settings import Settings
    from imgret.startup import Startup, prepare_in_steps
    from imgret.ui.page import build_page, launch

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("imgret").setLevel(logging.INFO)
    settings = Settings.read()
    if options.folder is not None:  # named by the user, so an error ends the command
        _retriever(options.folder, options.encoder).index.close()
    start = Startup(lambda progress: prepare_in_steps(settings, progress, folder=options.folder))
    launch(build_page(start, settings), start, settings, port=options.port)


def _retriever(folder: str, encoder: str | None) -> Any:
    from imgret.index import Index
    from imgret.search import Retriever, SearchError
    from imgret.settings import Settings
    from imgret.vectors import ChromaServer

    settings = Settings.read()
    cache = settings.cache
    index = Index.open(folder, ChromaServer.of(settings), cache=cache)
    made_with = index.manifest.encoder.uri
    if encoder is not None and encoder != made_with:
        raise SearchError(
            f"The index in {folder} was built with the encoder {made_with}, not {encoder}; "
            f"leave --encoder out or build one with it."
        )
    return Retriever(index, cache=cache)


def _one_line(id: str) -> str:
    """An id for a table: a file's name may have line breaks in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in id)


class _Bar:
    """Shows progress on standard error, one tqdm bar for each stage."""

    def __enter__(self) -> Callable[[str, int, int | None], None]:
        self._stage = ""
        self._bar: Any = None
        return self._update

    def _update(self, stage: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if stage != self._stage or self._bar is None:
            self.__exit__()
            self._stage, self._bar = stage, tqdm(desc=stage, total=total, file=sys.stderr, leave=True, disable=None)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
