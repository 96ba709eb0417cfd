"""How is a build spread over many cores or machines? Ray Data reads the library, and actors decode and embed."""

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from imgret.build.features import Digester, Outcome
from imgret.encoders import Encoder, load_encoder
from imgret.encoders.onnx import OnnxEncoder
from imgret.errors import LONGEST, in_short
from imgret.images import ImageError
from imgret.library import ImageLibrary

TOGETHER, BLOCK_BYTES = 16, 512 * 2**10
"""What an actor is given at once: so many pictures at least, as far as there are, and so many bytes at most."""

MOST_ROWS = 1000
"""How many rows one task reads at most; what fails is read again from its start."""

READER_CPUS, ACTOR_CPUS = 0.2, 0.8
"""Shares of a core that leave each core an actor and a reader. With whole cores for the actors nobody would read."""

RETRIES = 3
"""How often a batch is tried again whose actor has died: a picture that kills each of them must not go round for ever.
"""

STORE_BYTES = 512 * 2**20
"""Of shared memory on this machine, for what is on its way between processes."""

ANSWER_SECONDS = 3.0
"""How long a cluster may take to answer at all."""


class ClusterError(ValueError):
    """A build that Ray cannot carry out; the text says why and what would work."""


def on_ray(address: str | None = None) -> Callable[[ImageLibrary, Digester], Generator[Outcome]]:
    """The engine of `build_index` that runs on Ray: on the cluster at `address`, "host:port" or "auto", that this
    machine is part of; without one on the cores of this machine, or where the program has called `ray.init` itself.

    An actor a core holds one session of the exported encoder and does what a thread of a plain build does; one that
    dies is replaced, and its batch done again. The machines of a cluster have this package installed, and see the
    library at the same path if it is no data set of the Hub. Raises ClusterError.
    """

    def run(library: ImageLibrary, digester: Digester) -> Generator[Outcome]:
        with _connected(address):
            yield from _outcomes(library, digester)

    return run


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    # Both are read when Ray starts. Its core would warn on standard error of what Ray Data does with actors.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(f"A build on Ray needs its package ({error}): pip install imgret[ray].") from None
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
            ray.init(address or "local", logging_level=logging.CRITICAL, log_to_driver=False, **options)
        except Exception as error:  # Ray has no common error for what keeps a cluster from being joined
            if address is None:
                raise ClusterError(f"Ray cannot be started on this machine ({in_short(error)}).") from error
            raise ClusterError(
                f"The Ray cluster at {address} cannot be joined ({in_short(error)}); this machine must be part of it, "
                f"and if it asks for a token, RAY_AUTH_MODE must be token here, too."
            ) from error
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Raises ClusterError where nothing speaks Ray's protocol: Ray itself would wait for it for two minutes."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel  # knows Ray's own settings for TLS

    if address == "auto":  # looked for among the processes of this machine
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ClusterError(
            f"{address!r} is no address of a Ray cluster; host:port is, as ray start prints it, or auto."
        )
    channel = init_grpc_channel(address)
    try:
        grpc.channel_ready_future(channel).result(ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        raise ClusterError(
            f"No Ray cluster answers at {address}; start one with ray start --head, or leave the address out."
        ) from None
    finally:
        channel.close()


def _outcomes(library: ImageLibrary, digester: Digester) -> Iterator[Outcome]:
    import ray
    from ray import cloudpickle

    encoder = digester.encoder()
    if not isinstance(encoder, OnnxEncoder):
        raise ClusterError(
            f'The encoder "{encoder.uri}" runs in torch here, and a build on Ray takes what is exported for the CPU; '
            f"leave the device out."
        )
    towers = {path.name: path.read_bytes() for path in encoder.picture_files}
    count = library.count
    cores = int(ray.cluster_resources().get("CPU", 1))
    actors = cores if count is None else min(cores, -(-count // TOGETHER))
    parts = library.parts(max(TOGETHER, min(MOST_ROWS, (count or 0) // (4 * cores))))
    if not parts:
        return
    shared = ray.put((encoder.uri, towers)), ray.put((digester.batch, digester.pixel_size, digester.known))
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
        said = [line for line in str(error).splitlines() if "Error" in line] or [str(error)]
        raise ClusterError(
            f"The build on Ray broke off ({said[-1].strip()[:LONGEST]}); started again, it embeds only what is missing."
        ) from error


def _read(batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
    """The entries of some parts, with what their files hold."""
    try:
        for part in batch["part"]:
            for entry in pickle.loads(part):
                with suppress(ImageError):  # the actor meets it again, and tells
                    entry = replace(entry, data=entry.read())
                yield {"entry": [pickle.dumps(entry)]}
    except ValueError as error:
        yield {"entry": [pickle.dumps(ClusterError(str(error)))]}


class _Actor:
    """A digester with a session of its own, on a machine that has nothing of the build's but what it is sent."""

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

        self._digest = Digester(session, *ray.get(settings))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        entries = [pickle.loads(entry) for entry in batch["entry"]]
        try:
            found: list[Any] = [entry for entry in entries if isinstance(entry, ClusterError)] or self._digest(entries)
        except ValueError as error:
            found = [ClusterError(str(error))]
        return {"found": [pickle.dumps(each) for each in found]}
