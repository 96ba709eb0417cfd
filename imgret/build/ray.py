"""Builds on a Ray cluster: Ray Data reads the library, and one actor a core decodes and embeds."""

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from PIL import Image

from imgret.build.features import FeatureExtractor, Outcome
from imgret.encoders import Encoder, load_encoder
from imgret.encoders.onnx import OnnxEncoder
from imgret.errors import LONGEST, ImgretError, one_line
from imgret.images import ImageError
from imgret.library import ImageLibrary

TOGETHER, BLOCK_BYTES = 16, 512 * 2**10
"""The size of a batch for an actor: the least number of pictures, and the largest number of bytes."""

MAX_ROWS = 1000
"""The most rows that one task reads; a task that fails starts again."""

READER_CPUS, ACTOR_CPUS = 0.2, 0.8
"""How much of a core a reader and an actor reserve. Together they fit on one; an actor with a whole core would leave
none for readers.
"""

RETRIES = 3
"""How often a batch is tried again after its actor died; a picture that kills every actor must not do so for ever.
"""

STORE_BYTES = 512 * 2**20
"""Bytes of shared memory on this machine for data between processes."""

ANSWER_SECONDS = 3.0
"""How long to wait for the first answer of a cluster."""


class ClusterError(ImgretError):
    """A build that Ray cannot carry out; the text says why and what would work."""


def on_ray(address: str | None = None) -> Callable[[ImageLibrary, FeatureExtractor], Generator[Outcome]]:
    """An engine for `build_index` that runs on Ray.

    `address` is "host:port" or "auto", of a cluster that this machine is part of. Without it, the engine uses the Ray
    that the program has initialised, or else starts one on the cores of this machine.

    There is one actor for each core, with its own session of the exported encoder. An actor that dies is replaced, and
    its batch runs again. All machines of a cluster need this package, and the library at the same path unless it is a
    data set of the Hub. Raises ClusterError.
    """

    def run(library: ImageLibrary, extractor: FeatureExtractor) -> Generator[Outcome]:
        with _connected(address):
            yield from _outcomes(library, extractor)

    return run


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    # Read when Ray starts. Its core would warn on standard error of what Ray Data does with actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(
            "A build on Ray needs its package ({error}): pip install imgret[ray].", error=error
        ) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if address is None and ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    if address is not None:
        _check(address)
        options = {}
    try:
        try:
            with _without_usage_report() if address is None else nullcontext():
                ray.init(address or "local", logging_level=logging.CRITICAL, log_to_driver=False, **options)
        except Exception as error:  # Ray has no common class for the errors of joining a cluster
            if address is None:
                raise ClusterError(
                    "Ray cannot be started on this machine ({reason}).", reason=one_line(error)
                ) from error
            raise ClusterError(
                "The Ray cluster at {address} cannot be joined ({reason}); this machine must be part of it, "
                "and if it asks for a token, RAY_AUTH_MODE must be token here, too.",
                address=address,
                reason=one_line(error),
            ) from error
        yield
    finally:
        ray.shutdown()


def _without_usage_report() -> Any:
    """Ray starts without the process that reports its use: turned off, it still asks three clouds if it is there."""
    from ray._private.node import Node

    return patch.object(Node, "start_api_server", lambda *_, **__: None)


def _check(address: str) -> None:
    """Raises ClusterError if nothing at this address speaks Ray's protocol; Ray itself would wait for two minutes."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel  # knows Ray's own settings for TLS

    if address == "auto":  # Ray looks for it among the processes of this machine
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ClusterError(
            "{address!r} is no address of a Ray cluster; host:port is, as ray start prints it, or auto.",
            address=address,
        )
    channel = init_grpc_channel(address)
    try:
        grpc.channel_ready_future(channel).result(ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        raise ClusterError(
            "No Ray cluster answers at {address}; start one with ray start --head, or leave the address out.",
            address=address,
        ) from None
    finally:
        channel.close()


def _outcomes(library: ImageLibrary, extractor: FeatureExtractor) -> Iterator[Outcome]:
    import ray
    from ray import cloudpickle

    encoder = extractor.encoder()
    if not isinstance(encoder, OnnxEncoder):
        raise ClusterError(
            'The encoder "{uri}" runs in torch here, and a build on Ray takes what is exported for the '
            "CPU; leave the device out.",
            uri=encoder.uri,
        )
    towers = {path.name: path.read_bytes() for path in encoder.picture_files}
    count = library.count
    cores = int(ray.cluster_resources().get("CPU", 1))
    actors = cores if count is None else min(cores, -(-count // TOGETHER))
    parts = library.parts(max(TOGETHER, min(MAX_ROWS, (count or 0) // (4 * cores))))
    if not parts:
        return
    shared = ray.put((encoder.uri, towers)), ray.put((extractor.batch, extractor.pixel_size, extractor.known))
    with warnings.catch_warnings():
        # Options of Ray's core, such as max_task_retries, are about to get names of their own in Ray Data.
        warnings.simplefilter("ignore", DeprecationWarning)
        rows = (
            ray.data.from_items([{"part": cloudpickle.dumps(part)} for part in parts], override_num_blocks=len(parts))
            .map_batches(_read, batch_size=None, num_cpus=READER_CPUS)
            .map_batches(
                _Actor,
                fn_constructor_args=shared,
                batch_size=TOGETHER,
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=ACTOR_CPUS,
                max_task_retries=RETRIES,
            )
        )
    rows.context.execution_options.preserve_order = True
    rows.context.target_max_block_size = BLOCK_BYTES
    rows.context.enable_progress_bars = False
    try:
        for number, row in enumerate(rows.iter_rows()):
            found = pickle.loads(row["found"])
            if isinstance(found, ClusterError):
                raise found
            entry, outcome, new = found
            yield (replace(entry, id=str(number)) if library.numbered else entry), outcome, new
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if "Error" in line] or [str(error)]
        raise ClusterError(
            "The build on Ray broke off ({reason}); started again, it embeds only what is missing.",
            reason=lines[-1].strip()[:LONGEST],
        ) from error


def _read(batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
    """The entries of some parts of the library, with the bytes of their files."""
    try:
        for part in batch["part"]:
            for entry in pickle.loads(part):
                with suppress(ImageError):  # the actor meets the same error, and reports it
                    entry = replace(entry, data=entry.read())
                yield {"entry": [pickle.dumps(entry)]}
    except ImgretError as error:
        yield {"entry": [pickle.dumps(ClusterError(error.sentence))]}


class _Actor:
    """Extracts features in a process of its own, which has nothing of the build but what it was sent."""

    def __init__(self, encoder: Any, settings: Any) -> None:
        import ray

        @cache
        def session() -> Encoder:
            uri, towers = ray.get(encoder)
            with TemporaryDirectory() as folder:
                for name, content in towers.items():
                    Path(folder, name).write_bytes(content)
                opened = load_encoder(uri, exported=Path(folder), threads=1)
                opened.embed_images([Image.new("RGB", (8, 8))])  # once its files are open, they may go
            return opened

        self._extract = FeatureExtractor(session, *ray.get(settings))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        entries = [pickle.loads(entry) for entry in batch["entry"]]
        try:
            found: list[Any] = [entry for entry in entries if isinstance(entry, ClusterError)] or self._extract(entries)
        except ImgretError as error:
            found = [ClusterError(error.sentence)]
        return {"found": [pickle.dumps(each) for each in found]}
